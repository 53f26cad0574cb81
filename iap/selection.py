"""Scores -> the k best patches."""

import enum

import jax
import jax.numpy as jnp
from jax import lax


class Order(enum.Enum):
    """The order in which chosen patches are handed on.

    Position order was learned from about twice as fast by evolution: ranks flicker
    from frame to frame, sorted positions read as an outline.
    """

    rank = "rank"
    position = "position"


def select(scores: jax.Array, k: int, order: Order = Order.position) -> jax.Array:
    """Indices of the k largest scores; of equal scores the lowest index wins.

    Args:
      scores: f32[L].
      k: how many, between 1 and L.
      order: by falling score, or by rising index.

    Returns:
      i32[k].

    Raises:
      ValueError: where k is not between 1 and L, or scores are not of one image.
    """
    check_count(scores, k)
    _, index = lax.top_k(lax.stop_gradient(scores), k)
    return jnp.sort(index) if order is Order.position else index


def mask(tokens: jax.Array, scores: jax.Array, k: int) -> jax.Array:
    """Zeros for every token outside the k best: exactly k survive, in their places.

    Args:
      tokens: f32[L, d].
      scores: f32[L]; of equal scores the lowest index wins, as in `select`.
      k: how many, between 1 and L.

    Returns:
      f32[L, d]. The survivors carry a gradient, the scores none.

    Raises:
      ValueError: where k is not between 1 and L, or there is not a score per token.
    """
    if tokens.shape[:1] != scores.shape:
        raise ValueError(
            f"tokens {tokens.shape} and scores {scores.shape} differ in length; "
            "expected [L, d] and [L]."
        )
    index = select(scores, k, Order.rank)
    kept = jnp.zeros(scores.shape, bool).at[index].set(True)
    return jnp.where(kept[:, None], tokens, 0)


def check_count(scores: jax.Array, k: int) -> None:
    """Refuse a number of patches that L scores, or logits, do not hold.

    Raises:
      ValueError: where k is not between 1 and L, or scores are not of one image.
    """
    if scores.ndim != 1:
        raise ValueError(
            f"scores have shape {scores.shape}; expected [L], of one image (map a "
            "batch with jax.vmap)."
        )
    if not 1 <= k <= len(scores):
        raise ValueError(
            f"top_k={k} must be between 1 and the number of patches, {len(scores)}."
        )
