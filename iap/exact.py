"""Exact attention: the explicit matrix, as reference and as baseline."""

import jax
import jax.numpy as jnp
from jax import lax

from iap.chunks import scan_chunks
from iap.tokens import as_tokens


def exact_scores(
    queries: jax.Array, keys: jax.Array, *, normalised: bool = True
) -> jax.Array:
    """Column sums of the explicit matrix exp(q . k): O(L^2), the reference.

    Args:
      queries: f32[L, d], scaled.
      keys: f32[L, d], scaled.
      normalised: divide every row of the matrix by its own sum; if not, scores are
        divided by their mean, as in `linear_scores`.

    Returns:
      f32[L], sum L.

    Raises:
      ValueError: where the tokens do not fit each other.
    """
    queries, keys = as_tokens(queries, keys)
    logits = queries @ keys.T
    if normalised:
        top = jnp.max(logits, axis=1, keepdims=True)
        matrix = jnp.exp(logits - lax.stop_gradient(top))
        # A product, not a sum of softmax's columns: XLA's CPU backend fuses a large
        # softmax into that sum, keeps no matrix and makes a row again for each entry.
        return (1 / jnp.sum(matrix, axis=1)) @ matrix
    scores = jnp.sum(jnp.exp(logits - lax.stop_gradient(jnp.max(logits))), axis=0)
    return scores / jnp.mean(scores)


def chunked_exact_scores(
    queries: jax.Array, keys: jax.Array, chunk: int = 256
) -> jax.Array:
    """The row-normalised `exact_scores`, `chunk` rows of the matrix at a time.

    O(L^2) time, O(chunk L) memory, forwards and backwards. A block holds whole rows, so
    that one pass sees both a row's sum and the columns; tiles with a running softmax
    (arXiv 2112.05682) would compute every exp twice for column sums.

    Args:
      queries: f32[L, d], scaled.
      keys: f32[L, d], scaled.
      chunk: rows that are held at once; 256 take least time at 9,216 tokens on a CPU
        (docs/attention.md).

    Returns:
      f32[L], sum L.

    Raises:
      ValueError: where chunk is below 1, or the tokens do not fit each other.
    """
    queries, keys = as_tokens(queries, keys)

    def add(scores, block):
        logits = block @ keys.T
        top = lax.stop_gradient(jnp.max(logits, axis=1, keepdims=True))
        matrix = jnp.exp(logits - top)
        return scores + (1 / jnp.sum(matrix, axis=1)) @ matrix, None

    add = jax.checkpoint(add, prevent_cse=False)  # or its matrices are kept, all L x L
    scores, _ = scan_chunks(add, jnp.zeros_like(keys[:, 0]), queries, chunk)
    return scores


def exact_attention(
    queries: jax.Array, keys: jax.Array, values: jax.Array, *, causal: bool = False
) -> jax.Array:
    """softmax(q k^T) v by the explicit matrix: O(L^2), the reference.

    Args:
      queries: f32[L, d], scaled.
      keys: f32[L, d], scaled.
      values: f32[L, n].
      causal: a token attends to itself and to earlier ones only.

    Returns:
      f32[L, n].

    Raises:
      ValueError: where the tokens do not fit each other.
    """
    queries, keys, values = as_tokens(queries, keys, values)
    logits = queries @ keys.T
    if causal:
        logits = jnp.where(jnp.tri(len(keys), dtype=bool), logits, -jnp.inf)
    return jax.nn.softmax(logits, axis=1) @ values
