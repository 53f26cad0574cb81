"""Scores -> k patches drawn at random, with the exact probability of the draw.

Patches are drawn one after another without replacement, each with probability
proportional to exp(logit) among those that are left (Plackett-Luce). Unlike the best k
this has a gradient: that of its log-probability.
"""

import jax
import jax.numpy as jnp
from jax import lax

from iap.selection import check_count

LEAST = 1e-30  # of a score, above float32's smallest normal number


def logits(scores: jax.Array, temperature: float) -> jax.Array:
    """log(score) / temperature, f32[L]: at 1, scores are proportional to chances.

    Args:
      scores: f32[L], not negative.
      temperature: greater than 0; lower ones come nearer to the best k.
    """
    return jnp.log(jnp.maximum(scores, LEAST)) / temperature


def sample(logits: jax.Array, k: int, key: jax.Array) -> jax.Array:
    """Draws k patches: the k largest of logits plus Gumbel noise, arXiv 1903.06059.

    Args:
      logits: f32[L].
      k: how many, between 1 and L.
      key: of this draw.

    Returns:
      i32[k], in the order in which they were drawn.

    Raises:
      ValueError: where k is not between 1 and L.
    """
    check_count(logits, k)
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    return lax.top_k(lax.stop_gradient(logits) + noise, k)[1]


def log_prob(logits: jax.Array, index: jax.Array) -> jax.Array:
    """The log-probability of an ordered draw.

    sum_j [logit(i_j) - logsumexp(logits without i_1 .. i_(j-1))], each sum over what is
    left anew: taking exp(logit) off one total in float32 was 10 % off.

    Args:
      logits: f32[L].
      index: i32[k], different patches in the order in which they were drawn.

    Returns:
      f32[].
    """
    drawn = jax.nn.one_hot(index, logits.shape[0], dtype=logits.dtype)
    gone = jnp.cumsum(drawn, axis=0) - drawn  # by the draws before each
    left = jnp.where(gone > 0, -jnp.inf, logits[None, :])
    return jnp.sum(logits[index] - jax.nn.logsumexp(left, axis=1))
