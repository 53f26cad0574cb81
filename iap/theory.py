"""Closed forms of the errors that random features make in estimating exp(x . y).

All are exact for a finite number m of directions. Notation: SM = exp(x . y),
s = |x + y|^2, t = |x - y|^2. An estimate is a mean of m products, one for each
direction, so its mean squared error is

    MSE = single / m + pairs / m^2 * covariance,

with the variance of one product, the number of ordered pairs of directions that are
coupled and the covariance of the products of such a pair. Sources: arXiv 2009.14794,
lemma 2, for independent directions; 2205.15317 for oprf's second moment; the
covariances, and the error of angular, are derived here.

Everything is float64 numpy; x and y broadcast against each other.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iap.directions import Projection

Array = NDArray[np.float64]


def mse_positive(
    x: ArrayLike, y: ArrayLike, m: int, projection: Projection = Projection.iid
) -> Array:
    """Positive features: single = SM^2 e^s (1 - e^-s).

    Args:
      x: f64[..., d].
      y: f64[..., d].
      m: directions.
      projection: their coupling.

    Returns:
      f64[...].
    """
    return mse_oprf(x, y, m, 0.0, projection)


def mse_oprf(
    x: ArrayLike,
    y: ArrayLike,
    m: int,
    a: ArrayLike,
    projection: Projection = Projection.iid,
) -> Array:
    """Optimal positive features at the constant A.

    With rho = 1 / (1 - 8 A), the second moment of one product is ((1 + rho)^2 /
    (4 rho))^(d/2) exp((1 + rho) s - |x|^2 - |y|^2). The covariance of two products does
    not depend on A: tilting the directions' norms cancels the factor B = sqrt(1 - 4 A).

    Args:
      x: f64[..., d].
      y: f64[..., d].
      m: directions.
      a: A, below 1/8; `iap.maps.tilt` gives the best. saderf is oprf of Psi x, y / Psi.
      projection: the directions' coupling.

    Returns:
      f64[...].
    """
    log_kernel, s, _, d = _terms(x, y)
    rho = 1 / (1 - 8 * np.asarray(a, np.float64))
    # As SM^2 (...): exponents minus s, because |x|^2 + |y|^2 = s - 2 x . y.
    moment = (d / 2) * np.log((1 + rho) ** 2 / (4 * rho)) + rho * s
    covariance = np.exp(-s) * _coupled(s, d, _cosine(projection, d)) - 1
    return _mean(
        np.exp(2 * log_kernel) * np.expm1(moment),
        *(np.exp(2 * log_kernel) * covariance, m, d, projection),
    )


def mse_hyperbolic(
    x: ArrayLike, y: ArrayLike, m: int, projection: Projection = Projection.iid
) -> Array:
    """Hyperbolic features: half of (1 - e^-s) times the error of positive ones.

    Args:
      x: f64[..., d].
      y: f64[..., d].
      m: directions; two features each.
      projection: their coupling.

    Returns:
      f64[...].
    """
    log_kernel, s, _, d = _terms(x, y)
    cosine = _cosine(projection, d)
    both = (_coupled(s, d, cosine) + _coupled(s, d, -cosine)) / 2
    square = np.exp(2 * log_kernel)
    return _mean(
        square * np.expm1(s) * -np.expm1(-s) / 2,
        *(square * (np.exp(-s) * both - 1), m, d, projection),
    )


def mse_trig(
    x: ArrayLike, y: ArrayLike, m: int, projection: Projection = Projection.iid
) -> Array:
    """Trigonometric features: single = 1/2 SM^-2 e^s (1 - e^-t)^2.

    Args:
      x: f64[..., d].
      y: f64[..., d].
      m: directions; two features each.
      projection: their coupling.

    Returns:
      f64[...].
    """
    log_kernel, s, t, d = _terms(x, y)
    cosine = _cosine(projection, d)
    both = (_coupled(-t, d, cosine) + _coupled(-t, d, -cosine)) / 2
    factor = np.exp(s - 2 * log_kernel)  # exp(|x|^2 + |y|^2)
    return _mean(
        factor * np.expm1(-t) ** 2 / 2,
        *(factor * (both - np.exp(-t)), m, d, projection),
    )


def mse_angular(x: ArrayLike, y: ArrayLike, m: int, n: int) -> Array:
    """The angular hybrid lam H + (1 - lam) T, all directions independent.

    H and T are unbiased and lam is independent of them, so that the error is E[lam^2]
    MSE_H + E[(1 - lam)^2] MSE_T + 2 E[lam (1 - lam)] cov(H, T), where lam has the mean
    angle / pi and the variance of n tosses, and cov(H, T) = SM^2 (cos(|x|^2 - |y|^2)
    - 1) / m.

    Args:
      x: f64[..., d], not zero.
      y: f64[..., d], not zero.
      m: directions of H and T.
      n: directions that lam is counted on.

    Returns:
      f64[...].
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    squares = [np.sum(z * z, axis=-1) for z in (x, y)]
    dot = np.sum(x * y, axis=-1)
    mean = np.arccos(np.clip(dot / np.sqrt(squares[0] * squares[1]), -1, 1)) / np.pi
    variance = mean * (1 - mean) / n
    cross = np.exp(2 * dot) * (np.cos(squares[0] - squares[1]) - 1) / m
    return (
        (mean**2 + variance) * mse_hyperbolic(x, y, m)
        + ((1 - mean) ** 2 + variance) * mse_trig(x, y, m)
        + 2 * (mean * (1 - mean) - variance) * cross
    )


def utility(phi: ArrayLike, length: ArrayLike) -> Array:
    """How many times the error of positive features trigonometric ones make, r.

    For x and y of one length l at the angle phi, r = MSE_trig / MSE_pos = 1/2
    e^(-4 l^2 cos phi) (1 - e^(-2 l^2 (1 - cos phi)))^2 / (1 - e^(-2 l^2 (1 + cos
    phi))), even in both arguments and the same for every m and d.

    Args:
      phi: f64[...], in radians.
      length: f64[...], l.

    Returns:
      f64[...]; 0, its limit, where l = 0, else infinite where phi is pi.
    """
    square = 2 * np.asarray(length, np.float64) ** 2
    cos = np.cos(np.asarray(phi, np.float64))
    ahead, across = -np.expm1(-square * (1 + cos)), -np.expm1(-square * (1 - cos))
    above = np.exp(-2 * square * cos) * across**2 / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(square == 0, 0.0, above / ahead)


def _terms(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array, Array, int]:
    """Of x and y: log SM, s, t and d."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    plus, minus = x + y, x - y
    return (
        np.sum(x * y, axis=-1),
        np.sum(plus * plus, axis=-1),
        np.sum(minus * minus, axis=-1),
        plus.shape[-1],
    )


def _mean(
    single: Array, covariance: Array, m: int, d: int, projection: Projection
) -> Array:
    """The mean squared error of a mean over m directions in blocks of d."""
    blocks, rest = divmod(m, d)
    pairs = blocks * d * (d - 1) + rest * (rest - 1)
    if projection is Projection.iid:
        pairs = 0
    return single / m + pairs / m**2 * covariance


def _cosine(projection: Projection, d: int) -> float:
    """Of the angle between two directions of a block; any where there is no block."""
    return -1 / (d - 1) if projection is Projection.simplex else 0.0


def _coupled(t: Array, d: int, cosine: float) -> Array:
    """E exp((u + v) . z), u and v as N(0, I) each at a fixed angle to each other.

    Their norms are independent and chi; t = |z|^2, and -t gives E cos((u + v) . z). The
    sum has a uniform direction and the square R^2 g with R^2 = |u|^2 + |v|^2 of the
    chi-squared distribution with 2 d degrees and, independent of it, g = 1 + cosine
    sin(b), where b in (0, pi) has a density proportional to sin(b)^(d - 1). Over R the
    mean of 0F1(; d/2; R^2 g t / 4) is 1F1(d; d/2; g t / 2), over b there is quadrature.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    sine = np.sin(np.pi / 2 * (nodes + 1))
    weights = weights * sine ** (d - 1)
    argument = np.asarray(t)[..., None] / 2 * (1 + cosine * sine)
    return _kummer(d, argument) @ (weights / weights.sum())


def _kummer(d: int, argument: Array) -> Array:
    """The confluent hypergeometric function 1F1(d; d/2; argument), by its series.

    Below 0 by Kummer's transformation, e^z 1F1(-d/2; d/2; -z), where the terms of the
    series itself would cancel.
    """
    size = np.abs(argument)
    upper = np.where(argument < 0, -d / 2, float(d))
    term = np.ones_like(size)
    total = term.copy()
    order = 0
    while np.any(np.abs(term) > 1e-17 * np.abs(total)) and order < 1000:
        term = term * (upper + order) / (d / 2 + order) * size / (order + 1)
        total += term
        order += 1
    return total * np.exp(np.minimum(argument, 0))
