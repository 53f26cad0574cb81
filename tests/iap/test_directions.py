import math

import numpy as np
import pytest

from iap.directions import (
    DRAWS,
    Norms,
    Projection,
    draw,
    iid,
    orthogonal,
    shrinkage,
    simplex,
)
from iap.maps import positive
from tests.iap.monte_carlo import directions, estimates, exact, mean_and_error, pairs


def unit(rows):
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_orthogonal_directions_within_blocks():
    omega = orthogonal(np.random.default_rng(0), 10, 4)
    assert omega.shape == (10, 4)  # two blocks and a half
    for block in (omega[:4], omega[4:8], omega[8:]):
        np.testing.assert_allclose(
            unit(block) @ unit(block).T, np.eye(len(block)), atol=1e-6
        )


@pytest.mark.parametrize("d", [2, 3, 4, 16])
def test_simplex_directions_meet_at_the_widest_common_angle(d):
    omega = simplex(np.random.default_rng(0), 2 * d + 1, d)
    assert omega.shape == (2 * d + 1, d)
    for block in (omega[:d], omega[d : 2 * d]):
        expected = np.full((d, d), -1 / (d - 1))
        np.fill_diagonal(expected, 1)
        np.testing.assert_allclose(unit(block) @ unit(block).T, expected, atol=1e-6)


@pytest.mark.parametrize("coupling", [orthogonal, simplex, iid])
def test_directions_are_standard_normal_each(coupling):
    blocks, d = 20_000, 3
    omega = coupling(np.random.default_rng(0), blocks * d, d).reshape(blocks, d, d)
    # Entries: mean 0, variance 1 (that of a squared normal is 2), 4 standard errors.
    # Without the sign fix the means of a rotation's diagonal are far below 0.
    assert np.all(np.abs(omega.mean(axis=0)) < 4 / math.sqrt(blocks))
    assert np.all(np.abs((omega**2).mean(axis=0) - 1) < 4 * math.sqrt(2 / blocks))
    # Squared norms are chi-squared with d degrees of freedom: variance 2 d.
    norms = (omega.astype(np.float64) ** 2).sum(axis=2).ravel()
    assert abs(norms.var() - 2 * d) < 0.2


@pytest.mark.parametrize("projection", DRAWS)
def test_fixed_norms_change_norms_alone(projection):
    free, fixed = (
        draw(np.random.default_rng(0), 8, 4, projection, norms) for norms in Norms
    )
    np.testing.assert_allclose(np.linalg.norm(fixed, axis=1), 2, rtol=1e-6)
    np.testing.assert_allclose(unit(fixed), unit(free), atol=1e-6)
    assert np.abs(np.linalg.norm(free, axis=1) - 2).max() > 0.1


def test_fixed_norms_shrink_estimates_by_the_closed_form():
    # 0F1(; 1/2; t^2 / 4) = cosh(t): two points instead of a sphere.
    assert shrinkage(1, 1.0) == pytest.approx(math.cosh(1) / math.exp(0.5), rel=1e-12)
    # 0F1(; 3/2; t^2 / 4) = sinh(t) / t.
    assert shrinkage(3, 2.0) == pytest.approx(
        math.sinh(math.sqrt(6)) / math.sqrt(6) / math.e, rel=1e-12
    )
    assert shrinkage(4, 4.0) == pytest.approx(0.66, abs=0.005)

    x, y = pairs(longest=1.0)
    omega = directions(Projection.iid, norms=Norms.sqrt_d)
    mean, error = mean_and_error(estimates(positive, x, y, omega))
    squared = np.sum((x.astype(np.float64) + y) ** 2, axis=1)
    shares = np.array([shrinkage(4, s) for s in squared])
    assert np.all(np.abs(mean - shares * exact(x, y)) < 4 * error + 1e-6)
    assert np.any(np.abs(mean - exact(x, y)) > 40 * error)


def test_without_the_sign_fix_positive_features_are_biased():
    x, y = np.full((2, 1, 4), 0.5, np.float32)
    draws = 100_000
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((draws, 4, 4)))
    norms = np.linalg.norm(rng.standard_normal((draws, 4, 4)), axis=2)
    raw = (q.swapaxes(1, 2) * norms[:, :, None]).astype(np.float32)
    mean, error = mean_and_error(estimates(positive, x, y, raw))
    assert np.all(np.abs(mean - exact(x, y)) > 20 * error)

    fixed = orthogonal(np.random.default_rng(0), draws * 4, 4).reshape(draws, 4, 4)
    mean, error = mean_and_error(estimates(positive, x, y, fixed))
    assert np.all(np.abs(mean - exact(x, y)) < 4 * error)


def test_a_simplex_needs_two_dimensions():
    with pytest.raises(ValueError, match="depth=1 must be at least 2 for projection=s"):
        draw(np.random.default_rng(0), 4, 1, Projection.simplex)
