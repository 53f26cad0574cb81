import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import Order, select


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
