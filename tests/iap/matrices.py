"""Feature maps of every kernel, tokens, and attention by explicit float64 matrices."""

import jax
import jax.numpy as jnp
import numpy as np

from iap import Design, Kernel, Projection, feature_map

D = 4
MAPS = {
    "relu": feature_map(Kernel.relu, Design(D)),
    "relu plain": feature_map(Kernel.relu, Design(D, projection=Projection.none)),
    "elu": feature_map(Kernel.elu, Design(D)),
    "positive": feature_map(Kernel.positive, Design(D)),
    "positive iid": feature_map(Kernel.positive, Design(D, projection=Projection.iid)),
    "positive m=1": feature_map(Kernel.positive, Design(D, features=1)),
    "hyperbolic": feature_map(Kernel.hyperbolic, Design(D, features=32)),
    "trig": feature_map(Kernel.trig, Design(D)),
    "angular": feature_map(Kernel.angular, Design(D, features=16, signs=3)),
    "oprf": feature_map(Kernel.oprf, Design(D)),
    "oprf fixed": feature_map(Kernel.oprf, Design(D, spread=2.0)),
    "saderf": feature_map(Kernel.saderf, Design(D)),
    "saderf fixed": feature_map(
        Kernel.saderf, Design(D, spread=2.0, balance=(0.5, 1.0, 1.5, 2.0))
    ),
    "taylor 2": feature_map(Kernel.taylor, Design(D, order=2)),
    "taylor 4": feature_map(Kernel.taylor, Design(D, order=4)),
}
POSITIVE = [name for name, features in MAPS.items() if features.positive]
ROWWISE = [name for name, features in MAPS.items() if features.rowwise]
MOST = 256  # features of the widest map, angular: 4 * 16 * (3 + 1)


def tokens(length=50, scale=1.0, offset=1.0):
    """Queries and keys whose means are not zero, as those of images are not."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((2, length, D))
    mean = offset * rng.standard_normal((2, 1, D))
    return tuple(jnp.asarray(z, jnp.float32) for z in scale * (spread + mean))


def values(length=50, width=3):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.standard_normal((length, width)), jnp.float32)


def size(name):
    """How large tokens may be for a map's row sums to stay away from zero."""
    return 1.0 if MAPS[name].positive else 0.25


def matrix(queries, keys, name, shifts=None, causal=False):
    """phi(q_i) . psi(k_j) times one positive factor per row, f64[L, L].

    Args:
      queries, keys: f32[L, d].
      name: of the map.
      shifts: a and b, around which exp(q . k) is estimated; None for no shifts.
      causal: zeros above the diagonal.
    """
    factors = np.zeros((len(queries), len(keys)))
    if shifts is not None:
        q, k, a, b = (np.asarray(z, np.float64) for z in (queries, keys, *shifts))
        factors += (q @ b)[:, None] + ((k - b) @ a)[None, :]  # log u_i + log w_j
        queries, keys = (jnp.asarray(z, jnp.float32) for z in (q - a, k - b))
    phi, psi = (
        [np.asarray(part, np.float64) for part in features]
        for features in MAPS[name](queries, keys)
    )
    allowed = np.tri(len(queries), dtype=bool) if causal else True
    exponents = phi[1][:, None] + psi[1][None] + factors[:, :, None]  # [L, L, M or 1]
    exponents = np.where(
        np.reshape(allowed, (*np.shape(allowed), 1)), exponents, -np.inf
    )
    top = exponents.max(axis=(1, 2), keepdims=True)
    terms = phi[0][:, None] * psi[0][None] * np.exp(exponents - top)
    terms = np.broadcast_to(terms, (*factors.shape, width(name)))
    return terms.sum(axis=2), top[:, :, 0]


def width(name):
    """M, the number of a map's features."""
    token = jax.ShapeDtypeStruct((1, D), jnp.float32)
    phi, _ = jax.eval_shape(MAPS[name].apply, token, token)
    return max(phi.value.shape[1], phi.exponent.shape[1])


def means(queries, keys):
    return [np.asarray(z, np.float64).mean(axis=0) for z in (queries, keys)]


def array_sizes(function, *arguments):
    """Sizes of all arrays that a function makes, those inside its loops included."""
    yield from _sizes(jax.make_jaxpr(function)(*arguments).jaxpr)


def _sizes(jaxpr):
    for eqn in jaxpr.eqns:
        yield from (var.aval.size for var in eqn.outvars)
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _sizes(inner)


def temporary_bytes(function, *arguments):
    """What a compiled function needs beside its arguments and its results."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes
