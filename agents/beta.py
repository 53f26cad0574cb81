"""The Beta function's logarithm and the digamma function, of arguments from 1 on.

Those of `jax.scipy.special` are not used. Where a gradient meets both, jaxlib 0.10.2
compiles them for a CPU to a loop with wrong results: a quarter of the elements of an
entropy's gradient are wrong by more than its size. These are plain arithmetic: upward
recurrence by SHIFT, then Stirling's series (Abramowitz and Stegun 6.1.40 and 6.3.18),
cut where float32 ends.
"""

import math

import jax
import jax.numpy as jnp

SHIFT = 6


def log_beta(a: jax.Array, b: jax.Array) -> jax.Array:
    """Log B(a, b), elementwise; f32 of the shape of a and b, which are at least 1."""
    total = a + b
    x, y, z = a + SHIFT, b + SHIFT, total + SHIFT
    # log Gamma(x) + log Gamma(y) - log Gamma(z), without their large parts.
    shifted = x * _log_share(x, b) + y * _log_share(y, a) + SHIFT * (jnp.log(z) - 1)
    shifted += 0.5 * (math.log(2 * math.pi) - jnp.log(x) - jnp.log(y) + jnp.log(z))
    shifted += _rest(x) + _rest(y) - _rest(z)
    return shifted + _log_rising(total) - _log_rising(a) - _log_rising(b)


def digamma(x: jax.Array) -> jax.Array:
    """The derivative of log Gamma(x), elementwise; f32, x at least 1."""
    inverse = 1 / (x + SHIFT)
    square = inverse * inverse
    shifted = -jnp.log(inverse) - inverse / 2 - square / 12 + square * square / 120
    return shifted - sum(1 / (x + i) for i in range(SHIFT))


def _log_share(part: jax.Array, other: jax.Array) -> jax.Array:
    """Log of part / (part + other), as exact where that is close to 1."""
    whole = part + other
    near = jnp.minimum(other / whole, 0.5)
    return jnp.where(other < part, jnp.log1p(-near), jnp.log(part / whole))


def _rest(x: jax.Array) -> jax.Array:
    """What Stirling's series adds to (x - 1/2) log x - x + log(2 pi) / 2."""
    inverse = 1 / x
    return inverse / 12 - inverse * inverse * inverse / 360


def _log_rising(x: jax.Array) -> jax.Array:
    """Log of x (x + 1) ... (x + SHIFT - 1)."""
    return sum((jnp.log(x + i) for i in range(SHIFT)), jnp.zeros_like(x))
