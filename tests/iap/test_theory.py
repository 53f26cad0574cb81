import math

import numpy as np
import pytest

from iap import maps, theory
from iap.directions import Projection
from tests.iap.monte_carlo import (
    D,
    directions,
    estimates,
    exact,
    mean_and_error,
    pairs,
)

A = -0.05
PSI = (1.3, 0.8, 1.0, 0.9)
SPREAD = 0.7


def tilted(x, y, omega):
    """The oprf whose A is the one above, by the spread that it is best for."""
    # A = (1 - 1 / rho) / 8 and 2 s rho (1 + rho) = d (1 - rho), solved for s.
    rho = 1 / (1 - 8 * A)
    return maps.oprf(x, y, omega, D * (1 - rho) / (2 * rho * (1 + rho)))


def balanced(x, y, omega):
    return maps.saderf(x, y, omega, SPREAD, PSI)


def saderf_error(x, y, m, projection=Projection.iid):
    psi = np.array(PSI)
    a = float(maps.tilt(SPREAD, D))
    return theory.mse_oprf(x * psi, y / psi, m, a, projection)


ERRORS = {
    "positive": (maps.positive, theory.mse_positive),
    "hyperbolic": (maps.hyperbolic, theory.mse_hyperbolic),
    "trig": (maps.trig, theory.mse_trig),
    "oprf": (tilted, lambda x, y, m, p: theory.mse_oprf(x, y, m, A, p)),
    "saderf": (balanced, saderf_error),
}


def test_the_utility_figure():
    angles = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    expected = [0.0007, 0.022, 0.30, 3.4, 36, 1275]
    for angle, value in zip(angles, expected, strict=True):
        assert theory.utility(angle, 1.0) == pytest.approx(value, rel=0.05)
    assert theory.utility(1.74, 1.0) == pytest.approx(1, rel=0.02)
    assert theory.utility(3.0, 1.0) == pytest.approx(1275, rel=1e-3)


def test_utility_is_even_and_has_its_limits():
    phi, length = np.meshgrid(np.linspace(0.1, 3, 7), np.linspace(0.2, 2, 5))
    r = theory.utility(phi, length)
    np.testing.assert_array_equal(theory.utility(-phi, -length), r)
    assert np.all(np.diff(r, axis=1) > 0)  # worse the smaller the kernel's value
    assert theory.utility(1.0, 0.0) == 0
    assert theory.utility(1.0, 1e-6) == pytest.approx(0, abs=1e-9)
    assert theory.utility(math.pi, 1.0) == math.inf


def test_utility_is_a_ratio_of_errors():
    phi, length = 2.2, 0.8
    x = length * np.array([1.0, 0, 0])
    y = length * np.array([math.cos(phi), math.sin(phi), 0])
    for m in (1, 5):
        ratio = theory.mse_trig(x, y, m) / theory.mse_positive(x, y, m)
        assert theory.utility(phi, length) == pytest.approx(ratio, rel=1e-12)


@pytest.mark.parametrize("projection", list(Projection)[:3], ids=lambda p: p.name)
@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_those_of_the_closed_forms(name, projection):
    apply, closed = ERRORS[name]
    x, y = pairs()
    squares = (estimates(apply, x, y, directions(projection)) - exact(x, y)) ** 2
    mean, error = mean_and_error(squares)
    expected = closed(x.astype(np.float64), y.astype(np.float64), D, projection)
    # Where the estimate is exact, float32 leaves 1e-6 of its size, squared.
    assert np.all(np.abs(mean - expected) < 4 * error + 1e-11)
    assert np.all(error < 0.05 * expected + 1e-11)


@pytest.mark.parametrize("signs", [1, 6])
def test_the_error_of_the_angular_hybrid(signs):
    x, y = pairs(longest=0.6)
    draws = 60_000
    omega = directions(Projection.iid, draws, 2)
    tau = directions(Projection.iid, draws, signs, seed=4)
    squares = (estimates(maps.angular, x, y, omega, tau) - exact(x, y)) ** 2
    mean, error = mean_and_error(squares)
    expected = theory.mse_angular(x, y, 2, signs)
    assert np.all(np.abs(mean - expected) < 4 * error + 1e-11)
    assert np.all(error < 0.1 * expected + 1e-11)


@pytest.mark.parametrize("projection", list(Projection)[:3], ids=lambda p: p.name)
@pytest.mark.parametrize("name", ["positive", "hyperbolic", "trig", "oprf"])
def test_errors_fall_as_one_over_m(name, projection):
    apply, closed = ERRORS[name]
    x, y = (z[2:] for z in pairs())  # the first two are exact for some
    for m in (4, 16, 64):
        draws = 160_000 // m
        omega = directions(projection, draws, m)
        squares = (estimates(apply, x, y, omega) - exact(x, y)) ** 2
        mean, error = mean_and_error(squares)
        expected = closed(x, y, 4, projection) * 4 / m
        assert np.all(np.abs(mean - expected) < 4 * error)
        assert np.all(error < 0.1 * expected)


def grid(d):
    """Pairs of all norms up to 1 and all angles in d dimensions, f64[N, d] each."""
    norms, angles = np.linspace(0.05, 1, 6), np.linspace(0, np.pi, 13)
    a, b, phi = (z.ravel() for z in np.meshgrid(norms, norms, angles))
    x, y = np.zeros((2, len(a), d))
    x[:, 0] = a
    y[:, 0], y[:, 1] = b * np.cos(phi), b * np.sin(phi)
    return x, y


@pytest.mark.parametrize("d", [2, 3, 4, 8, 16])
def test_orthogonal_is_never_worse_than_iid_nor_simplex_than_orthogonal(d):
    x, y = grid(d)
    for m in (2, d, 2 * d + 1):
        for name in ("positive", "oprf", "hyperbolic", "trig"):
            closed = ERRORS[name][1]
            free, right, wide = (
                closed(x, y, m, projection)
                for projection in (
                    *(Projection.iid, Projection.orthogonal),
                    Projection.simplex,
                )
            )
            slack = 1e-12 * free
            assert np.all(right <= free + slack)
            assert np.mean(right < 0.999 * free) > 0.3  # and often better
            if name in ("positive", "oprf"):
                assert np.all(wide <= right + slack)
                assert np.any(wide < 0.99 * right)
            else:
                assert np.all(wide >= right - slack)


def test_tilt_has_the_least_variance():
    x, y = pairs(longest=1.0)
    for i in range(2, 6):
        spread = float(np.sum((x[i] + y[i]) ** 2))
        best = float(maps.tilt(spread, D))
        least = theory.mse_oprf(x[i], y[i], 1, best)
        assert best < 0
        for other in (0.5 * best, 0.9 * best, 1.1 * best, 2 * best, 0.0):
            assert theory.mse_oprf(x[i], y[i], 1, other) > least
    assert float(maps.tilt(0.0, D)) == 0


def test_pairs_of_orthogonal_directions_have_a_closed_form():
    # 1F1(4; 2; u) = e^u (1 + u + u^2 / 6) at u = t / 2 in 4 dimensions.
    for t in (0.5, 1.0, 6.0, -1.0, -8.0):
        u = t / 2
        expected = math.exp(u) * (1 + u + u * u / 6)
        coupled = theory._coupled(np.array(t), 4, 0.0)
        assert coupled == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("projection", list(Projection)[:2], ids=lambda p: p.name)
def test_a_part_of_a_block_has_the_pairs_that_it_has(projection):
    x, y = pairs(longest=0.8)
    omega = directions(projection, 40_000, 8)[:, :6]  # a block of 4 and a half
    squares = (estimates(maps.trig, x, y, omega) - exact(x, y)) ** 2
    mean, error = mean_and_error(squares)
    expected = theory.mse_trig(x, y, 6, projection)
    assert np.all(np.abs(mean - expected) < 4 * error + 1e-11)
    whole = theory.mse_trig(x, y, 4, projection) * 4 / 6
    assert np.any(np.abs(mean - whole) > 8 * error)  # seen by this test
