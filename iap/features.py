"""Kernels by name, each with its feature map and the constants that are drawn for it.

Adding a kernel is one function in `maps` and here its name and one line of `REGISTRY`.
"""

import enum
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iap.directions import Norms, Projection, draw, shrinkage
from iap.maps import (
    Features,
    angular,
    elu,
    hyperbolic,
    oprf,
    positive,
    relu,
    saderf,
    taylor,
    trig,
)


class Kernel(enum.Enum):
    """What attention compares a query and a key by."""

    exact = "exact"
    relu = "relu"
    elu = "elu"
    positive = "positive"
    trig = "trig"
    hyperbolic = "hyperbolic"
    oprf = "oprf"
    saderf = "saderf"
    angular = "angular"
    taylor = "taylor"


class Design(NamedTuple):
    """What the constants of a feature map are made from.

    Attributes:
      depth: d, the length of queries and keys.
      features: m, the number of random directions; trig and hyperbolic make two
        features of each, angular 4 (signs + 1), elu and taylor use none.
      projection: how they are drawn.
      order: even degree at which a Taylor series is cut.
      seed: names the draw.
      norms: lengths of the directions.
      spread: mean |x + y|^2 (`measure_spread`) that oprf and saderf are made for, fixed
        for the run; 0 measures it on every call, that is for every frame, over all of
        its tokens.
      balance: saderf's Psi (`measure_balance`), d numbers, fixed for the run; none
        measures it on every call, likewise.
      signs: n, directions by which angular tells angles.
    """

    depth: int
    features: int = 64
    projection: Projection = Projection.orthogonal
    order: int = 2
    seed: int = 0
    norms: Norms = Norms.chi
    spread: float = 0.0
    balance: tuple[float, ...] = ()
    signs: int = 8


def directions(design: Design) -> np.ndarray:
    """Draw the directions that a design asks for: f32[m, d], the same for one seed.

    Warns (UserWarning) where norms=sqrt_d would bias exp by more than 10 %.

    Raises:
      ValueError: where it asks for none, or for fewer than one.
    """
    if design.projection is Projection.none:
        raise ValueError(
            "projection=none goes with kernel=relu only, other random features average "
            "over directions; choose projection=orthogonal, simplex or iid."
        )
    if design.norms is Norms.sqrt_d:
        share = shrinkage(design.depth, 4.0)
        if share < 0.9:
            warnings.warn(
                f"norms=sqrt_d at depth={design.depth} makes random features estimate "
                f"{share:.0%} of exp(x . y) where |x + y| = 2, and less where it is "
                "longer; choose norms=chi, which is unbiased.",
                stacklevel=4,  # the caller of feature_map
            )
    rng = np.random.default_rng(design.seed)
    return _drawn(design, design.features, "features", rng)


def _drawn(
    design: Design, count: int, name: str, rng: np.random.Generator
) -> np.ndarray:
    if count < 1:
        raise ValueError(f"{name}={count} must be at least 1 random direction.")
    return draw(rng, count, design.depth, design.projection, design.norms)


def _relu_constants(design: Design) -> tuple[np.ndarray | None]:
    if design.projection is Projection.none:
        return (None,)
    rng = np.random.default_rng(design.seed)
    return (_drawn(design, design.features, "features", rng),)


def _oprf_constants(design: Design) -> tuple[np.ndarray, float]:
    if not 0 <= design.spread < math.inf:
        raise ValueError(
            f"spread={design.spread} must be a mean of squares, at least 0 and finite; "
            "0 measures it."
        )
    return directions(design), design.spread


def _saderf_constants(design: Design) -> tuple[np.ndarray, float, tuple[float, ...]]:
    balance = tuple(design.balance)
    fits = len(balance) == design.depth and all(0 < b < math.inf for b in balance)
    if balance and not fits:
        raise ValueError(
            f"balance={balance} must be depth={design.depth} positive numbers, or none "
            "to measure them."
        )
    return *_oprf_constants(design), balance


def _angular_constants(design: Design) -> tuple[np.ndarray, np.ndarray]:
    omega = directions(design)
    rng = np.random.default_rng([design.seed, 1])  # independent of omega
    return omega, _drawn(design, design.signs, "signs", rng)


def _even_order(design: Design) -> tuple[int]:
    if design.order < 2 or design.order % 2:
        raise ValueError(
            f"order={design.order} must be even and at least 2: a Taylor series of exp "
            "cut at an odd order is negative for some logits."
        )
    return (design.order,)


class Entry(NamedTuple):
    """A kernel as the registry knows it.

    Attributes:
      apply: (x, y, *constants) -> phi(x), psi(y).
      constants: Design -> what `apply` takes after x and y.
      exponential: whether it estimates exp(x . y), for which centring is exact.
      positive: whether no estimate is negative, so that row sums can be divided by.
      rowwise: Design -> whether a row's features depend on that row alone.
      quadratic: Design -> whether the kernel is 1 + t + t^2/2.
    """

    apply: Callable[..., tuple[Features, Features]]
    constants: Callable[[Design], tuple[Any, ...]]
    exponential: bool = True
    positive: bool = True
    rowwise: Callable[[Design], bool] = lambda design: True
    quadratic: Callable[[Design], bool] = lambda design: False


REGISTRY: dict[Kernel, Entry] = {
    Kernel.relu: Entry(relu, _relu_constants, exponential=False),
    Kernel.elu: Entry(elu, lambda design: (), exponential=False),
    Kernel.positive: Entry(positive, lambda design: (directions(design),)),
    Kernel.trig: Entry(trig, lambda design: (directions(design),), positive=False),
    Kernel.hyperbolic: Entry(hyperbolic, lambda design: (directions(design),)),
    Kernel.oprf: Entry(oprf, _oprf_constants, rowwise=lambda design: design.spread > 0),
    Kernel.saderf: Entry(
        *(saderf, _saderf_constants),
        rowwise=lambda design: design.spread > 0 and bool(design.balance),
    ),
    Kernel.angular: Entry(angular, _angular_constants, positive=False),
    Kernel.taylor: Entry(
        taylor, _even_order, quadratic=lambda design: design.order == 2
    ),
}
"""Every kernel but the exact one, which has no features."""


class FeatureMap(NamedTuple):
    """A kernel's map with its constants, called as features(x, y) -> phi(x), psi(y).

    Attributes:
      apply: (x f32[L, d], y f32[L, d]) -> phi(x), psi(y).
      exponential: whether it estimates exp(x . y), for which centring is exact.
      positive: whether no estimate is negative, so that row sums can be divided by.
      rowwise: whether a row's features depend on that row alone, as blocks of rows and
        causal attention need it.
      quadratic: whether the kernel is 1 + t + t^2/2 of t = x . y, for whose scores
        there is a shorter way than features (`iap.quadratic`), which does not ask
        `apply`: a map that is changed must not say so.
    """

    apply: Callable[[jax.Array, jax.Array], tuple[Features, Features]]
    exponential: bool = True
    positive: bool = True
    rowwise: bool = True
    quadratic: bool = False

    def __call__(self, x: jax.Array, y: jax.Array) -> tuple[Features, Features]:
        """The features of queries x and of keys y."""
        return self.apply(x, y)


def feature_map(kernel: Kernel, design: Design) -> FeatureMap:
    """The map of a kernel with its constants drawn once.

    The map takes bfloat16 and float16 up to float32 first: bfloat16 knows
    an exponent of 60 to a quarter only.

    Args:
      kernel: a key of `REGISTRY`.
      design: what the constants are made from.

    Raises:
      ValueError: where the design does not fit the kernel; from the map, where queries
        or keys are no f32[L, depth].
    """
    if kernel not in REGISTRY:
        raise ValueError(
            f"kernel={kernel.value} has no features; use exact_scores, or choose "
            f"one of {', '.join(kernel.value for kernel in REGISTRY)}."
        )
    for name, least in (("depth", 1), ("seed", 0)):
        if getattr(design, name) < least:
            raise ValueError(
                f"{name}={getattr(design, name)} must be at least {least}."
            )
    entry = REGISTRY[kernel]
    constants = entry.constants(design)

    def apply(x: jax.Array, y: jax.Array) -> tuple[Features, Features]:
        return entry.apply(
            _checked("queries", x, design), _checked("keys", y, design), *constants
        )

    return FeatureMap(
        apply,
        exponential=entry.exponential,
        positive=entry.positive,
        rowwise=entry.rowwise(design),
        quadratic=entry.quadratic(design),
    )


def _checked(name: str, z: jax.Array, design: Design) -> jax.Array:
    if z.ndim != 2 or z.shape[1] != design.depth:
        raise ValueError(
            f"{name} have shape {z.shape}; expected [L, depth] with depth="
            f"{design.depth} (map a batch with jax.vmap)."
        )
    if not jnp.issubdtype(z.dtype, jnp.floating):
        raise ValueError(f"{name} have dtype {z.dtype}; expected float32.")
    return z if jnp.finfo(z.dtype).bits >= 32 else z.astype(jnp.float32)
