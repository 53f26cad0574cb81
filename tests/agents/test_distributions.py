import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from agents import distributions
from envs.core import Box, Discrete

CAR = Box((3,), (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RAW = jnp.float32([0.4, -1.0, 0.1, 2.0, -0.5, 6.0])


def reference():
    """SciPy's Beta distributions over CAR's bounds with the mode and concentration."""
    location, spread = np.split(np.asarray(RAW, np.float64), 2)
    peak, concentration = (np.tanh(location) + 1) / 2, np.log1p(np.exp(spread))
    return scipy.stats.beta(
        1 + peak * concentration,
        1 + (1 - peak) * concentration,
        loc=[-1, 0, 0],
        scale=[2, 1, 1],
    )


def draws(space, raw, count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    sample = jax.vmap(distributions.sample, (None, None, 0))
    return jax.jit(sample, static_argnums=0)(space, raw, keys)


def test_counts_of_raw_outputs():
    assert (distributions.parameters(CAR), distributions.outputs(CAR)) == (3, 6)
    assert distributions.parameters(Discrete(5)) == distributions.outputs(Discrete(5))


def test_a_box_has_the_density_of_scipys_beta():
    actions = [[0.5, 0.2, 0.9], [-0.999, 0.001, 0.5], *draws(CAR, RAW, 20)]
    actions = np.float32(actions)
    log_prob = jax.vmap(distributions.log_prob, (None, None, 0))
    found = jax.jit(log_prob, static_argnums=0)(CAR, RAW, actions)
    expected = reference().logpdf(np.float64(actions)).sum(axis=1)
    # float32's lgamma of numbers up to 10.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


def test_a_boxs_entropy_is_scipys():
    expected = reference().entropy().sum()
    # Terms of size 3 that cancel.
    np.testing.assert_allclose(distributions.entropy(CAR, RAW), expected, atol=1e-5)


def test_a_boxs_draws_are_within_its_bounds_and_have_its_moments():
    action = np.asarray(draws(CAR, RAW, 20_000))
    assert (action > CAR.low).all() and (action < CAR.high).all()
    # Standard errors are at most 0.5 / sqrt(20,000) = 0.004.
    np.testing.assert_allclose(action.mean(0), reference().mean(), atol=0.015)
    np.testing.assert_allclose(action.std(0), reference().std(), atol=0.015)


def test_a_boxs_density_peaks_at_the_mode():
    mode = distributions.mode(CAR, RAW[:3])
    best = distributions.log_prob(CAR, RAW, mode)
    for i in range(3):
        for step in (-0.02, 0.02):
            near = mode.at[i].add(step)
            assert distributions.log_prob(CAR, RAW, near) < best


def test_what_is_played_is_scipys_mean_or_the_likeliest_choice():
    found = distributions.expected(CAR, RAW)
    np.testing.assert_allclose(found, reference().mean(), rtol=1e-6)
    logits = jnp.float32([0.1, 2.0, -1.0, 1.9, 0.0])
    assert distributions.expected(Discrete(5), logits) == 1


@jax.jit
@jax.vmap
def everything(raw, key):
    action = distributions.sample(CAR, raw, key)
    log_prob = jax.value_and_grad(distributions.log_prob, 1)(CAR, raw, action)
    entropy = jax.value_and_grad(distributions.entropy, 1)(CAR, raw)
    return action, log_prob, entropy


@pytest.mark.parametrize("width", [1, 3])
def test_gradients_of_many_compiled_as_one_are_those_in_float64(width):
    """A quarter of those of `jax.scipy.special` are wrong by more than their size."""
    space = Box((width,), (-1.0,), (1.0,))
    rng = np.random.default_rng(0)
    raws = np.float32(rng.normal(size=(200, 2 * width)))
    actions = np.float32(rng.uniform(-0.99, 0.99, size=(200, width)))

    def loss(raw, action):
        entropy = distributions.entropy(space, raw)
        return distributions.log_prob(space, raw, action) + 0.3 * entropy

    def exact(raw, action):
        location, spread = np.split(raw, 2, axis=1)
        peak, much = (np.tanh(location) + 1) / 2, np.log1p(np.exp(spread))
        beta = scipy.stats.beta(1 + peak * much, 1 + (1 - peak) * much, loc=-1, scale=2)
        return (beta.logpdf(action) + 0.3 * beta.entropy()).sum(axis=1)

    found = jax.jit(jax.vmap(jax.grad(loss)))(raws, actions)
    for i in range(2 * width):
        step = 1e-4 * np.eye(2 * width)[i]
        above, below = (exact(raws + by, np.float64(actions)) for by in (step, -step))
        # float32's terms of size 10, and the error of a difference of 1e-4.
        np.testing.assert_allclose(
            found[:, i], (above - below) / 2e-4, rtol=1e-4, atol=2e-5
        )


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1000.0])
def test_at_any_raw_output_all_is_finite(scale):
    rng = np.random.default_rng(0)
    raws = jnp.float32(scale * rng.normal(size=(50, 6)))
    found = everything(raws, jax.random.split(jax.random.key(0), 50))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_the_score_of_a_boxs_draws_has_mean_zero():
    """E[grad log p(a)] = 0 under a ~ p: density, its gradient and draws agree."""
    actions = draws(CAR, RAW, 20_000)
    slope = jax.grad(distributions.log_prob, argnums=1)
    slopes = jax.vmap(slope, (None, None, 0))(CAR, RAW, actions)
    error = slopes.std(0) / np.sqrt(len(actions))
    assert (np.abs(slopes.mean(0)) < 4 * error).all()


def test_a_discrete_choice():
    space, raw = Discrete(4), jnp.float32([0.1, 2.0, -1.0, 0.5])
    chances = np.exp(raw) / np.exp(raw).sum()
    for action in range(4):
        found = distributions.log_prob(space, raw, jnp.int32(action))
        np.testing.assert_allclose(found, np.log(chances[action]), rtol=1e-5)
    entropy = -(chances * np.log(chances)).sum()
    np.testing.assert_allclose(distributions.entropy(space, raw), entropy, rtol=1e-5)
    action = draws(space, raw, 20_000)
    assert action.dtype == jnp.int32
    counted = np.bincount(action, minlength=4) / len(action)
    # Four standard errors of a share, at most 0.5 / sqrt(20,000).
    np.testing.assert_allclose(counted, chances, atol=0.015)


def test_a_box_of_another_shape_keeps_it():
    space = Box((2, 2), (-2.0,), (2.0,))
    raw = jnp.zeros(distributions.outputs(space))
    action = distributions.sample(space, raw, jax.random.key(0))
    assert action.shape == distributions.mode(space, raw[:4]).shape == (2, 2)
    assert jnp.isfinite(distributions.log_prob(space, raw, action))
