import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import Order, sampling, select


def log_prob_by_hand(logits, index):
    """One draw after the other, in float64."""
    left, total = {i: np.exp(x) for i, x in enumerate(np.float64(logits))}, 0.0
    for i in index:
        total += np.log(left[i] / sum(left.values()))
        del left[i]
    return total


def test_log_prob_equals_drawing_one_after_another():
    rng = np.random.default_rng(0)
    for length, k, spread in ((576, 10, 1.0), (576, 10, 8.0), (30, 30, 3.0), (5, 1, 1)):
        logits = rng.normal(0, spread, length).astype(np.float32)
        index = rng.permutation(length)[:k]
        found = jax.jit(sampling.log_prob)(logits, index)
        np.testing.assert_allclose(found, log_prob_by_hand(logits, index), rtol=1e-5)


def test_log_prob_keeps_its_digits_where_one_patch_outweighs_all_others():
    """Taking it off the total would leave nothing of the others in float32."""
    logits = np.float32([20.0, 0.0, 1.0, 2.0, -1.0])
    index = np.array([0, 3, 1])
    found = sampling.log_prob(logits, index)
    np.testing.assert_allclose(found, log_prob_by_hand(logits, index), rtol=1e-5)


def test_all_ordered_draws_together_are_certain():
    logits = jnp.float32([0.3, -1.0, 2.0, 0.0])
    draws = jnp.array(list(itertools.permutations(range(4), 2)))
    chances = jnp.exp(jax.vmap(sampling.log_prob, (None, 0))(logits, draws))
    np.testing.assert_allclose(chances.sum(), 1, rtol=1e-5)


def test_draws_come_as_often_as_their_log_prob_says():
    logits, count = jnp.float32([0.3, -1.0, 2.0, 0.0]), 20_000
    keys = jax.random.split(jax.random.key(0), count)
    index = jax.vmap(lambda key: sampling.sample(logits, 2, key))(keys)
    assert index.dtype == jnp.int32
    assert (index[:, 0] != index[:, 1]).all()
    for draw in itertools.permutations(range(4), 2):
        chance = np.exp(log_prob_by_hand(logits, draw))
        share = (index == np.array([draw])).all(axis=1).mean()
        error = np.sqrt(chance * (1 - chance) / count)
        assert abs(share - chance) < 4 * error


def test_the_gradient_is_that_of_the_log_probability():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=12).astype(np.float32)
    index = np.array([3, 0, 7])
    slope = jax.grad(sampling.log_prob)(jnp.asarray(logits), index)
    step = 1e-4
    for i in range(12):
        up, down = (
            np.float64(logits) + s * step * (np.arange(12) == i) for s in (1, -1)
        )
        expected = (log_prob_by_hand(up, index) - log_prob_by_hand(down, index)) / (
            2 * step
        )
        np.testing.assert_allclose(slope[i], expected, atol=1e-4)


def test_cold_draws_are_the_best_in_rank_order():
    scores = jnp.float32(np.random.default_rng(0).random(50))
    logits = sampling.logits(scores, 1e-4)
    index = sampling.sample(logits, 7, jax.random.key(0))
    np.testing.assert_array_equal(index, select(scores, 7, Order.rank))


def test_a_score_of_zero_has_a_finite_logit():
    logits = sampling.logits(jnp.float32([0.0, 1.0, -1.0]), 0.5)
    assert jnp.isfinite(logits).all()
    assert jnp.isfinite(sampling.log_prob(logits, jnp.array([0, 2])))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_log_scores(temperature):
    scores = jnp.float32([0.5, 2.0])
    np.testing.assert_allclose(
        sampling.logits(scores, temperature), np.log(scores) / temperature, rtol=1e-6
    )


@pytest.mark.parametrize("k", [0, 6])
def test_refuses_k_out_of_range(k):
    with pytest.raises(ValueError, match=f"top_k={k} must be between 1 and .* 5"):
        sampling.sample(jnp.zeros(5), k, jax.random.key(0))
