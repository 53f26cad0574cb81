"""From a controller's raw outputs to actions within a world's bounds."""

import math

import jax
import jax.numpy as jnp

from envs.core import Box, Discrete


def parameters(action: Box | Discrete) -> int:
    """How many raw outputs the mode of an action needs."""
    return action.n if isinstance(action, Discrete) else math.prod(action.shape)


def mode(action: Box | Discrete, raw: jax.Array) -> jax.Array:
    """The most likely action.

    Args:
      action: the world's action.
      raw: f32[parameters(action)], unbounded.

    Returns:
      For a `Box`, tanh scaled to its bounds (AttentionAgent, arXiv 2003.08165, 3.3);
      for a `Discrete`, the i32 index of the largest output.
    """
    if isinstance(action, Discrete):
        return jnp.argmax(raw).astype(jnp.int32)
    low = jnp.broadcast_to(jnp.asarray(action.low, jnp.float32), raw.shape)
    high = jnp.broadcast_to(jnp.asarray(action.high, jnp.float32), raw.shape)
    bounded = low + (high - low) * (jnp.tanh(raw) + 1) / 2
    return bounded.reshape(action.shape)
