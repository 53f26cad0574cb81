"""Estimates of exp(x . y) from many independent draws of a kernel's directions."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from iap.directions import Norms, Projection, draw

D = 4
DRAWS = 200_000


def pairs(longest=0.5, d=D):
    """Six pairs x, y of norms up to `longest`, among them equal and opposed ones."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 6, d))
    y[0], y[1] = x[0], -x[1]
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    x *= longest * np.array([1, 1, 1, 0.5, 1, 0.8])[:, None]
    y *= longest * np.array([1, 0.7, 1, 1, 0.6, 0.8])[:, None]
    return x.astype(np.float32), y.astype(np.float32)


@cache
def directions(projection, draws=DRAWS, m=D, norms=Norms.chi, seed=3):
    """f32[draws, m, d], independent of each other."""
    assert projection is Projection.iid or m % D == 0  # whole blocks for each
    rng = np.random.default_rng(seed)
    return draw(rng, draws * m, D, projection, norms).reshape(draws, m, D)


def estimates(apply, x, y, *constants):
    """phi(x_i) . psi(y_i) for each of the stacked constants, f64[draws, L]."""

    @jax.jit
    @jax.vmap
    def products(*one):
        phi, psi = apply(jnp.asarray(x), jnp.asarray(y), *one)
        exponent = phi.exponent + psi.exponent
        return jnp.sum(phi.value * psi.value * jnp.exp(exponent), axis=1)

    return np.asarray(products(*constants), np.float64)


def exact(x, y):
    """exp(x_i . y_i), f64[L]."""
    return np.exp(np.sum(x.astype(np.float64) * y, axis=1))


def mean_and_error(samples):
    """Mean over the first axis and its standard error."""
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
