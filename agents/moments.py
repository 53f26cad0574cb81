"""Mean and standard deviation of a stream whose scale is not known beforehand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

DECAY = 0.99  # of what was seen one batch earlier
LEAST = 1e-2  # smaller standard deviations are taken for this one


class Moments(NamedTuple):
    """Exponentially weighted moments, before they are divided by their weight.

    Attributes:
      mean: f32[].
      square: f32[].
      weight: f32[], 0 before anything was seen, 1 in the end.
    """

    mean: jax.Array
    square: jax.Array
    weight: jax.Array


def start() -> Moments:
    """Nothing seen: numbers are taken as they are."""
    return Moments(jnp.float32(0), jnp.float32(0), jnp.float32(0))


def seen(moments: Moments, batch: jax.Array) -> Moments:
    """The moments after one more batch, an f32 array of any shape.

    A batch that holds a number that is not finite leaves them as they were.
    """
    late = Moments(jnp.mean(batch), jnp.mean(jnp.square(batch)), jnp.float32(1))
    usable = jnp.isfinite(late.mean) & jnp.isfinite(late.square)
    return jax.tree.map(
        lambda old, new: jnp.where(usable, DECAY * old + (1 - DECAY) * new, old),
        moments,
        late,
    )


def normalise(moments: Moments, x: jax.Array) -> jax.Array:
    """(x - mean) / standard deviation, elementwise."""
    mean, deviation = _scale(moments)
    return (x - mean) / deviation


def restore(moments: Moments, x: jax.Array) -> jax.Array:
    """The inverse of `normalise`."""
    mean, deviation = _scale(moments)
    return x * deviation + mean


def _scale(moments: Moments) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation, 0 and 1 before anything was seen."""
    fresh = moments.weight == 0
    weight = jnp.where(fresh, 1.0, moments.weight)
    mean = moments.mean / weight
    variance = moments.square / weight - jnp.square(mean)
    deviation = jnp.sqrt(jnp.maximum(variance, LEAST**2))
    return mean, jnp.where(fresh, 1.0, deviation)
