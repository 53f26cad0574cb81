import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import maps
from iap.directions import Projection
from tests.iap.monte_carlo import (
    directions,
    estimates,
    exact,
    mean_and_error,
    pairs,
)


def pair(d, scale=1.0, seed=0, length=6):
    rng = np.random.default_rng(seed)
    x, y = scale * rng.standard_normal((2, length, d))
    return x.astype(np.float32), y.astype(np.float32)


def normal(m=9, d=4, seed=1):
    return np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)


def multiplied_out(features):
    value, exponent = (np.asarray(part, np.float64) for part in features)
    return value * np.exp(exponent)


def both(apply, x, y, *constants):
    return map(multiplied_out, apply(jnp.asarray(x), jnp.asarray(y), *constants))


def half_norm(z):
    return 0.5 * (z * z).sum(axis=1, keepdims=True)


def test_relu_with_projection():
    x, y = pair(4)
    for z, phi in zip((x, y), both(maps.relu, x, y, normal()), strict=True):
        expected = np.maximum(z.astype(np.float64) @ normal().T, 0) / 3 + 1e-3
        np.testing.assert_allclose(phi, expected, rtol=1e-5, atol=1e-6)


def test_relu_without_projection():
    x, y = pair(4)
    for z, phi in zip((x, y), both(maps.relu, x, y, None), strict=True):
        np.testing.assert_allclose(phi, np.maximum(z, 0) + 1e-3, rtol=1e-6)


def test_elu():
    x, y = pair(4)
    for z, phi in zip((x, y), both(maps.elu, x, y), strict=True):
        expected = np.where(z > 0, z, np.expm1(z.astype(np.float64))) + 1
        np.testing.assert_allclose(phi, expected, rtol=1e-6)


def test_positive():
    x, y = pair(4)
    for z, phi in zip((x, y), both(maps.positive, x, y, normal()), strict=True):
        z = z.astype(np.float64)
        expected = np.exp(z @ normal().T - half_norm(z)) / 3
        np.testing.assert_allclose(phi, expected, rtol=1e-5)


def test_hyperbolic_features_multiply_to_a_hyperbolic_cosine():
    x, y = pair(4)
    phi, psi = both(maps.hyperbolic, x, y, normal())
    assert phi.shape == (6, 18)
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean = np.cosh((x + y) @ normal().T).mean(axis=1)
    expected = mean * np.exp(-half_norm(x) - half_norm(y))[:, 0]
    np.testing.assert_allclose((phi * psi).sum(axis=1), expected, rtol=1e-5)


def test_trig_features_multiply_to_a_cosine():
    x, y = pair(4)
    phi, psi = both(maps.trig, x, y, normal())
    assert phi.shape == (6, 18)
    assert np.any(phi @ psi.T < 0)
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean = np.cos((x - y) @ normal().T).mean(axis=1)
    size = np.exp(half_norm(x) + half_norm(y))[:, 0]
    # Angles up to 10 rounded to float32, relative to the largest that a cosine can be.
    assert np.all(np.abs((phi * psi).sum(axis=1) - mean * size) < 4e-6 * size)


def test_oprf():
    x, y = pair(4)
    spread = 3.0
    # 2 s rho^2 + (2 s + d) rho - d = 0
    rho = max(np.roots([2 * spread, 2 * spread + 4, -4]))
    a = (1 - 1 / rho) / 8
    omega = normal().astype(np.float64)
    for z, phi in zip((x, y), both(maps.oprf, x, y, normal(), spread), strict=True):
        z = z.astype(np.float64)
        exponent = a * (omega**2).sum(axis=1) + math.sqrt(1 - 4 * a) * z @ omega.T
        expected = (1 - 4 * a) ** (4 / 4) * np.exp(exponent - half_norm(z)) / 3
        np.testing.assert_allclose(phi, expected, rtol=2e-5)


def test_what_oprf_and_saderf_measure():
    x, y = pair(4)
    x *= np.array([1, 2, 0.5, 3], np.float32)  # not balanced with y

    def spread_of(x, y):
        return ((x[:, None] + y[None]).astype(np.float64) ** 2).sum(axis=2).mean()

    spread = float(maps.measure_spread(jnp.asarray(x), jnp.asarray(y)))
    assert spread == pytest.approx(spread_of(x, y), rel=1e-6)
    for measured, fixed in zip(
        both(maps.oprf, x, y, normal()),
        both(maps.oprf, x, y, normal(), spread),
        strict=True,
    ):
        np.testing.assert_allclose(measured, fixed, rtol=1e-5)

    psi = np.asarray(maps.measure_balance(jnp.asarray(x), jnp.asarray(y)))
    np.testing.assert_allclose(
        psi, (np.mean(y**2, axis=0) / np.mean(x**2, axis=0)) ** 0.25, rtol=1e-6
    )
    least = spread_of(x * psi, y / psi)
    for entry in range(4):
        for factor in (0.8, 1.25):
            other = np.where(np.arange(4) == entry, factor * psi, psi)
            assert spread_of(x * other, y / other) > least
    for measured, fixed in zip(
        both(maps.saderf, x, y, normal()),
        both(maps.oprf, x * psi, y / psi, normal(), least),
        strict=True,
    ):
        np.testing.assert_allclose(measured, fixed, rtol=2e-5)
    for measured, fixed in zip(
        both(maps.saderf, x, y, normal()),
        both(maps.saderf, x, y, normal(), least, tuple(map(float, psi))),
        strict=True,
    ):
        np.testing.assert_allclose(measured, fixed, rtol=2e-5)


def test_balance_of_a_coordinate_that_is_zero_throughout():
    x, y = (jnp.asarray(z) for z in pair(4))
    x, y = x.at[:, 1].set(0), y.at[:, 1].set(0)
    psi = maps.measure_balance(x, y)
    assert float(psi[1]) == 1
    phi, _ = maps.saderf(x, y, normal())
    assert np.all(np.isfinite(phi.exponent))


def test_angular_features_multiply_to_the_hybrid():
    x, y = pair(4, scale=0.7)
    omega, tau = normal(), normal(5, seed=2)
    phi, psi = both(maps.angular, x, y, omega, tau)
    assert phi.shape == (6, 4 * 9 * 6)
    opposed = (np.sign(x @ tau.T) != np.sign(y @ tau.T)).mean(axis=1)
    assert 0 < opposed.min() < opposed.max() < 1
    hyperbolic, trig = (
        np.sum(np.multiply(*both(apply, x, y, omega)), axis=1)
        for apply in (maps.hyperbolic, maps.trig)
    )
    expected = opposed * hyperbolic + (1 - opposed) * trig
    np.testing.assert_allclose((phi * psi).sum(axis=1), expected, rtol=1e-4, atol=1e-5)


def test_the_angular_hybrid_is_exact_at_angle_0_and_pi():
    x, _ = pair(4)
    for sign in (1, -1):
        phi, psi = both(maps.angular, x, sign * x, normal(), normal(5, seed=2))
        expected = np.exp(sign * (x.astype(np.float64) ** 2).sum(axis=1))
        # What cancels, the other estimator, is of this size in float32.
        size = np.abs(phi * psi).sum(axis=1)
        assert np.all(np.abs((phi * psi).sum(axis=1) - expected) < 1e-6 * size)


UNBIASED = {
    "positive": maps.positive,
    "hyperbolic": maps.hyperbolic,
    "trig": maps.trig,
    "oprf": lambda x, y, omega: maps.oprf(x, y, omega, 1.2),
    "saderf": lambda x, y, omega: maps.saderf(x, y, omega, 0.8, (1.2, 0.7, 1.0, 1.5)),
}
COUPLINGS = [Projection.iid, Projection.orthogonal, Projection.simplex]


@pytest.mark.parametrize("projection", COUPLINGS, ids=lambda p: p.name)
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased(name, projection):
    x, y = pairs(longest=0.7)
    samples = estimates(UNBIASED[name], x, y, directions(projection))
    mean, error = mean_and_error(samples)
    # float32 leaves 1e-6 where an estimate is exact.
    assert np.all(np.abs(mean - exact(x, y)) < 4 * error + 1e-6)
    assert np.all(error < 0.01 * exact(x, y))


@pytest.mark.parametrize("projection", COUPLINGS, ids=lambda p: p.name)
def test_the_angular_hybrid_and_its_gradient_are_unbiased(projection):
    x, y = pairs(longest=0.7)
    omega = directions(projection, 20_000, 4)
    tau = directions(projection, 20_000, 4, seed=4)
    mean, error = mean_and_error(estimates(maps.angular, x, y, omega, tau))
    assert np.all(np.abs(mean - exact(x, y)) < 4 * error + 1e-6)
    assert np.all(error < 0.01 * exact(x, y))

    def estimate(x, omega, tau):
        phi, psi = maps.angular(x, jnp.asarray(y), omega, tau)
        return jnp.sum(phi.value * psi.value * jnp.exp(phi.exponent + psi.exponent))

    gradients = jax.jit(jax.vmap(jax.grad(estimate), in_axes=(None, 0, 0)))(
        jnp.asarray(x), omega, tau
    )
    mean, error = mean_and_error(np.asarray(gradients, np.float64))
    expected = y * exact(x, y)[:, None]
    assert np.all(np.abs(mean - expected) < 4.5 * error + 1e-6)  # of 24 numbers
    assert np.all(error < 0.02)


@pytest.mark.parametrize("d", [1, 3, 4])
@pytest.mark.parametrize("order", [2, 4, 6])
def test_taylor_features_multiply_to_the_series(d, order):
    x, y = pair(d, scale=1.5)
    phi, psi = both(maps.taylor, x, y, order)
    assert phi.shape == (len(x), math.comb(d + order, order))
    logits = x.astype(np.float64) @ y.T.astype(np.float64)
    expected = sum(logits**n / math.factorial(n) for n in range(order + 1))
    # Terms are sums of at most d^n float32 products of n factors each, whose magnitudes
    # add up to the series of |x| . |y|.
    magnitude = np.exp(np.abs(x) @ np.abs(y).T)
    assert np.all(np.abs(phi @ psi.T - expected) < 2 * order * 2.0**-23 * magnitude)
    assert np.all(phi @ psi.T > 0)
