import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import losses, moments

T = 40


def steps(seed=0):
    """Rewards, values, successors and ends of a trajectory with ends of both kinds."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=T + 1)
    terminated = rng.random(T) < 0.1
    truncated = ~terminated & (rng.random(T) < 0.1)
    successor = value[1:].copy()
    successor[truncated] = rng.normal(size=truncated.sum())
    successor[terminated] = 0
    ended = terminated | truncated
    assert terminated.any() and truncated.any() and not ended.all()
    return rng.normal(size=T), value[:-1], successor, ended


def gae_by_hand(reward, value, successor, ended, discount, trace):
    """The sum of equation 16, term by term, in float64."""
    advantage = []
    for t in range(len(reward)):
        total, weight = 0.0, 1.0
        for s in range(t, len(reward)):
            total += weight * (reward[s] + discount * successor[s] - value[s])
            weight *= discount * trace
            if ended[s]:
                break
        advantage.append(total)
    return np.array(advantage)


def f32(*arrays):
    return [jnp.asarray(x) if x.dtype == bool else jnp.float32(x) for x in arrays]


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("trace", [0.0, 0.95, 1.0])
def test_gae_equals_a_python_loop(discount, trace):
    for seed in range(3):
        data = steps(seed)
        found = jax.jit(losses.gae, static_argnums=(4, 5))(*f32(*data), discount, trace)
        expected = gae_by_hand(*data, discount, trace)
        # At most 40 terms of size 1, each rounded in float32.
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_with_a_trace_of_one_advantage_and_value_are_the_return():
    reward, value, successor, ended = steps()
    successor = np.where(ended, 0.0, successor)  # only terminations
    ended[-1], successor[-1] = True, 0
    advantage = losses.gae(*f32(reward, value, successor, ended), 0.9, 1.0)
    total, returns = 0.0, []
    for r, end in zip(reward[::-1], ended[::-1], strict=True):
        total = r + 0.9 * (0.0 if end else total)
        returns.append(total)
    np.testing.assert_allclose(advantage + value, returns[::-1], atol=1e-5)


def test_the_clipped_surrogate_case_by_case():
    ratio = np.array([0.5, 0.9, 1.0, 1.1, 1.5, 0.5, 0.9, 1.1, 1.5])
    advantage = np.array([1.0, 1, 1, 1, 1, -2, -2, -2, -2])
    #  Worth less than the ratio says where it has moved with its advantage too far.
    expected = -np.array([0.5, 0.9, 1.0, 1.1, 1.2, -1.6, -1.8, -2.2, -3.0])
    found = losses.clipped_surrogate(*f32(np.log(ratio), advantage), 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_beyond_the_clip_no_gradient_pulls_further():
    def slope(ratio, advantage):
        return jax.grad(losses.clipped_surrogate)(jnp.log(ratio), advantage, 0.2)

    assert slope(1.5, 1.0) == 0 and slope(0.5, -1.0) == 0
    np.testing.assert_allclose(slope(1.1, 1.0), -1.1, rtol=1e-5)
    np.testing.assert_allclose(slope(0.5, 1.0), -0.5, rtol=1e-5)


def test_the_value_loss_equals_a_loop():
    rng = np.random.default_rng(1)
    value, before, target = rng.normal(size=(3, 50))
    plain = losses.value_loss(*f32(value, before, target), 0.0)
    np.testing.assert_allclose(plain, (value - target) ** 2 / 2, atol=1e-5)
    clipped = losses.value_loss(*f32(value, before, target), 0.3)
    for i in range(50):
        near = min(max(value[i], before[i] - 0.3), before[i] + 0.3)
        expected = max((value[i] - target[i]) ** 2, (near - target[i]) ** 2) / 2
        np.testing.assert_allclose(clipped[i], expected, atol=1e-5)


def test_the_estimated_kl_is_the_kl_of_two_gaussians():
    """log-ratios of N(0.3, 1) to N(0, 1) under samples of the latter: KL = 0.045."""
    x = np.random.default_rng(0).normal(size=200_000)
    kl = losses.approximate_kl(jnp.float32(0.3 * x - 0.045))
    assert (kl >= 0).all()
    # Standard error 0.0002 over as many samples.
    np.testing.assert_allclose(kl.mean(), 0.045, atol=8e-4)


def test_what_counts_as_clipped():
    ratio = np.array([0.79, 0.81, 1.0, 1.19, 1.21])
    found = losses.clipped(jnp.log(jnp.float32(ratio)), 0.2)
    np.testing.assert_array_equal(found, [True, False, False, False, True])


def test_explained_variance():
    target = jnp.float32(np.random.default_rng(0).normal(3, 2, 1000))
    np.testing.assert_allclose(losses.explained_variance(target, target), 1)
    np.testing.assert_allclose(losses.explained_variance(target + 7, target), 1, 1e-5)
    constant = jnp.full(1000, 5.0)
    np.testing.assert_allclose(
        losses.explained_variance(constant, target), 0, atol=1e-5
    )
    np.testing.assert_allclose(losses.explained_variance(0.5 * target, target), 0.75)
    assert losses.explained_variance(target, constant) == 0


# --- moments ------------------------------------------------------------------------


def test_moments_start_as_the_identity():
    x = jnp.float32([-3.0, 0.0, 7.0])
    np.testing.assert_array_equal(moments.normalise(moments.start(), x), x)
    np.testing.assert_array_equal(moments.restore(moments.start(), x), x)


def test_moments_follow_a_stream():
    rng = np.random.default_rng(0)
    seen = moments.seen(moments.start(), jnp.float32(rng.normal(5, 3, 4000)))
    x = jnp.float32(rng.normal(5, 3, 4000))
    once = moments.normalise(seen, x)
    # Standard errors of mean and deviation, of both samples: 0.02.
    np.testing.assert_allclose([once.mean(), once.std()], [0, 1], atol=0.08)
    np.testing.assert_allclose(moments.restore(seen, once), x, atol=1e-4)
    for _ in range(1000):
        seen = moments.seen(seen, jnp.float32([-1.0, 3.0]))
    later = moments.normalise(seen, jnp.float32([-1.0, 3.0]))
    np.testing.assert_allclose(later, [-1, 1], atol=1e-2)


def test_moments_of_what_never_varies_stay_finite():
    seen = moments.seen(moments.start(), jnp.full(9, 4.0))
    np.testing.assert_allclose(moments.normalise(seen, jnp.float32(4)), 0, atol=1e-3)


def test_moments_pass_over_what_is_not_finite():
    seen = moments.seen(moments.start(), jnp.float32([1.0, 2.0]))
    for bad in (jnp.nan, jnp.inf):
        again = moments.seen(seen, jnp.float32([1.0, bad]))
        jax.tree.map(np.testing.assert_array_equal, again, seen)
