import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import chunked_exact_scores, exact_attention, exact_scores
from tests.iap.matrices import D, array_sizes, temporary_bytes, tokens, values


def softmax(queries, keys, causal=False):
    logits = np.asarray(queries, np.float64) @ np.asarray(keys, np.float64).T
    if causal:
        logits[~np.tri(len(logits), dtype=bool)] = -np.inf
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    return rows / rows.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("normalised", [True, False])
def test_exact_scores(normalised):
    queries, keys = tokens()
    logits = np.asarray(queries, np.float64) @ np.asarray(keys, np.float64).T
    matrix = np.exp(logits)
    if normalised:
        matrix /= matrix.sum(axis=1, keepdims=True)
    expected = matrix.sum(axis=0) * len(queries) / matrix.sum()
    actual = exact_scores(queries, keys, normalised=normalised)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_exact_attention(causal):
    queries, keys = tokens()
    expected = softmax(queries, keys, causal) @ np.asarray(values(), np.float64)
    actual = exact_attention(queries, keys, values(), causal=causal)
    # Logits up to 30, rounded to float32, are exponentiated: 30 * 2^-23 of a value's 1.
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 2.0, 30.0])
@pytest.mark.parametrize("chunk", [7, 50, 64])
def test_chunked_scores_are_exact_scores(scale, chunk):
    queries, keys = tokens(scale=scale)
    actual = jax.jit(chunked_exact_scores, static_argnums=2)(queries, keys, chunk)
    if scale <= 2.0:  # float32 logits of 100 at most: 100 * 2^-24 in each exp
        expected = softmax(queries, keys).sum(axis=0)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-28)
    np.testing.assert_allclose(actual, exact_scores(queries, keys), rtol=1e-4)
    np.testing.assert_allclose(actual.sum(), len(queries), rtol=1e-5)


def test_chunked_gradients_are_the_exact_ones():
    upstream = jnp.asarray(np.random.default_rng(3).standard_normal(50), jnp.float32)

    def gradient(score):
        return jax.jit(jax.grad(lambda *z: jnp.sum(upstream * score(*z)), (0, 1)))

    chunked = gradient(lambda q, k: chunked_exact_scores(q, k, 7))
    for a, e in zip(chunked(*tokens()), gradient(exact_scores)(*tokens()), strict=True):
        # Differences of float32 terms of the size of scores, up to 20 here.
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-4)
    large = chunked(*tokens(scale=30.0))
    assert all(np.all(np.isfinite(g)) for g in large)


def test_only_the_chunked_scores_hold_no_quadratic_array():
    length, chunk = 601, 8

    def gradient(score):
        return jax.value_and_grad(lambda *z: jnp.sum(score(*z) ** 2), (0, 1))

    chunked = gradient(lambda q, k: chunked_exact_scores(q, k, chunk))
    arguments = tokens(length=length)
    assert max(array_sizes(chunked, *arguments)) == chunk * length
    assert max(array_sizes(gradient(exact_scores), *arguments)) == length**2
    # A block's logits, their exponentials and the gradients of both; some of tokens.
    assert temporary_bytes(chunked, *arguments) < 4 * (6 * chunk + 16 * D) * length


def test_the_matrix_is_made_once():
    """A baseline that keeps no matrix would make it again and again: L^3 time."""
    length = 4096  # of which softmax's column sums kept none
    assert temporary_bytes(exact_scores, *tokens(length)) >= 4 * length**2


def test_refuses_chunks_of_nothing():
    with pytest.raises(ValueError, match="chunk=0 must be at least 1 row"):
        chunked_exact_scores(*tokens(), 0)
