import math

import jax.numpy as jnp
import numpy as np
import pytest

from iap import Design, Kernel, Projection, feature_map
from iap.features import iid, orthogonal, positive, relu, taylor


def pair(d, scale=1.0, seed=0, length=6):
    rng = np.random.default_rng(seed)
    x, y = scale * rng.standard_normal((2, length, d))
    return x.astype(np.float32), y.astype(np.float32)


def multiplied_out(features):
    value, exponent = (np.asarray(part, np.float64) for part in features)
    return value * np.exp(exponent)


def test_relu_with_projection():
    x, y = pair(4)
    omega = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    for z, features in zip(
        (x, y), relu(jnp.asarray(x), jnp.asarray(y), omega), strict=True
    ):
        expected = np.maximum(z.astype(np.float64) @ omega.T, 0) / 3 + 1e-3
        np.testing.assert_allclose(
            multiplied_out(features), expected, rtol=1e-5, atol=1e-6
        )


def test_relu_without_projection():
    x, y = pair(4)
    design = Design(depth=4, projection=Projection.none)
    features, _ = feature_map(Kernel.relu, design)(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(
        multiplied_out(features), np.maximum(x, 0) + 1e-3, rtol=1e-6
    )


def test_positive_values():
    x, y = pair(4)
    omega = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    both = positive(jnp.asarray(x), jnp.asarray(y), omega)
    for z, features in zip((x, y), both, strict=True):
        z = z.astype(np.float64)
        norm = 0.5 * (z * z).sum(1, keepdims=True)
        np.testing.assert_allclose(
            multiplied_out(features), np.exp(z @ omega.T - norm) / 3, rtol=1e-5
        )


@pytest.mark.parametrize("draw", [iid, orthogonal])
@pytest.mark.parametrize("d", [2, 4])
def test_positive_features_are_unbiased(draw, d):
    x, y = pair(d, scale=0.5)
    blocks = 20_000  # independent of each other, their rows not
    omega = draw(np.random.default_rng(3), blocks * d, d)
    phi, psi = (
        multiplied_out(f) * math.sqrt(blocks * d)
        for f in positive(jnp.asarray(x), jnp.asarray(y), omega)
    )
    estimates = (phi * psi).reshape(len(x), blocks, d).mean(axis=2)
    error = estimates.std(axis=1, ddof=1) / math.sqrt(blocks)
    exact = np.exp((x.astype(np.float64) * y).sum(1))
    assert np.all(error < 0.05 * exact)  # small enough to see a missing sign fix
    assert np.all(np.abs(estimates.mean(axis=1) - exact) < 4 * error)


@pytest.mark.parametrize("d", [1, 3, 4])
@pytest.mark.parametrize("order", [2, 4, 6])
def test_taylor_features_multiply_to_the_series(d, order):
    x, y = pair(d, scale=1.5)
    phi, psi = map(multiplied_out, taylor(jnp.asarray(x), jnp.asarray(y), order))
    assert phi.shape == (len(x), math.comb(d + order, order))
    logits = x.astype(np.float64) @ y.T.astype(np.float64)
    expected = sum(logits**n / math.factorial(n) for n in range(order + 1))
    # Terms are sums of at most d^n float32 products of n factors each, whose magnitudes
    # add up to the series of |x| . |y|.
    magnitude = np.exp(np.abs(x) @ np.abs(y).T)
    assert np.all(np.abs(phi @ psi.T - expected) < 2 * order * 2.0**-23 * magnitude)
    assert np.all(phi @ psi.T > 0)


def test_orthogonal_directions_within_blocks():
    omega = orthogonal(np.random.default_rng(0), 10, 4).astype(np.float64)
    assert omega.shape == (10, 4)  # two blocks and a half
    for block in (omega[:4], omega[4:8], omega[8:]):
        unit = block / np.linalg.norm(block, axis=1, keepdims=True)
        np.testing.assert_allclose(unit @ unit.T, np.eye(len(block)), atol=1e-6)


def test_orthogonal_directions_are_standard_normal_each():
    blocks, d = 20_000, 3
    omega = orthogonal(np.random.default_rng(0), blocks * d, d).reshape(blocks, d, d)
    # Entries: mean 0, variance 1 (that of a squared normal is 2), 4 standard errors.
    # Without the sign fix the diagonal's means are far below 0.
    assert np.all(np.abs(omega.mean(axis=0)) < 4 / math.sqrt(blocks))
    assert np.all(np.abs((omega**2).mean(axis=0) - 1) < 4 * math.sqrt(2 / blocks))
    # Squared norms are chi-squared with d degrees of freedom: variance 2 d.
    norms = (omega.astype(np.float64) ** 2).sum(axis=2).ravel()
    assert abs(norms.var() - 2 * d) < 0.2


def test_a_seed_names_the_draw():
    x, y = map(jnp.asarray, pair(4))

    def values(seed):
        phi, _ = feature_map(Kernel.relu, Design(depth=4, seed=seed))(x, y)
        return np.asarray(phi.value)

    np.testing.assert_array_equal(values(0), values(0))
    assert np.abs(values(0) - values(1)).max() > 0.1


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        (Kernel.positive, {"features": 0}, "features=0 must be at least 1"),
        (Kernel.relu, {"features": -3}, "features=-3 must be at least 1"),
        (Kernel.positive, {"projection": Projection.none}, "projection=none goes with"),
        (Kernel.taylor, {"order": 3}, "order=3 must be even"),
        (Kernel.taylor, {"order": 0}, "order=0 must be even and at least 2"),
    ],
)
def test_refusals(kernel, changes, message):
    with pytest.raises(ValueError, match=message):
        feature_map(kernel, Design(depth=4, **changes))
