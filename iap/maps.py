"""Kernel feature maps: K(x, y) is approximated by phi(x) . psi(y).

A map takes queries and keys together, because some estimators fit themselves to both,
and returns `Features`, whose logarithmic part stays apart so that `attention` can
stabilise it exactly.

Most estimate SM(x, y) = exp(x . y) without bias, over the draw of the directions omega;
`theory` holds their errors in closed form.
"""

import itertools
import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Features(NamedTuple):
    """Features value * exp(exponent), the two broadcast against each other.

    Attributes:
      value: f32[L, M], or f32[1, 1] where all is in the exponent.
      exponent: f32[L, M], or f32[L, 1] or f32[1, 1] where a row shares its factor.
    """

    value: jax.Array
    exponent: jax.Array


Directions: TypeAlias = np.ndarray | jax.Array
"""f32[m, d], each row distributed as N(0, I)."""


def relu(
    x: jax.Array, y: jax.Array, omega: Directions | None
) -> tuple[Features, Features]:
    """Performer-ReLU: rectified projections over sqrt(m), plus 1e-3; estimates no exp.

    The constant keeps every row sum positive. Source: generalised attention of arXiv
    2009.14794, with the constant that google-deepmind/iris uses.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      omega: f32[m, d], or None to rectify the vectors themselves.
    """

    def phi(z):
        if omega is not None:
            z = z @ (omega.T * np.float32(1 / math.sqrt(len(omega))))
        return Features(jax.nn.relu(z) + 1e-3, jnp.zeros((1, 1), z.dtype))

    return phi(x), phi(y)


def elu(x: jax.Array, y: jax.Array) -> tuple[Features, Features]:
    """One plus the elu of every entry: exp(z) below 0, 1 + z above; estimates no exp.

    Source: arXiv 2006.16236.

    Args:
      x: f32[L, d].
      y: f32[L, d].
    """

    def phi(z):
        return Features(1 + jnp.maximum(z, 0), jnp.minimum(z, 0))

    return phi(x), phi(y)


def positive(
    x: jax.Array, y: jax.Array, omega: Directions
) -> tuple[Features, Features]:
    """FAVOR+, phi(x) = exp(omega . x - |x|^2 / 2) / sqrt(m), unbiased for exp(x . y).

    Source: arXiv 2009.14794, lemma 1.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      omega: f32[m, d], rows distributed as N(0, I).
    """

    def phi(z):
        exponent = _less(z, omega, _half_norm(z) + 0.5 * math.log(len(omega)))
        return Features(jnp.ones((1, 1), z.dtype), exponent)

    return phi(x), phi(y)


def hyperbolic(
    x: jax.Array, y: jax.Array, omega: Directions
) -> tuple[Features, Features]:
    """Positive features of omega and of -omega, 2 m of them, unbiased for exp(x . y).

    phi(x) = exp(-|x|^2 / 2) [exp(omega . x), exp(-omega . x)] / sqrt(2 m). Source:
    arXiv 2009.14794, lemma 1.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      omega: f32[m, d], rows distributed as N(0, I).
    """
    return positive(x, y, _both_ways(omega))


def trig(x: jax.Array, y: jax.Array, omega: Directions) -> tuple[Features, Features]:
    """Random Fourier features of exp(x . y), 2 m of them, unbiased, of either sign.

    phi(x) = exp(|x|^2 / 2) [sin(omega . x), cos(omega . x)] / sqrt(m): the product is
    exp((|x|^2 + |y|^2) / 2) times a mean of cos(omega . (x - y)). Exact where x = y,
    least reliable where exp(x . y) is small. Source: arXiv 2009.14794.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      omega: f32[m, d], rows distributed as N(0, I).
    """

    def phi(z):
        angles = z @ omega.T
        value = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
        return Features(value, _half_norm(z) - 0.5 * math.log(len(omega)))

    return phi(x), phi(y)


def oprf(
    x: jax.Array, y: jax.Array, omega: Directions, spread: float = 0.0
) -> tuple[Features, Features]:
    """FAVOR++, positive features bounded in omega, unbiased for exp(x . y).

    With B = sqrt(1 - 4 A), phi(x) = B^(d/2) exp(A |omega|^2 + B omega . x - |x|^2 / 2)
    / sqrt(m), unbiased for every A < 1/8; A = 0 is `positive`, the A of `tilt` has the
    least variance where |x + y|^2 is `spread`. It carries no gradient: its own could
    only add noise, since the estimate's mean does not depend on it. Source: arXiv
    2205.15317.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      omega: f32[m, d], rows distributed as N(0, I).
      spread: mean |x + y|^2, at least 0; 0 measures it on these x and y.
    """
    d = x.shape[1]
    a = tilt(spread or lax.stop_gradient(measure_spread(x, y)), d)
    scale = jnp.sqrt(1 - 4 * a)
    # One constant per direction, d / 4 log(1 - 4 A) of it for all.
    constant = a * jnp.sum(omega * omega, axis=1)[None, :] + (d / 2) * jnp.log(scale)

    def phi(z):
        shift = _half_norm(z) + 0.5 * math.log(len(omega))
        exponent = _less(scale * z, omega, shift) + constant
        return Features(jnp.ones((1, 1), z.dtype), exponent)

    return phi(x), phi(y)


def saderf(
    x: jax.Array,
    y: jax.Array,
    omega: Directions,
    spread: float = 0.0,
    balance: tuple[float, ...] = (),
) -> tuple[Features, Features]:
    """FAVOR#, `oprf` of Psi x and y / Psi with a diagonal Psi, unbiased for exp(x . y).

    Psi makes both equally large in every coordinate, where |Psi x + y / Psi|^2 is least
    in the mean. Like A, it carries no gradient. Source: arXiv 2302.00787.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      omega: f32[m, d], rows distributed as N(0, I).
      spread: mean |Psi x + y / Psi|^2, at least 0; 0 measures it on these x and y.
      balance: Psi, d positive numbers; none measures it on these x and y.
    """
    if balance:
        psi = jnp.array(balance, x.dtype)
    else:
        psi = lax.stop_gradient(measure_balance(x, y))
    return oprf(x * psi[None, :], y / psi[None, :], omega, spread)


def tilt(spread: jax.Array | float, depth: int) -> jax.Array:
    """The A of `oprf` that has the least variance where |x + y|^2 is `spread`.

    A = (1 - 1 / rho) / 8 with rho the positive root of 2 s rho^2 + (2 s + d) rho = d,
    written so that it is exact at s = 0, where A = 0. Source: arXiv 2205.15317.

    Args:
      spread: s, f32[], at least 0.
      depth: d.

    Returns:
      f32[], not above 0.
    """
    centre = 2 * spread + depth
    inverse = (jnp.sqrt(centre * centre + 8 * depth * spread) + centre) / (2 * depth)
    return (1 - inverse) / 8


def measure_spread(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean |x_i + y_j|^2 over all pairs, in O(L d): f32[]."""
    squares = jnp.mean(x * x, axis=0) + jnp.mean(y * y, axis=0)
    return jnp.sum(squares + 2 * jnp.mean(x, axis=0) * jnp.mean(y, axis=0))


def measure_balance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Psi of `saderf`: (mean y_l^2 / mean x_l^2)^(1/4) of coordinate l, f32[d]."""
    tiny = jnp.finfo(x.dtype).tiny  # a coordinate that is 0 throughout needs no balance
    return ((jnp.mean(y * y, axis=0) + tiny) / (jnp.mean(x * x, axis=0) + tiny)) ** 0.25


def angular(
    x: jax.Array, y: jax.Array, omega: Directions, tau: Directions
) -> tuple[Features, Features]:
    """Experimental: hyperbolic features where x and y are opposed, trig where aligned.

    The estimate is lam H + (1 - lam) T with lam the share of tau's rows on which x and
    y fall on different sides, their angle over pi in the mean; tau is independent of
    omega, so the estimate is unbiased for exp(x . y), as is its gradient, although lam
    has none. It is exact at the angles 0 and pi for equal norms, and it can be
    negative. There are 4 m (n + 1) features: with s = sign(tau . x) / sqrt(n), those of
    H times [1, s] and [1, -s], those of T times [1, s] and [1, s], all over sqrt(2).
    Source: arXiv 2110.04367.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      omega: f32[m, d], rows distributed as N(0, I).
      tau: f32[n, d], rows distributed as N(0, I).
    """
    opposed, aligned = hyperbolic(x, y, omega), trig(x, y, omega)

    def phi(z, opposed, aligned, sign):
        side = jnp.where(z @ tau.T >= 0, 1, -1).astype(z.dtype) / math.sqrt(len(tau))
        one = jnp.ones_like(side[:, :1])
        parts = [
            _outer(jnp.concatenate([one, sign * side], axis=1), opposed),
            _outer(jnp.concatenate([one, side], axis=1), aligned),
        ]
        value, exponent = (
            jnp.concatenate(pair, axis=1) for pair in zip(*parts, strict=True)
        )
        return Features(value, exponent - 0.5 * math.log(2))

    return (
        phi(x, opposed[0], aligned[0], 1),
        phi(y, opposed[1], aligned[1], -1),
    )


def taylor(x: jax.Array, y: jax.Array, order: int) -> tuple[Features, Features]:
    """The series of exp(x . y) cut at an even order: no randomness, positive for all t.

    The features are the monomials x^alpha / sqrt(alpha!) of degree |alpha| <= order,
    C(d + order, order) of them.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      order: N, even.
    """
    d = x.shape[1]
    weights = 1 / np.sqrt(_factorials(d, order), dtype=np.float32)

    def phi(z):
        # Factors run over (1, z_1 .. z_d), so that degree N means degree <= N. Feature
        # rows are long, a patch's few monomials short: built transposed, vectors fill.
        z = jnp.concatenate([jnp.ones_like(z[:, :1]), z], axis=1).T
        value = z
        for degree in range(1, order):
            rest = [
                value[len(value) - math.comb(d - i + degree, degree) :]
                for i in range(d + 1)
            ]
            value = jnp.concatenate([z[i : i + 1] * rest[i] for i in range(d + 1)])
        return Features((value * weights[:, None]).T, jnp.zeros((1, 1), z.dtype))

    return phi(x), phi(y)


def _factorials(d: int, order: int) -> np.ndarray:
    """The alpha! of each monomial, in the order in which `taylor` builds them."""
    factors = itertools.combinations_with_replacement(range(d + 1), order)
    counts = (np.bincount(row, minlength=d + 1)[1:] for row in factors)
    return np.array([math.prod(map(math.factorial, count)) for count in counts])


def _half_norm(z: jax.Array) -> jax.Array:
    return 0.5 * jnp.sum(z * z, axis=1, keepdims=True)


def _less(z: jax.Array, omega: Directions, shift: jax.Array) -> jax.Array:
    """Products z omega^T less a shift f32[L, 1]: f32[L, m].

    As one product: the shift is one more coordinate. Subtracted afterwards, XLA's CPU
    backend would make what leads to it anew for every direction.
    """
    join = np.concatenate if isinstance(omega, np.ndarray) else jnp.concatenate
    minus = np.full((1, len(omega)), -1, omega.dtype)
    return jnp.concatenate([z, shift], axis=1) @ join([omega.T, minus])


def _both_ways(omega: Directions) -> Directions:
    join = np.concatenate if isinstance(omega, np.ndarray) else jnp.concatenate
    return join([omega, -omega])


def _outer(left: jax.Array, features: Features) -> Features:
    """Every entry of left f32[L, N] times every feature f32[L, M]: f32[L, N M] each."""
    value, exponent = jnp.broadcast_arrays(*features)
    value = left[:, :, None] * value[:, None, :]
    return Features(
        value.reshape(len(left), -1), jnp.tile(exponent, (1, left.shape[1]))
    )
