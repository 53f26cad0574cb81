"""Patch scores by linear attention, and their exact twin as reference.

The score of patch j is the j-th column sum of the attention matrix: the attention that
it receives from all patches. Linear attention sums in another order and never forms the
L x L matrix: O(L M) time and memory.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from iap.features import FeatureMap, Features


def linear_scores(
    queries: jax.Array,
    keys: jax.Array,
    features: FeatureMap,
    *,
    normalised: bool = True,
    centred: bool = False,
) -> jax.Array:
    """Column sums of the implicit attention matrix Q' K'^T, Q' = phi(q), K' = psi(k).

    With row normalisation D = Q'(K'^T 1) and scores = ((1/D)^T Q') K'^T; without,
    scores = (1^T Q') K'^T, divided by their mean: one positive constant that no ranking
    sees and that float32 needs. Both sum to L.

    Estimates of either sign (`FeatureMap.positive` is false) can be negative scores. A
    row whose sum is estimated as 0 or less is then left out, so that normalised scores
    sum to the number of the others; without normalisation scores are divided by the
    mean of their magnitudes. All stay finite.

    Args:
      queries: f32[L, d], scaled.
      keys: f32[L, d], scaled.
      features: their feature map.
      normalised: divide every row of the matrix by its own sum.
      centred: estimate exp(q . k) around the means of queries and keys; valid for
        feature maps that estimate exp(q . k), whose variance it collapses.

    Returns:
      f32[L].
    """
    log_u = log_w = jnp.zeros((1, 1), queries.dtype)
    if centred:
        queries, keys, log_u, log_w = centre(queries, keys)
    query, key = features(queries, keys)
    query = query._replace(exponent=query.exponent + log_u)
    key = key._replace(exponent=key.exponent + log_w)
    q, k = stabilise(query, key, normalised)
    if normalised:  # a row's own factor cancels
        total = jnp.sum(k.matrix, axis=0) if k.factor is None else k.factor @ k.matrix
        weight = _inverse(q.matrix @ total, features)
    else:
        # Ones, not a sum: XLA fuses a sum that alone reads the features into the
        # product that makes them, which on a CPU doubles the time of relu features.
        weight = jnp.ones_like(queries[:, 0]) if q.factor is None else q.factor
    scores = k.matrix @ (weight @ q.matrix)
    if k.factor is not None:
        scores = scores * k.factor
    return scores if normalised else scores / _size(scores, features)


def _inverse(rows: jax.Array, features: FeatureMap) -> jax.Array:
    """One over the row sums; 0 where an estimate leaves one without meaning."""
    if features.positive:
        return 1 / rows
    kept = rows > 0
    return jnp.where(kept, 1 / jnp.where(kept, rows, 1), 0)


def _size(scores: jax.Array, features: FeatureMap) -> jax.Array:
    return jnp.mean(scores if features.positive else jnp.abs(scores))


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
    """
    logits = queries @ keys.T
    if normalised:
        return jnp.sum(jax.nn.softmax(logits, axis=1), axis=0)
    scores = jnp.sum(jnp.exp(logits - lax.stop_gradient(jnp.max(logits))), axis=0)
    return scores / jnp.mean(scores)


def centre(
    queries: jax.Array, keys: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Shift queries and keys by their means: exp(q . k) = u w exp(q' . k'), exactly.

    With a and b the means of queries and keys, q'_i = q_i - a and k'_j = k_j - b:
    u_i = exp(q_i . b) and w_j = exp(a . k'_j).

    Args:
      queries: f32[L, d].
      keys: f32[L, d].

    Returns:
      q' f32[L, d], k' f32[L, d], log u f32[L, 1], log w f32[L, 1].
    """
    d = queries.shape[1]
    both = jnp.concatenate([queries, keys], axis=1)
    mean = jnp.mean(both, axis=0, keepdims=True)  # one pass over both
    both = both - mean
    a, b = mean[:, :d], mean[:, d:]
    shifted = both[:, d:]
    return both[:, :d], shifted, queries @ b.T, shifted @ a.T


class Scaled(NamedTuple):
    """Features as a matrix and a factor per row, apart: L products instead of L M.

    Attributes:
      matrix: f32[L, M].
      factor: f32[L], or None for 1.
    """

    matrix: jax.Array
    factor: jax.Array | None


def stabilise(
    query: Features, key: Features, normalised: bool
) -> tuple[Scaled, Scaled]:
    """Multiply features out without overflow, in ratio exactly as they were.

    The largest exponent of each key feature moves over to the queries' features, which
    leaves every product phi(q_i) . psi(k_j) as it was. A constant that a query's
    features then share cancels under row normalisation; without it, one that all
    queries share does. Where all is in the exponent, row sums are at least 1.

    Args:
      query: features of the queries.
      key: features of the keys.
      normalised: whether rows are about to be normalised.

    Returns:
      The queries' and the keys'.
    """
    shift = lax.stop_gradient(jnp.max(key.exponent, axis=0, keepdims=True))
    exponent = query.exponent + shift
    shared = 1 if normalised else (0, 1)
    top = lax.stop_gradient(jnp.max(exponent, axis=shared, keepdims=True))
    return (
        _scaled(query._replace(exponent=exponent - top)),
        _scaled(key._replace(exponent=key.exponent - shift)),
    )


def _scaled(features: Features) -> Scaled:
    value, exponent = features
    if exponent.shape[1] > 1 or value.shape == (1, 1):
        return Scaled(value * jnp.exp(exponent), None)
    if exponent.shape[0] == 1:  # one constant for all, which stabilising made 0
        return Scaled(value, None)
    return Scaled(value, jnp.exp(exponent[:, 0]))
