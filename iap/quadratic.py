"""Scores of Taylor's order 2 without features: its sums need second moments alone.

1 + t + t^2/2 = ((1 + t)^2 + 1)/2, and with Q = (1, q) and K = (1, k) the sum over keys
of (Q . K)^2 is the quadratic form of Q with sum_j K_j K_j^T, d + 1 by d + 1 numbers.
"""

import jax
import jax.numpy as jnp
from jax import lax

PRODUCTS = 2**14
"""Up to so many products of a sum of moments, XLA's CPU backend reads tokens as they
lie. Beyond, it packs them first, which takes longer than features do. Other backends
were not measured."""


def fits(queries: jax.Array) -> bool:
    """Whether scores of tokens f32[L, d] are to be made by moments."""
    L, d = queries.shape
    return (d + 1) ** 2 * L <= PRODUCTS


def quadratic_scores(
    queries: jax.Array, keys: jax.Array, normalised: bool, centred: bool
) -> jax.Array:
    """Column sums of the matrix of 1 + t + t^2/2, t = q_i . k_j, up to one factor.

    Many images with their gradient take less time than by features, a few images
    forwards alone take more (docs/attention.md).

    Args:
      queries: f32[L, d], scaled.
      keys: f32[L, d], scaled.
      normalised: divide every row of the matrix by its own sum.
      centred: estimate exp(q . k) around the means, as `attention.centre`.

    Returns:
      f32[L]; without normalisation, times a positive constant.
    """
    # f32[d, L]: rows are long, so that vectors fill.
    q, k = queries.T, keys.T
    u = w = jnp.ones_like(q[:1])
    if centred:  # as `attention.centre`, of tokens that are transposed already
        a, b = (jnp.mean(z, axis=1, keepdims=True) for z in (q, k))
        k = k - b
        u, w = _relative(q, b), _relative(k, a)
        q = q - a
    q, k = (jnp.concatenate([jnp.ones_like(z[:1]), z]) for z in (q, k))
    if normalised:
        # Rows are at least what the keys weigh, and the heaviest key weighs 1.
        u = 1 / _form((k * w) @ k.T, q, w)
    return (w * _form((q * u) @ q.T, k, u))[0]


def _relative(z: jax.Array, shift: jax.Array) -> jax.Array:
    """exp(z . shift) over the largest of them, f32[1, L]."""
    log = jnp.sum(z * shift, axis=0, keepdims=True)
    return jnp.exp(log - lax.stop_gradient(jnp.max(log)))


def _form(moments: jax.Array, z: jax.Array, weights: jax.Array) -> jax.Array:
    """Every token's quadratic form plus the sum of the weights, f32[1, L]."""
    return jnp.sum(z * (moments @ z), axis=0, keepdims=True) + jnp.sum(weights)
