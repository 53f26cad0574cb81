import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import Order, mask, select


def test_rank_order_is_a_stable_descending_sort():
    scores = np.random.default_rng(0).integers(0, 5, 50).astype(np.float32)  # many ties
    expected = np.argsort(-scores, kind="stable")
    for k in (1, 7, 50):
        index = select(jnp.asarray(scores), k, Order.rank)
        assert index.dtype == jnp.int32
        np.testing.assert_array_equal(index, expected[:k])


def test_position_order_is_the_same_set_rising():
    scores = np.random.default_rng(1).integers(0, 5, 50).astype(np.float32)
    expected = np.sort(np.argsort(-scores, kind="stable")[:9])
    np.testing.assert_array_equal(
        select(jnp.asarray(scores), 9, Order.position), expected
    )


def test_ties_go_to_the_lowest_index_in_batches_too():
    scores = jnp.zeros((2, 3, 20)).at[:, :, 13].set(1.0)
    index = jax.vmap(jax.vmap(lambda s: select(s, 4, Order.rank)))(scores)
    np.testing.assert_array_equal(index, np.tile([13, 0, 1, 2], (2, 3, 1)))


@pytest.mark.parametrize("k", [0, 21])
def test_refuses_k_out_of_range(k):
    with pytest.raises(ValueError, match=f"top_k={k} must be between 1 and .* 20"):
        select(jnp.zeros(20), k)


def test_refuses_scores_of_several_images():
    with pytest.raises(ValueError, match=r"shape \(3, 20\); expected \[L\]"):
        select(jnp.zeros((3, 20)), 2)


def test_mask_keeps_exactly_k_tokens_where_they_are():
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 3, 50).astype(np.float32)  # many ties at the k-th place
    tokens = rng.standard_normal((50, 4)).astype(np.float32)
    for k in (1, 9, 50):
        best = np.argsort(-scores, kind="stable")[:k]
        expected = np.zeros_like(tokens)
        expected[best] = tokens[best]
        actual = mask(jnp.asarray(tokens), jnp.asarray(scores), k)
        np.testing.assert_array_equal(actual, expected)


def test_mask_drops_what_is_no_number():
    tokens = jnp.ones((4, 2)).at[3].set(jnp.nan)
    actual, gradient = jax.value_and_grad(
        lambda tokens, scores: jnp.sum(mask(tokens, scores, 2)), argnums=(0, 1)
    )(tokens, jnp.asarray([1.0, 3.0, 2.0, 0.0]))
    assert actual == 4
    np.testing.assert_array_equal(gradient[0], [[0, 0], [1, 1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(gradient[1], 0)


def test_mask_refuses_k_out_of_range():
    with pytest.raises(ValueError, match=r"top_k=21 must be between 1 and .* 20"):
        mask(jnp.zeros((20, 4)), jnp.zeros(20), 21)


def test_mask_needs_a_score_for_each_token():
    with pytest.raises(ValueError, match=r"tokens \(20, 4\) and scores \(21,\) differ"):
        mask(jnp.zeros((20, 4)), jnp.zeros(21), 2)
