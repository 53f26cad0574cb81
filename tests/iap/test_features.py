import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import (
    Design,
    EncoderConfig,
    Kernel,
    Norms,
    Projection,
    feature_map,
    linear_scores,
    measure_balance,
    measure_spread,
)
from iap.attention import centre
from iap.features import REGISTRY, directions

KERNELS = pytest.mark.parametrize("kernel", REGISTRY, ids=lambda k: k.name)
EXPONENTIAL = [kernel for kernel, entry in REGISTRY.items() if entry.exponential]
SIGNED = [Kernel.trig, Kernel.angular]


def tokens(length=50, scale=1.0, depth=4, seed=0):
    """Queries and keys whose means are not zero, as those of images are not."""
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal((2, length, depth)) + rng.standard_normal(
        (2, 1, depth)
    )
    return tuple(jnp.asarray(scale * z, jnp.float32) for z in spread)


def small(depth=4, **settings):
    """Fewer features than usual, where angular would have thousands."""
    return Design(depth, **{"features": 16, "signs": 4, **settings})


def multiplied_out(features):
    value, exponent = (np.asarray(part, np.float64) for part in features)
    return value * np.exp(exponent)


def test_the_registry_has_every_kernel_but_the_exact_one():
    assert set(REGISTRY) == set(Kernel) - {Kernel.exact}


@KERNELS
def test_maps_say_what_they_are(kernel):
    x, y = tokens(scale=0.7)
    features = feature_map(kernel, small(features=8))
    phi, psi = map(multiplied_out, features(x, y))
    assert phi.shape == psi.shape
    assert features.positive is bool(np.all(phi @ psi.T > 0))
    assert features.positive is (kernel not in SIGNED)

    # Rowwise: a row's features are the same in other company.
    x_alone, y_alone = (z[:7] for z in (x, y))
    alone = [multiplied_out(f) for f in features(x_alone, y_alone)]
    same = all(
        np.allclose(a, b[:7], rtol=1e-5) for a, b in zip(alone, (phi, psi), strict=True)
    )
    assert features.rowwise is same
    assert features.rowwise is (kernel not in (Kernel.oprf, Kernel.saderf))


@KERNELS
def test_estimators_of_exp_approach_it(kernel):
    x, y = tokens(scale=0.3)
    x, y, _, _ = centre(x, y)
    design = Design(4, features=4096, order=4, signs=4)
    if kernel is Kernel.angular:
        design = design._replace(features=256)
    features = feature_map(kernel, design)
    exact = np.exp(np.asarray(x @ y.T, np.float64))
    phi, psi = map(multiplied_out, features(x, y))
    apart = np.abs(phi @ psi.T - exact).mean()
    # The Monte-Carlo error of 256 directions is a few hundredths; relu and elu are
    # other kernels.
    assert bool(apart < 0.05) is features.exponential is (kernel in EXPONENTIAL)


@pytest.mark.parametrize("kernel", [Kernel.oprf, Kernel.saderf])
def test_constants_fixed_for_the_run_are_those_measured_before(kernel):
    x, y = tokens()
    psi = measure_balance(x, y) if kernel is Kernel.saderf else jnp.ones(4)
    spread = float(measure_spread(x * psi[None], y / psi[None]))
    balance = tuple(map(float, psi)) if kernel is Kernel.saderf else ()
    measured = feature_map(kernel, small())
    fixed = feature_map(kernel, small(spread=spread, balance=balance))
    assert fixed.rowwise
    for a, b in zip(measured(x, y), fixed(x, y), strict=True):
        np.testing.assert_allclose(a.exponent, b.exponent, atol=2e-5)
    x = x * 2  # another frame
    other, same = measured(x, y)[0].exponent, fixed(x, y)[0].exponent
    assert np.abs(other - same).max() > 0.1


def test_saderf_needs_both_constants_to_be_rowwise():
    for changes in ({"spread": 1.0}, {"balance": (1.0,) * 4}):
        assert not feature_map(Kernel.saderf, small(**changes)).rowwise


@pytest.mark.parametrize("projection", list(Projection)[:3], ids=lambda p: p.name)
def test_a_seed_names_the_draw(projection):
    first, again, other = (
        directions(small(seed=seed, projection=projection)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_the_signs_of_angular_are_independent_of_its_other_directions():
    omega, tau = REGISTRY[Kernel.angular].constants(small(signs=16))
    assert omega.shape == tau.shape == (16, 4)
    assert np.abs(omega - tau).min() > 1e-4


@KERNELS
def test_low_precision_is_taken_up_to_float32(kernel):
    x, y = (z.astype(jnp.bfloat16) for z in tokens())
    features = feature_map(kernel, small())
    for low, full in zip(
        features(x, y),
        features(x.astype(jnp.float32), y.astype(jnp.float32)),
        strict=True,
    ):
        assert low.value.dtype == low.exponent.dtype == jnp.float32
        np.testing.assert_array_equal(low.value, full.value)
        np.testing.assert_array_equal(low.exponent, full.exponent)


# --- through attention --------------------------------------------------------------


@KERNELS
@pytest.mark.parametrize("normalised", [True, False])
def test_scores_are_finite_from_tiny_weights_to_large_logits(kernel, normalised):
    features = feature_map(kernel, small())

    def total(x, y):
        scores = linear_scores(x, y, features, normalised=normalised)
        weights = jnp.cos(jnp.arange(50.0))
        return jnp.sum(weights * scores), scores

    gradient = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    for scale in (0.0, 1e-20, 1.0, 2.0, 30.0):
        x, y = tokens(scale=scale)
        gradients, scores = gradient(x, y)
        assert all(np.all(np.isfinite(g)) for g in (*gradients, scores))
        if features.positive:
            assert np.all(scores >= 0)
            np.testing.assert_allclose(scores.sum(), 50, rtol=1e-3)
        if scale == 2.0:
            assert float(jnp.max(jnp.abs(x @ y.T))) > 60
        if scale == 1e-20:  # exp(0), relu's constant, or elu(0) + 1 of all alike
            np.testing.assert_allclose(scores, 1, rtol=1e-5)


@pytest.mark.parametrize("kernel", SIGNED, ids=lambda k: k.name)
def test_a_row_whose_sum_is_not_positive_has_no_say(kernel):
    x, y = tokens(scale=1.2)
    features = feature_map(kernel, small(features=4))
    phi, psi = map(multiplied_out, features(x, y))
    kept = (phi @ psi.sum(axis=0)) > 0
    assert 0 < kept.sum() < 50
    scores = linear_scores(x, y, features)
    np.testing.assert_allclose(scores.sum(), kept.sum(), rtol=1e-3)


def test_the_encoder_hands_its_settings_on():
    balance = [0.5, 1.0, 1.5, 2.0]  # a list, as the command line makes it
    settings = {"spread": 2.0, "norms": Norms.chi, "projection": Projection.simplex}
    config = EncoderConfig(kernel=Kernel.saderf, balance=balance, seed=3, **settings)
    assert config.design == Design(4, seed=3, balance=tuple(balance), **settings)
    assert isinstance(hash(config), int)
    with pytest.raises(ValueError, match=r"balance=.* must be depth=4 positive"):
        EncoderConfig(kernel=Kernel.saderf, balance=balance[:3])
    with pytest.warns(UserWarning, match="norms=sqrt_d at depth=4"):
        EncoderConfig(kernel=Kernel.oprf, norms=Norms.sqrt_d)


# --- refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        (Kernel.positive, {"features": 0}, "features=0 must be at least 1"),
        (Kernel.taylor, {"depth": 0}, "depth=0 must be at least 1"),
        (Kernel.positive, {"seed": -1}, "seed=-1 must be at least 0"),
        (Kernel.relu, {"features": -3}, "features=-3 must be at least 1"),
        (Kernel.angular, {"signs": 0}, "signs=0 must be at least 1"),
        (Kernel.positive, {"projection": Projection.none}, "projection=none goes with"),
        (
            Kernel.trig,
            {"depth": 1, "projection": Projection.simplex},
            "depth=1 must be",
        ),
        (Kernel.taylor, {"order": 3}, "order=3 must be even"),
        (Kernel.taylor, {"order": 0}, "order=0 must be even and at least 2"),
        (Kernel.oprf, {"spread": -1.0}, "spread=-1.0 must be a mean of squares"),
        (Kernel.saderf, {"spread": float("nan")}, "spread=nan must be a mean"),
        (Kernel.saderf, {"balance": (1.0, 2.0)}, "balance=.* must be depth=4 positive"),
        (
            Kernel.saderf,
            {"balance": (1.0, 2.0, 0.0, 1.0)},
            "balance=.* must be depth=4",
        ),
        (Kernel.exact, {}, "kernel=exact has no features; use exact_scores"),
    ],
)
def test_refusals(kernel, changes, message):
    with pytest.raises(ValueError, match=message):
        feature_map(kernel, Design(**{"depth": 4, **changes}))


@KERNELS
def test_refuses_tokens_that_do_not_fit(kernel):
    features = feature_map(kernel, small())
    x, y = tokens()
    with pytest.raises(ValueError, match=r"keys have shape \(50, 3\); expected"):
        features(x, y[:, :3])
    with pytest.raises(ValueError, match=r"queries have shape \(1, 50, 4\); expected"):
        features(x[None], y)
    with pytest.raises(ValueError, match="queries have dtype int32; expected float32"):
        features(x.astype(jnp.int32), y)


def test_fixed_norms_warn_where_they_bias():
    fixed = small(norms=Norms.sqrt_d)
    for kernel in EXPONENTIAL:
        if kernel is Kernel.taylor:  # has no directions
            feature_map(kernel, fixed)
        else:
            with pytest.warns(UserWarning, match="depth=4 .* estimate 66% of exp"):
                feature_map(kernel, fixed)
    feature_map(Kernel.relu, fixed)  # estimates no exp
    feature_map(Kernel.positive, small(depth=64, norms=Norms.sqrt_d))
