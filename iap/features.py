"""Kernel feature maps: K(x, y) is approximated by phi(x) . psi(y).

A map takes queries and keys together, because some estimators fit themselves to both,
and returns `Features`, whose logarithmic part stays apart so that `attention` can
stabilise it exactly. Adding a kernel is one function and one line of `REGISTRY`.
"""

import enum
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np


class Kernel(enum.Enum):
    """What attention compares a query and a key by."""

    exact = "exact"
    relu = "relu"
    positive = "positive"
    taylor = "taylor"


class Projection(enum.Enum):
    """How the directions of random features are drawn."""

    orthogonal = "orthogonal"
    iid = "iid"
    none = "none"


class Features(NamedTuple):
    """Features value * exp(exponent), the two broadcast against each other.

    Attributes:
      value: f32[L, M], or f32[1, 1] where all is in the exponent.
      exponent: f32[L, M], or f32[L, 1] or f32[1, 1] where a row shares its factor.
    """

    value: jax.Array
    exponent: jax.Array


FeatureMap: TypeAlias = Callable[[jax.Array, jax.Array], tuple[Features, Features]]
"""(x f32[L, d], y f32[L, d]) -> phi(x), psi(y)."""


def relu(
    x: jax.Array, y: jax.Array, omega: np.ndarray | jax.Array | None
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


def positive(
    x: jax.Array, y: jax.Array, omega: np.ndarray | jax.Array
) -> tuple[Features, Features]:
    """FAVOR+, phi(x) = exp(omega . x - |x|^2 / 2) / sqrt(m), unbiased for exp(x . y).

    Source: arXiv 2009.14794, lemma 1.

    Args:
      x: f32[L, d].
      y: f32[L, d].
      omega: f32[m, d], rows distributed as N(0, I).
    """

    def phi(z):
        norm = 0.5 * jnp.sum(z * z, axis=1, keepdims=True)
        exponent = z @ omega.T - (norm + 0.5 * math.log(len(omega)))
        return Features(jnp.ones((1, 1), z.dtype), exponent)

    return phi(x), phi(y)


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

    A block is the Q of a Gaussian matrix's QR, its columns multiplied by the signs of
    R's diagonal: without them Q is not Haar distributed and positive features are
    biased. Norms are chi with d degrees of freedom, independent of the directions.

    Args:
      rng: source of the draw.
      features: m, how many.
      depth: d, their length.

    Returns:
      f32[m, d].
    """
    blocks = rng.standard_normal((math.ceil(features / depth), depth, depth))
    q, r = np.linalg.qr(blocks)
    signs = np.sign(np.diagonal(r, axis1=1, axis2=2))
    rows = (q * signs[:, None, :]).swapaxes(1, 2).reshape(-1, depth)[:features]
    norms = np.linalg.norm(rng.standard_normal((features, depth)), axis=1)
    return (rows * norms[:, None]).astype(np.float32)


class Design(NamedTuple):
    """What the constants of a feature map are made from.

    Attributes:
      depth: d, the length of queries and keys.
      features: m, the number of random directions.
      projection: how they are drawn.
      order: even degree at which a Taylor series is cut.
      seed: names the draw.
    """

    depth: int
    features: int = 64
    projection: Projection = Projection.orthogonal
    order: int = 2
    seed: int = 0


def directions(design: Design) -> np.ndarray:
    """Draw the directions that a design asks for: f32[m, d], the same for one seed.

    Raises:
      ValueError: where it asks for none, or for fewer than one.
    """
    if design.projection is Projection.none:
        raise ValueError(
            "projection=none goes with kernel=relu only, other random features average "
            "over directions; choose projection=orthogonal or iid."
        )
    if design.features < 1:
        raise ValueError(
            f"features={design.features} must be at least 1 random direction."
        )
    draw = {Projection.iid: iid, Projection.orthogonal: orthogonal}[design.projection]
    return draw(np.random.default_rng(design.seed), design.features, design.depth)


def _optional_directions(design: Design) -> np.ndarray | None:
    return None if design.projection is Projection.none else directions(design)


def _even_order(design: Design) -> int:
    if design.order < 2 or design.order % 2:
        raise ValueError(
            f"order={design.order} must be even and at least 2: a Taylor series of exp "
            "cut at an odd order is negative for some logits."
        )
    return design.order


class Entry(NamedTuple):
    """A kernel as the registry knows it.

    Attributes:
      apply: (x, y, constant) -> phi(x), psi(y).
      constant: Design -> what `apply` takes as its third argument.
      exponential: whether it estimates exp(x . y), for which centring is exact.
    """

    apply: Callable[[jax.Array, jax.Array, Any], tuple[Features, Features]]
    constant: Callable[[Design], Any]
    exponential: bool


REGISTRY: dict[Kernel, Entry] = {
    Kernel.relu: Entry(relu, _optional_directions, exponential=False),
    Kernel.positive: Entry(positive, directions, exponential=True),
    Kernel.taylor: Entry(taylor, _even_order, exponential=True),
}
"""Every kernel but the exact one, which has no features."""


def feature_map(kernel: Kernel, design: Design) -> FeatureMap:
    """The map of a kernel with its constants drawn once.

    Args:
      kernel: a key of `REGISTRY`.
      design: what the constants are made from.

    Raises:
      ValueError: where the design does not fit the kernel.
    """
    entry = REGISTRY[kernel]
    constant = entry.constant(design)
    return lambda x, y: entry.apply(x, y, constant)
