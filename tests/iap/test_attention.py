import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import Design, Kernel, Projection, exact_scores, feature_map, linear_scores
from iap.attention import centre

D = 4
MAPS = {
    "relu": feature_map(Kernel.relu, Design(D)),
    "relu plain": feature_map(Kernel.relu, Design(D, projection=Projection.none)),
    "positive": feature_map(Kernel.positive, Design(D)),
    "positive iid": feature_map(Kernel.positive, Design(D, projection=Projection.iid)),
    "positive m=1": feature_map(Kernel.positive, Design(D, features=1)),
    "taylor 2": feature_map(Kernel.taylor, Design(D, order=2)),
    "taylor 4": feature_map(Kernel.taylor, Design(D, order=4)),
}
CASES = [
    (name, normalised, centred)
    for name in MAPS
    for normalised in (True, False)
    for centred in ((False,) if name.startswith("relu") else (False, True))
]


def tokens(length=50, scale=1.0, offset=1.0):
    """Queries and keys whose means are not zero, as those of images are not."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((2, length, D))
    mean = offset * rng.standard_normal((2, 1, D))
    return tuple(jnp.asarray(z, jnp.float32) for z in scale * (spread + mean))


def explicit(queries, keys, name, normalised, centred):
    """The same scores from the explicit L x L matrix, in float64 logarithms."""
    q, k = (np.asarray(z, np.float64) for z in (queries, keys))
    factors = 0.0
    if centred:
        a, b = q.mean(0), k.mean(0)
        factors = (q @ b)[:, None] + ((k - b) @ a)[None, :]  # log u_i + log w_j
        queries, keys = (jnp.asarray(z, jnp.float32) for z in (q - a, k - b))
    phi, psi = MAPS[name](queries, keys)
    value = [np.asarray(f.value, np.float64) for f in (phi, psi)]
    exponent = [np.asarray(f.exponent, np.float64) for f in (phi, psi)]
    shift = [e.max(axis=1, keepdims=True) for e in exponent]
    q, k = (v * np.exp(e - s) for v, e, s in zip(value, exponent, shift, strict=True))
    log = np.log(q @ k.T) + shift[0] + shift[1].T + factors
    log -= log.max(axis=1, keepdims=True) if normalised else log.max()
    matrix = np.exp(log)
    if normalised:
        return (matrix / matrix.sum(axis=1, keepdims=True)).sum(axis=0)
    return matrix.sum(axis=0) / matrix.mean(axis=0).sum()


@pytest.mark.parametrize(("name", "normalised", "centred"), CASES)
def test_equals_the_explicit_matrix(name, normalised, centred):
    queries, keys = tokens()
    actual = linear_scores(
        queries, keys, MAPS[name], normalised=normalised, centred=centred
    )
    expected = explicit(queries, keys, name, normalised, centred)
    assert actual.dtype == jnp.float32
    # Sums of L M positive float32 terms in another order, exponents of size ~10:
    # (10 + sqrt(L M)) * 2^-23 is 1e-5; Taylor's terms may cancel some digits more.
    np.testing.assert_allclose(actual, expected, rtol=2e-4)
    np.testing.assert_allclose(actual.sum(), len(queries), rtol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_exact_scores(normalised):
    queries, keys = tokens()
    logits = np.asarray(queries, np.float64) @ np.asarray(keys, np.float64).T
    matrix = np.exp(logits)
    if normalised:
        matrix /= matrix.sum(axis=1, keepdims=True)
    expected = matrix.sum(axis=0) * len(queries) / matrix.sum()
    actual = exact_scores(queries, keys, normalised=normalised)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_centring_is_an_identity_of_exp():
    queries, keys = tokens()
    q, k, log_u, log_w = (np.asarray(z, np.float64) for z in centre(queries, keys))
    np.testing.assert_allclose(q.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(k.mean(0), 0, atol=1e-6)
    logits = np.asarray(queries, np.float64) @ np.asarray(keys, np.float64).T
    # Logits below 30 in size, each part rounded to float32: 30 * 2^-23 per part.
    np.testing.assert_allclose(log_u + log_w.T + q @ k.T, logits, atol=2e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_centred_taylor_approaches_exact_scores(normalised):
    queries, keys = tokens(scale=0.25)
    q, k, _, _ = centre(queries, keys)
    size = float(jnp.max(jnp.abs(q @ k.T)))
    exact = exact_scores(queries, keys, normalised=normalised)
    for order in (2, 4, 6):
        features = feature_map(Kernel.taylor, Design(D, order=order))
        scores = linear_scores(
            queries, keys, features, normalised=normalised, centred=True
        )
        # Relative error of one entry: the series' remainder t^(N+1) / (N+1)! e^t over
        # e^-t; numerator and row sum both have it.
        remainder = size ** (order + 1) / math.factorial(order + 1) * math.exp(2 * size)
        np.testing.assert_allclose(scores, exact, rtol=2.5 * remainder + 1e-5)
    assert remainder < 1e-4


def test_centring_makes_positive_features_more_faithful():
    queries, keys = tokens(length=100, scale=0.3, offset=10.0)
    exact = np.asarray(exact_scores(queries, keys))

    def error(seed, centred):
        features = feature_map(Kernel.positive, Design(D, seed=seed))
        scores = linear_scores(queries, keys, features, centred=centred)
        return np.abs(np.asarray(scores) - exact).mean()

    raw, centred = (np.mean([error(s, c) for s in range(5)]) for c in (False, True))
    assert centred < raw / 3


@pytest.mark.parametrize("name", MAPS)
def test_permuting_patches_permutes_scores(name):
    queries, keys = tokens()
    order = np.random.default_rng(2).permutation(len(queries))
    centred = not name.startswith("relu")
    scores = linear_scores(queries, keys, MAPS[name], centred=centred)
    permuted = linear_scores(queries[order], keys[order], MAPS[name], centred=centred)
    np.testing.assert_allclose(permuted, scores[order], rtol=1e-4)  # sums reordered


def implicit(name, normalised, centred):
    return jax.jit(
        lambda queries, keys: linear_scores(
            queries, keys, MAPS[name], normalised=normalised, centred=centred
        )
    )


@pytest.mark.parametrize(("name", "normalised", "centred"), CASES)
def test_float32_from_tiny_weights_to_large_logits(name, normalised, centred):
    score = implicit(name, normalised, centred)
    for scale in (1e-20, 2.0, 30.0):
        queries, keys = tokens(scale=scale)
        scores = np.asarray(score(queries, keys))
        assert np.all(np.isfinite(scores))
        assert np.all(scores >= 0)
        # Taylor's terms of magnitude (|q| |k|)^N partly cancel within a row's sum.
        np.testing.assert_allclose(scores.sum(), len(queries), rtol=1e-3)
        if scale == 2.0:
            assert 60 < float(jnp.max(jnp.abs(queries @ keys.T))) < 100
            expected = explicit(queries, keys, name, normalised, centred)
            # Exponents of up to 100 leave 100 * 2^-24 = 6e-6 as relative error of an
            # exp, and each score depends on several; far below the mean it may
            # underflow.
            np.testing.assert_allclose(scores, expected, rtol=5e-4, atol=1e-28)


@pytest.mark.parametrize(
    ("name", "normalised", "centred"),
    [case for case in CASES if case[0] != "taylor 4"],  # 10 s of compilation
)
def test_gradients(name, normalised, centred):
    rng = np.random.default_rng(3)
    upstream = jnp.asarray(rng.standard_normal(20), jnp.float32)

    def matrix_scores(queries, keys):
        factors = 1.0
        if centred:
            queries, keys, log_u, log_w = centre(queries, keys)
            factors = jnp.exp(log_u + log_w.T)
        phi, psi = (f.value * jnp.exp(f.exponent) for f in MAPS[name](queries, keys))
        matrix = phi @ psi.T * factors
        if normalised:
            matrix = matrix / jnp.sum(matrix, axis=1, keepdims=True)
        scores = jnp.sum(matrix, axis=0)
        return scores / jnp.mean(scores)

    def gradient(scores):
        return jax.grad(lambda *z: jnp.sum(upstream * scores(*z)), argnums=(0, 1))

    actual = jax.jit(gradient(implicit(name, normalised, centred)))
    assert all(np.all(np.isfinite(g)) for g in actual(*tokens(length=20, scale=30.0)))
    moderate = tokens(length=20, scale=0.5)  # the explicit matrix needs no stabiliser
    expected = jax.jit(gradient(matrix_scores))(*moderate)
    for a, e in zip(actual(*moderate), expected, strict=True):
        # Differences of float32 terms whose size is that of a score, about 1.
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-5)


def sizes(jaxpr):
    """Sizes of all arrays made in a jaxpr and in those inside it."""
    for eqn in jaxpr.eqns:
        yield from (var.aval.size for var in eqn.outvars)
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from sizes(inner)


@pytest.mark.parametrize(("name", "normalised", "centred"), CASES)
def test_no_quadratic_array(name, normalised, centred):
    length = 331
    queries, keys = tokens(length=length)

    def total(queries, keys):
        scores = linear_scores(
            queries, keys, MAPS[name], normalised=normalised, centred=centred
        )
        return jnp.sum(scores**2)

    jaxpr = jax.make_jaxpr(jax.value_and_grad(total))(queries, keys)
    assert max(sizes(jaxpr.jaxpr)) <= length * 70  # 70 features at most


def test_the_exact_twin_does_have_a_quadratic_array():
    queries, keys = tokens(length=331)
    assert max(sizes(jax.make_jaxpr(exact_scores)(queries, keys).jaxpr)) == 331**2
