"""Linear attention: patch scores, and values averaged by attention.

The score of patch j is the j-th column sum of the attention matrix: the attention that
it receives from all patches. Linear attention sums in another order and never forms the
L x L matrix: O(L M) time and memory. `exact` has the twins that do.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from iap import quadratic
from iap.chunks import scan_chunks
from iap.features import FeatureMap
from iap.maps import Features
from iap.tokens import as_tokens

WHOLE, BLOCK = 2**19, 2**16
"""Features that are made at once where no chunk is given, and a block's beyond that."""


def linear_scores(
    queries: jax.Array,
    keys: jax.Array,
    features: FeatureMap,
    *,
    normalised: bool = True,
    centred: bool = False,
    chunk: int | None = None,
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
      chunk: patches whose features are held at once, so that memory is O(L + chunk M),
        and backwards M more for every block; None for all, or on a CPU beyond half a
        million features for as many as its cache holds. Feature maps that have to see
        all tokens at once (`FeatureMap.rowwise` is false) are never cut.

    Returns:
      f32[L].

    Raises:
      ValueError: where the tokens do not fit each other, chunk is below 1, or centring
        is asked of a feature map that does not estimate exp(q . k).
    """
    queries, keys = as_tokens(queries, keys)
    if centred:
        _check_shift(features)
    if features.quadratic and chunk is None and quadratic.fits(queries):
        jax.eval_shape(features.apply, queries, keys)  # raises what it refuses
        scores = quadratic.quadratic_scores(queries, keys, normalised, centred)
        return scores if normalised else scores / _size(scores, features)
    log_u = log_w = None
    if centred:
        queries, keys, log_u, log_w = centre(queries, keys)
    if normalised:
        log_u = None  # a row's own factor cancels
    if chunk is not None:
        check_rowwise(features, "chunk")
    else:
        chunk = _cached(features, queries)
    if chunk is not None:
        tokens = (queries, log_u), (keys, log_w)
        return _chunked_scores(*tokens, features, normalised, chunk)
    query, key = features(queries, keys)
    q, k = stabilise(_times(query, log_u), _times(key, log_w), normalised)
    if normalised:  # here too
        total = jnp.sum(k.matrix, axis=0) if k.factor is None else k.factor @ k.matrix
        weight = inverse(q.matrix @ total, features)
    else:
        # Ones, not a sum: XLA fuses a sum that alone reads the features into the
        # product that makes them, which on a CPU doubles the time of relu features.
        weight = jnp.ones_like(queries[:, 0]) if q.factor is None else q.factor
    scores = k.matrix @ (weight @ q.matrix)
    if k.factor is not None:
        scores = scores * k.factor
    return scores if normalised else scores / _size(scores, features)


def _cached(features: FeatureMap, tokens: jax.Array) -> int | None:
    """Rows whose features a CPU's cache holds, in blocks of one size; None for all.

    A device that wants much work at once is given all.

    2 MB of features and more leave the cache, and memory that is new in every call has
    to be mapped: blocks of 256 KB took a half to a third of the time. Up to there they
    gain nothing, and backwards lose by making features twice.
    """
    if not features.rowwise or jax.default_backend() != "cpu":
        return None
    token = jax.ShapeDtypeStruct((1, tokens.shape[1]), tokens.dtype)
    key = jax.eval_shape(features.apply, token, token)[1]
    count = len(tokens) * max(key.value.shape[1], key.exponent.shape[1])
    if count <= WHOLE:
        return None
    return math.ceil(len(tokens) / math.ceil(count / BLOCK))


def _times(features: Features, log: jax.Array | None) -> Features:
    """Features times exp(log), f32[L, 1], or as they are."""
    if log is None:
        return features
    return features._replace(exponent=features.exponent + log)


def inverse(rows: jax.Array, features: FeatureMap) -> jax.Array:
    """One over the row sums; 0 where an estimate leaves one without meaning."""
    if features.positive:
        return 1 / rows
    kept = rows > 0
    return jnp.where(kept, 1 / jnp.where(kept, rows, 1), 0)


def _size(scores: jax.Array, features: FeatureMap) -> jax.Array:
    return jnp.mean(scores if features.positive else jnp.abs(scores))


Rows: TypeAlias = tuple[jax.Array, jax.Array | None]
"""Queries or keys, f32[L, d], and the log of what multiplies their features, f32[L, 1].
"""


def _chunked_scores(
    queries: Rows, keys: Rows, features: FeatureMap, normalised: bool, chunk: int
) -> jax.Array:
    """`linear_scores` by loops over blocks of rows, each of which makes its features.

    What `stabilise` subtracts has no gradient. The keys' part of it is found while they
    are summed, and what was summed before is scaled to it, as an online softmax does:
    of each block a backward pass keeps these two, M numbers each.
    """

    def query_features(rows):
        z, log = rows
        return _times(features(z, z)[0], log)

    def key_features(rows):
        z, log = rows
        return _times(features(z, z)[1], log)

    def query_matrix(rows):
        value, exponent = query_features(rows)
        exponent = exponent + shift
        own = jnp.max(exponent, axis=1, keepdims=True) if normalised else top
        return value * jnp.exp(exponent - lax.stop_gradient(own))

    def key_matrix(rows):
        value, exponent = key_features(rows)
        return value * jnp.exp(exponent - shift)

    def weighted(rows):
        matrix = query_matrix(rows)
        if not normalised:
            return jnp.sum(matrix, axis=0)
        return inverse(matrix @ total, features) @ matrix

    def key_sum(sofar, rows):
        shift, total = sofar
        value, exponent = key_features(rows)
        largest = jnp.max(exponent, axis=0, keepdims=True)
        new = jnp.maximum(shift, lax.stop_gradient(largest))
        own = jnp.sum(value * jnp.exp(exponent - new), axis=0)
        return (new, total * jnp.exp(shift - new)[0] + own), None

    if normalised:
        value, exponent = jax.eval_shape(key_features, _first(keys))
        none = jnp.zeros(max(value.shape[1], exponent.shape[1]))
        # Not -inf: where the first exponents are, -inf - -inf would be no number.
        lowest = jnp.finfo(jnp.float32).min
        start = jnp.full((1, exponent.shape[1]), lowest), none
        step = jax.checkpoint(key_sum, prevent_cse=False)
        shift, total = scan_chunks(step, start, keys, chunk)[0]
    else:
        shift = _largest_exponent(key_features, keys, chunk)
        top = jnp.max(_largest_exponent(query_features, queries, chunk) + shift)
    weight = _row_sum(weighted, queries, chunk)
    score = jax.checkpoint(lambda _, k: ((), key_matrix(k) @ weight), prevent_cse=False)
    _, scores = scan_chunks(score, (), keys, chunk)
    return scores if normalised else scores / _size(scores, features)


def _largest_exponent(
    make: Callable[[Rows], Features], rows: Rows, chunk: int
) -> jax.Array:
    """Over all rows, of each feature, f32[1, M], or of all, f32[1, 1]; no gradient."""

    def block(top, x):
        new = jnp.max(make(x).exponent, axis=0, keepdims=True)
        return jnp.maximum(top, lax.stop_gradient(new)), None

    shape = jax.eval_shape(make, _first(rows)).exponent.shape
    return scan_chunks(block, jnp.full(shape, -jnp.inf), rows, chunk)[0]


def _row_sum(make: Callable[[Rows], jax.Array], rows: Rows, chunk: int) -> jax.Array:
    """Sum of make(block) over all blocks of rows, made again in the backward pass."""

    def block(total, x):
        return total + make(x), None

    start = jnp.zeros(jax.eval_shape(make, _first(rows)).shape)
    block = jax.checkpoint(block, prevent_cse=False)
    return scan_chunks(block, start, rows, chunk)[0]


def _first(rows: Rows) -> Rows:
    return jax.tree.map(lambda x: x[:1], rows)


def linear_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    features: FeatureMap,
    *,
    centred: bool = False,
) -> jax.Array:
    """Every token's average of all values, (Q' (K'^T V)) / (Q' (K'^T 1)).

    Source: bidirectional attention of arXiv 2009.14794, equation 4.

    Args:
      queries: f32[L, d], scaled.
      keys: f32[L, d], scaled.
      values: f32[L, n].
      features: the feature map of queries and keys. Where its estimates can be
        negative, a token whose row sum is estimated as 0 or less gets zeros.
      centred: estimate exp(q . k) around the means of queries and keys, as in
        `linear_scores`.

    Returns:
      f32[L, n].

    Raises:
      ValueError: where the tokens do not fit each other, or centring is asked of a
        feature map that does not estimate exp(q . k).
    """
    queries, keys, values = as_tokens(queries, keys, values)
    log_w = None
    if centred:
        _check_shift(features)
        queries, keys, _, log_w = centre(queries, keys)  # rows cancel their log u
    query, key = features(queries, keys)
    q, k = stabilise(query, _times(key, log_w), normalised=True)
    values = jnp.concatenate([values, jnp.ones_like(values[:, :1])], axis=1)
    if k.factor is not None:
        values = values * k.factor[:, None]
    read = q.matrix @ (k.matrix.T @ values)
    return read[:, :-1] * inverse(read[:, -1:], features)


def shifted(
    features: FeatureMap,
    a: np.ndarray | jax.Array,
    b: np.ndarray | jax.Array,
) -> FeatureMap:
    """Estimate exp(q . k) around fixed vectors: centring where means are unknown.

    phi'(q) = exp(q . b) phi(q - a) and psi'(k) = exp(a . (k - b)) psi(k - b) have the
    same product in expectation as phi and psi. Causal attention needs this form: means
    over a sequence would tell its past of its future.

    Args:
      features: a feature map that estimates exp(q . k).
      a: f32[d], about the mean of queries.
      b: f32[d], about the mean of keys.

    Raises:
      ValueError: where the feature map does not estimate exp(q . k); from the map,
        where queries are longer or shorter than the shifts.
    """
    _check_shift(features)

    def apply(x, y):
        if not a.shape == b.shape == x.shape[1:]:
            raise ValueError(
                f"shifts have shapes {a.shape} and {b.shape}; queries {x.shape} need "
                f"{x.shape[1:]}."
            )
        y = y - b[None, :]
        query, key = features(x - a[None, :], y)
        return (
            query._replace(exponent=query.exponent + x @ b[:, None]),
            key._replace(exponent=key.exponent + y @ a[:, None]),
        )

    return features._replace(apply=apply, quadratic=False)


def check_rowwise(features: FeatureMap, what: str) -> None:
    """Refuse a feature map that has to see all tokens at once.

    Raises:
      ValueError: where it measures its constants on the queries and keys of a call.
    """
    if not features.rowwise:
        raise ValueError(
            f"{what} does not go with a feature map that measures constants on all "
            "queries and keys of a call; fix them for the run, as spread (and balance) "
            "of kernel=oprf and saderf."
        )


def _check_shift(features: FeatureMap) -> None:
    if not features.exponential:
        raise ValueError(
            "centring (centred=True, or shifts) does not go with features that do not "
            "estimate exp(q . k), as those of kernel=relu and elu do not: shifting "
            "queries and keys changes their attention; choose centred=False, or an "
            "estimator of exp such as kernel=taylor."
        )


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
    rest = both[:, d:]
    return both[:, :d], rest, queries @ b.T, rest @ a.T


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
