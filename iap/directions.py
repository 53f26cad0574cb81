"""Directions of random features: Gaussian rows, independent or coupled in blocks of d.

Every coupling leaves each direction distributed as N(0, I), so that what is unbiased
with independent directions is unbiased with all; it is the variance that they change.
"""

import enum
import math

import numpy as np


class Projection(enum.Enum):
    """How the directions of random features are drawn.

    orthogonal: at right angles within blocks of d; of vectors no longer than 1, never
    worse than iid. simplex: at the widest angle that d directions can all have to each
    other, better than orthogonal for positive and oprf, worse for trig and hyperbolic.
    iid: independent. none: no directions, vectors are compared as they are.
    """

    orthogonal = "orthogonal"
    simplex = "simplex"
    iid = "iid"
    none = "none"


class Norms(enum.Enum):
    """The lengths of directions: chi-distributed as a Gaussian's, or all sqrt(d)."""

    chi = "chi"
    sqrt_d = "sqrt_d"


def iid(rng: np.random.Generator, features: int, depth: int) -> np.ndarray:
    """Independent directions, every entry N(0, 1).

    Args:
      rng: source of the draw.
      features: m, how many.
      depth: d, their length.

    Returns:
      f32[m, d].
    """
    return rng.standard_normal((features, depth)).astype(np.float32)


def orthogonal(rng: np.random.Generator, features: int, depth: int) -> np.ndarray:
    """Directions orthogonal within blocks of d, each distributed as N(0, I).

    Norms are chi with d degrees of freedom, independent of the directions.

    Args:
      rng: source of the draw.
      features: m, how many.
      depth: d, their length.

    Returns:
      f32[m, d].
    """
    return _with_norms(rng, _rotations(rng, features, depth), features)


def simplex(rng: np.random.Generator, features: int, depth: int) -> np.ndarray:
    """Directions to the corners of randomly turned simplices, each N(0, I).

    Within a block of d, every two meet at the cosine -1 / (d - 1): orthogonal rows less
    their mean. Norms are as those of `orthogonal`. Source: arXiv 2301.13856.

    Args:
      rng: source of the draw.
      features: m, how many.
      depth: d, their length, at least 2.

    Returns:
      f32[m, d].

    Raises:
      ValueError: where d is below 2.
    """
    if depth < 2:
        raise ValueError(
            f"depth={depth} must be at least 2 for projection=simplex: a simplex needs "
            "two corners; choose projection=iid or orthogonal."
        )
    rows = _rotations(rng, features, depth)
    corners = rows - rows.mean(axis=1, keepdims=True)
    return _with_norms(rng, corners * math.sqrt(depth / (depth - 1)), features)


DRAWS = {
    Projection.orthogonal: orthogonal,
    Projection.simplex: simplex,
    Projection.iid: iid,
}
"""The couplings by name, all (rng, m, d) -> f32[m, d]."""


def draw(
    rng: np.random.Generator,
    features: int,
    depth: int,
    projection: Projection,
    norms: Norms = Norms.chi,
) -> np.ndarray:
    """Directions of one coupling.

    Args:
      rng: source of the draw.
      features: m, how many.
      depth: d, their length.
      projection: a key of `DRAWS`.
      norms: their lengths; sqrt_d biases every estimate of exp (`shrinkage`).

    Returns:
      f32[m, d].

    Raises:
      ValueError: where depth does not fit the coupling.
    """
    rows = DRAWS[projection](rng, features, depth)
    if norms is Norms.chi:
        return rows
    return rows * (math.sqrt(depth) / np.linalg.norm(rows, axis=1, keepdims=True))


def shrinkage(depth: int, squared: float) -> float:
    """Mean of exp(omega . z) over exp(|z|^2 / 2) where omega has the norm sqrt(d).

    This is what positive features estimate in place of 1 when norms=sqrt_d: the series
    0F1(; d/2; d |z|^2 / 4), the mean of exp over a sphere.

    Args:
      depth: d.
      squared: |z|^2, where z = x + y.
    """
    term = total = math.exp(-squared / 2)
    order = 0
    while term > 1e-12 * total:
        term *= depth * squared / 4 / ((order + 1) * (depth / 2 + order))
        total += term
        order += 1
    return total


def _rotations(rng: np.random.Generator, features: int, depth: int) -> np.ndarray:
    """Haar-distributed orthogonal matrices, as many as m rows need: f64[blocks, d, d].

    The Q of a Gaussian matrix's QR is not Haar distributed until its columns are
    multiplied by the signs of R's diagonal; without them positive features are biased.
    """
    blocks = rng.standard_normal((math.ceil(features / depth), depth, depth))
    q, r = np.linalg.qr(blocks)
    signs = np.sign(np.diagonal(r, axis1=1, axis2=2))
    return (q * signs[:, None, :]).swapaxes(1, 2)


def _with_norms(
    rng: np.random.Generator, blocks: np.ndarray, features: int
) -> np.ndarray:
    depth = blocks.shape[2]
    rows = blocks.reshape(-1, depth)[:features]
    norms = np.linalg.norm(rng.standard_normal((features, depth)), axis=1)
    return (rows * norms[:, None]).astype(np.float32)
