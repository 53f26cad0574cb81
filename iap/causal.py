"""Causal linear attention: a token attends to itself and to what came before it.

Prefix sums of psi(k) v^T and psi(k) are all that it needs of the past, a state whose
size does not grow. `causal_step` carries it from token to token, `causal_attention`
computes a whole sequence.

What keeps float32 finite is the running maximum of the keys' exponents, per feature and
part of the state: when it rises, the sums are scaled down. A maximum over a sequence or
a block would let later keys round, or wipe out, what earlier tokens see. For the same
reason centring takes shifts fixed beforehand, `attention.shifted`.
"""

from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from iap.attention import check_rowwise, inverse
from iap.chunks import scan_chunks
from iap.features import FeatureMap
from iap.maps import Features
from iap.tokens import as_tokens


class CausalState(NamedTuple):
    """What causal attention keeps of the past.

    Attributes:
      top: f32[F, 1], largest exponent so far of each feature of the keys, or of all
        where they share one (F = 1); -inf before the first key.
      sums: f32[M, n + 1], sums of psi(k) exp(-top) times the value, then times 1.
    """

    top: jax.Array
    sums: jax.Array


def causal_start(features: FeatureMap, depth: int, width: int) -> CausalState:
    """The state before the first token.

    Args:
      features: the feature map of queries and keys.
      depth: d, length of queries and keys.
      width: n, length of values.
    """
    token = jax.ShapeDtypeStruct((1, depth), jnp.float32)
    _, key = jax.eval_shape(features.apply, token, token)
    return _empty(key, width + 1)


def causal_step(
    state: CausalState,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    features: FeatureMap,
) -> tuple[CausalState, jax.Array]:
    """One token of `causal_attention`, from the state that the earlier ones left.

    Args:
      state: `causal_start`, or what the previous step returned.
      query: f32[d], scaled.
      key: f32[d], scaled.
      value: f32[n].
      features: the feature map of queries and keys, each row by itself.

    Returns:
      The next state and f32[n].

    Raises:
      ValueError: where the token does not fit the state or the features.
    """
    check_rowwise(features, "causal attention")
    query, key, value = as_tokens(query[None], key[None], value[None])
    if value.shape[1] + 1 != state.sums.shape[1]:
        raise ValueError(
            f"value has shape {value.shape[1:]}, but the state is of values of shape "
            f"({state.sums.shape[1] - 1},); make the two equal."
        )
    phi, psi = features(query, key)
    top = lax.stop_gradient(jnp.maximum(state.top, psi.exponent.T))
    new = psi.value.T * jnp.exp(psi.exponent.T - top) * _with_one(value)
    sums = state.sums * jnp.exp(state.top - top) + new
    logits = phi.exponent + top.T
    weight = phi.value * jnp.exp(logits - lax.stop_gradient(jnp.max(logits)))
    read = (weight @ sums)[0]
    return CausalState(top, sums), read[:-1] * inverse(read[-1:], features)


def causal_attention(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    features: FeatureMap,
    *,
    chunk: int | None = None,
    state: CausalState | None = None,
    first: jax.Array | None = None,
) -> jax.Array:
    """(Q' S_t) / (Q' z_t), S_t = sum_{s <= t} psi(k_s) v_s^T, z_t = sum psi(k_s).

    Later tokens change nothing earlier, to the bit. With `chunk`, memory beyond a few
    arrays as long as inputs and outputs is O(chunk M n), forwards and backwards.

    The backward pass rebuilds the prefixes, block by block, as arXiv 2012.11346 (SLiM)
    does, but by adding them up again from the first, not by subtracting from the last:
    float32 has forgotten a prefix that a later key exceeds 2^24 times. It then adds up
    from the last what keys and values receive. Both take as many products as
    subtracting does.

    Args:
      queries: f32[T, d], scaled.
      keys: f32[T, d], scaled.
      values: f32[T, n].
      features: their feature map, each row by itself. What it was made from counts as
        constant: no gradient flows there.
      chunk: tokens that are held at once; None for all.
      state: what came before, of `causal_start` or `causal_step`, as a constant: no
        gradient flows there. None for nothing.
      first: bool[T], tokens before which all is forgotten, as where episodes begin;
        None for no such tokens.

    Returns:
      f32[T, n].

    Raises:
      ValueError: where chunk is below 1, or the tokens, the state or `first` do not fit
        each other.
    """
    queries, keys, values = as_tokens(queries, keys, values)
    check_rowwise(features, "causal attention")
    empty = _empty(_shapes(features, queries)[1], values.shape[1] + 1)
    state = empty if state is None else state
    for found, wanted in zip(state, empty, strict=True):
        if jnp.shape(found) != wanted.shape:
            raise ValueError(
                f"state holds an array of shape {jnp.shape(found)}, but these features "
                f"and values need {wanted.shape}; start from causal_start."
            )
    if first is not None and (first.shape != queries.shape[:1] or first.dtype != bool):
        raise ValueError(
            f"first has shape {first.shape} and dtype {first.dtype}; expected bool"
            f"[{len(queries)}], whether all is forgotten before each token."
        )
    chunk = len(queries) if chunk is None else chunk
    return _attend(features, chunk, queries, keys, values, state, first)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    features: FeatureMap,
    chunk: int,
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    state: CausalState,
    first: jax.Array | None,
) -> jax.Array:
    return _forward(features, chunk, queries, keys, values, state, first)[0]


def _forward(features, chunk, queries, keys, values, state, first):
    def block(state, tokens):
        q, k, v, first = tokens
        phi, psi = features(q, k)
        state, prefix = _accumulate(state, psi, _with_one(v), first)
        logits = phi.exponent + prefix.top[:, :, 0]
        peak = jnp.max(logits, axis=1, keepdims=True)
        weight = phi.value * jnp.exp(logits - peak)
        read = jnp.einsum("cm,cmn->cn", weight, prefix.sums)
        share = inverse(read[:, -1:], features)
        return state, (read[:, :-1] * share, peak, share)

    tokens = (queries, keys, values, first)
    _, (out, peak, share) = scan_chunks(block, state, tokens, chunk)
    return out, (*tokens, state, out, peak, share)


def _backward(features, chunk, residuals, gradient):
    queries, keys, values, first, state, out, peak, share = residuals
    # What a row's sums (Q' S, Q' z) receive through their division.
    inner = jnp.sum(gradient * out, axis=1, keepdims=True)
    given = jnp.concatenate([gradient, -inner], axis=1) * share
    # Where an episode ends, what comes after it is forgotten on the way back.
    last = None if first is None else jnp.append(first[1:], False)

    def query_block(state, tokens):
        q, k, v, peak, given, first, _ = tokens
        psi = features(q, k)[1]
        phi, pull = jax.vjp(lambda q: features(q, k)[0], q)
        state, prefix = _accumulate(state, psi, _with_one(v), first)
        scale = jnp.exp(phi.exponent + prefix.top[:, :, 0] - peak)
        read = scale * jnp.einsum("cn,cmn->cm", given, prefix.sums)
        return state, pull(_cotangent(phi, read))[0]

    def key_block(state, tokens):
        q, k, v, peak, given, _, last = tokens
        phi = features(q, k)[0]
        psi, pull = jax.vjp(lambda k: features(q, k)[1], k)
        weight = phi._replace(exponent=phi.exponent - peak)
        state, suffix = _accumulate(state, weight, given, last, reverse=True)
        # At most 1: a row's peak is no less than any of its products' exponents.
        scale = jnp.exp(psi.exponent + suffix.top[:, :, 0])
        read = scale * jnp.einsum("cn,cmn->cm", _with_one(v), suffix.sums)
        to_value = jnp.einsum("cm,cmn->cn", psi.value * scale, suffix.sums)
        return state, (pull(_cotangent(psi, read))[0], to_value[:, :-1])

    tokens = (queries, keys, values, peak, given, first, last)
    _, to_queries = scan_chunks(query_block, state, tokens, chunk)
    start = _empty(_shapes(features, queries)[0], given.shape[1])
    _, (to_keys, to_values) = scan_chunks(key_block, start, tokens, chunk, reverse=True)
    return to_queries, to_keys, to_values, None, None


_attend.defvjp(_forward, _backward)


def _accumulate(
    state: CausalState,
    features: Features,
    payload: jax.Array,
    fresh: jax.Array | None,
    reverse: bool = False,
) -> tuple[CausalState, CausalState]:
    """Sums of features times payload up to each row of a block: the last, and all.

    They begin anew with every row that is `fresh`, bool[rows].
    """
    rows = len(payload)
    exponent = features.exponent[:, :, None]
    sums = features.value[:, :, None] * payload[:, None, :]
    terms = CausalState(
        jnp.broadcast_to(exponent, (rows, *state.top.shape)),
        jnp.broadcast_to(sums, (rows, *state.sums.shape)),
    )
    first, last = (rows - 1, 0) if reverse else (0, rows - 1)
    begun = None if fresh is None else fresh[:, None, None]
    terms = (terms, begun)
    before = (state, None if begun is None else jnp.zeros_like(begun[0]))
    joined = _join(before, jax.tree.map(lambda x: x[first], terms))
    terms = jax.tree.map(lambda x, y: x.at[first].set(y), terms, joined)
    prefix, _ = lax.associative_scan(_join, terms, reverse=reverse)
    return jax.tree.map(lambda x: x[last], prefix), prefix


_Stretch: TypeAlias = tuple[CausalState, jax.Array | None]
"""Sums over neighbouring rows, and whether they begin anew among them."""


def _join(earlier: _Stretch, later: _Stretch) -> _Stretch:
    (a, in_a), (b, in_b) = earlier, later
    top = jnp.maximum(a.top, b.top)
    both = CausalState(
        top, a.sums * jnp.exp(a.top - top) + b.sums * jnp.exp(b.top - top)
    )
    if in_a is None or in_b is None:
        return both, None
    return jax.tree.map(lambda x, y: jnp.where(in_b, x, y), b, both), in_a | in_b


def _shapes(features: FeatureMap, tokens: jax.Array) -> tuple[Features, Features]:
    token = jax.ShapeDtypeStruct((1, tokens.shape[1]), tokens.dtype)
    return jax.eval_shape(features.apply, token, token)


def _empty(features: Features, width: int) -> CausalState:
    value, exponent = features
    count = max(value.shape[1], exponent.shape[1])
    top = jnp.full((exponent.shape[1], 1), -jnp.inf, exponent.dtype)
    return CausalState(top, jnp.zeros((count, width), value.dtype))


def _with_one(values: jax.Array) -> jax.Array:
    return jnp.concatenate([values, jnp.ones_like(values[:, :1])], axis=1)


def _cotangent(features: Features, read: jax.Array) -> Features:
    """What value and exponent receive, each summed to its own shape."""

    def summed(x, shape):
        axes = [i for i, (n, m) in enumerate(zip(x.shape, shape, strict=True)) if m < n]
        return jnp.sum(x, axis=tuple(axes), keepdims=True)

    value, exponent = features
    return Features(summed(read, value.shape), summed(value * read, exponent.shape))
