import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import (
    Design,
    Kernel,
    exact_attention,
    exact_scores,
    feature_map,
    linear_attention,
    linear_scores,
    shifted,
)
from iap.attention import BLOCK, centre
from iap.features import REGISTRY
from tests.iap.matrices import (
    MAPS,
    MOST,
    POSITIVE,
    ROWWISE,
    D,
    array_sizes,
    matrix,
    means,
    size,
    temporary_bytes,
    tokens,
    values,
)


def with_centring(names):
    return [
        (name, centred)
        for name in names
        for centred in ((False, True) if MAPS[name].exponential else (False,))
    ]


def with_both(names):
    return [
        (name, normalised, centred)
        for name, centred in with_centring(names)
        for normalised in (True, False)
    ]


def sample(names):
    """What an encoder does with each map, and every combination of settings for two."""
    return [
        (name, normalised, centred)
        for name, normalised, centred in with_both(names)
        if (normalised and centred == MAPS[name].exponential)
        or name in ("positive", "taylor 2")
    ]


def scores_of(name, normalised, centred, chunk=None):
    return jax.jit(
        lambda queries, keys: linear_scores(
            queries,
            keys,
            MAPS[name],
            normalised=normalised,
            centred=centred,
            chunk=chunk,
        )
    )


def explicit_scores(queries, keys, name, normalised, centred):
    shifts = means(queries, keys) if centred else None
    rows, top = matrix(queries, keys, name, shifts)
    if normalised:
        return (rows / rows.sum(axis=1, keepdims=True)).sum(axis=0)
    scores = (rows * np.exp(top - top.max())).sum(axis=0)
    return scores / scores.mean()


def test_every_kernel_is_tested():
    assert {kernel.value for kernel in REGISTRY} == {name.split()[0] for name in MAPS}


@pytest.mark.parametrize(("name", "normalised", "centred"), with_both(MAPS))
def test_scores_equal_the_explicit_matrix(name, normalised, centred):
    queries, keys = tokens(scale=size(name))
    actual = scores_of(name, normalised, centred)(queries, keys)
    expected = explicit_scores(queries, keys, name, normalised, centred)
    assert actual.dtype == jnp.float32
    # Sums of L M float32 terms in another order, exponents of size ~10:
    # (10 + sqrt(L M)) * 2^-23 is 1e-5; the terms of taylor, trig and angular cancel
    # some digits more.
    np.testing.assert_allclose(actual, expected, rtol=2e-4)
    np.testing.assert_allclose(actual.sum(), len(queries), rtol=1e-5)


@pytest.mark.parametrize(("name", "centred"), with_centring(MAPS))
def test_attention_equals_the_explicit_matrix(name, centred):
    queries, keys = tokens(scale=size(name))
    rows, _ = matrix(queries, keys, name, means(queries, keys) if centred else None)
    expected = rows / rows.sum(axis=1, keepdims=True) @ np.asarray(values(), np.float64)
    attend = jax.jit(
        lambda *z: linear_attention(*z, features=MAPS[name], centred=centred)
    )
    actual = attend(queries, keys, values())
    assert actual.dtype == jnp.float32
    # As above; an average of values of either sign has the error of their size, 1.
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("normalised", [True, False])
def test_centring_equals_shifting_by_the_means(normalised):
    queries, keys = tokens()
    a, b = (jnp.mean(z, axis=0) for z in (queries, keys))
    for name in ("positive", "taylor 2"):
        by_means = scores_of(name, normalised, centred=True)(queries, keys)
        by_shifts = linear_scores(
            queries, keys, shifted(MAPS[name], a, b), normalised=normalised
        )
        np.testing.assert_allclose(by_means, by_shifts, rtol=1e-4)  # rounding, as above


def test_centring_is_an_identity_of_exp():
    queries, keys = tokens()
    q, k, log_u, log_w = (np.asarray(z, np.float64) for z in centre(queries, keys))
    np.testing.assert_allclose(q.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(k.mean(0), 0, atol=1e-6)
    logits = np.asarray(queries, np.float64) @ np.asarray(keys, np.float64).T
    # Logits below 30 in size, each part rounded to float32: 30 * 2^-23 per part.
    np.testing.assert_allclose(log_u + log_w.T + q @ k.T, logits, atol=2e-5)


def test_shifts_change_no_expectation():
    """Over many directions, the estimates of exp(q . k) around any vectors agree."""
    queries, keys = tokens(length=6, scale=0.4)
    features = feature_map(Kernel.positive, Design(D, features=200_000))
    shift = np.array([0.2, -0.3, 0.1, 0.0], np.float32)
    phi, psi = (
        np.exp(np.asarray(f.exponent, np.float64))
        for f in shifted(features, shift, -shift)(queries, keys)
    )
    exact = np.exp(np.asarray(queries, np.float64) @ np.asarray(keys, np.float64).T)
    # Relative variance of one direction's estimate: below exp(|q + k|^2) - 1, 400 for
    # the largest |q + k|^2 of 6 here; 4 standard errors of 200,000 are .18.
    np.testing.assert_allclose(phi @ psi.T, exact, rtol=0.18)


@pytest.mark.parametrize("name", ["relu", "elu"])
def test_refuses_to_centre_what_estimates_no_exp(name):
    queries, keys = tokens()
    message = r"centring \(centred=True, or shifts\) .* do not estimate exp\(q \. k\)"
    with pytest.raises(ValueError, match=message):
        linear_scores(queries, keys, MAPS[name], centred=True)
    with pytest.raises(ValueError, match=message):
        linear_attention(queries, keys, values(), MAPS[name], centred=True)
    with pytest.raises(ValueError, match=message):
        shifted(MAPS[name], np.zeros(D), np.zeros(D))


@pytest.mark.parametrize("normalised", [True, False])
def test_centred_taylor_approaches_exact_scores(normalised):
    queries, keys = tokens(scale=0.25)
    q, k, _, _ = centre(queries, keys)
    largest = float(jnp.max(jnp.abs(q @ k.T)))
    exact = exact_scores(queries, keys, normalised=normalised)
    for order in (2, 4, 6):
        features = feature_map(Kernel.taylor, Design(D, order=order))
        scores = linear_scores(
            queries, keys, features, normalised=normalised, centred=True
        )
        # Relative error of one entry: the series' remainder t^(N+1) / (N+1)! e^t over
        # e^-t; numerator and row sum both have it.
        remainder = largest ** (order + 1) / math.factorial(order + 1)
        remainder *= math.exp(2 * largest)
        np.testing.assert_allclose(scores, exact, rtol=2.5 * remainder + 1e-5)
    assert remainder < 1e-4
    # An average of values no larger than 3 moves by no more than its weights do.
    np.testing.assert_allclose(
        linear_attention(queries, keys, values(), features, centred=True),
        exact_attention(queries, keys, values()),
        atol=3 * 2.5 * remainder + 1e-5,
    )


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
def test_permuting_patches_permutes_what_they_get(name):
    queries, keys = tokens(scale=size(name))
    order = np.random.default_rng(2).permutation(len(queries))
    centred = MAPS[name].exponential

    def score(q, k):
        return linear_scores(q, k, MAPS[name], centred=centred)

    def attend(q, k, v):
        return linear_attention(q, k, v, MAPS[name], centred=centred)

    # Sums reordered.
    np.testing.assert_allclose(
        score(queries[order], keys[order]), score(queries, keys)[order], rtol=1e-4
    )
    np.testing.assert_allclose(
        attend(queries[order], keys[order], values()[order]),
        attend(queries, keys, values())[order],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(("name", "normalised", "centred"), sample(POSITIVE))
def test_float32_from_tiny_weights_to_large_logits(name, normalised, centred):
    score = scores_of(name, normalised, centred)
    for scale, sign in ((1e-20, 1), (2.0, 1), (2.0, -1), (30.0, 1)):
        queries, keys = tokens(scale=scale)
        keys = sign * keys  # the largest logits are positive, or negative
        scores = np.asarray(score(queries, keys))
        assert np.all(np.isfinite(scores))
        assert np.all(scores >= 0)
        # Taylor's terms of magnitude (|q| |k|)^N partly cancel within a row's sum.
        np.testing.assert_allclose(scores.sum(), len(queries), rtol=1e-3)
        if scale == 2.0:
            assert 60 < float(jnp.max(sign * (queries @ keys.T))) < 100
            expected = explicit_scores(queries, keys, name, normalised, centred)
            # Exponents of up to 100 leave 100 * 2^-24 = 6e-6 as relative error of an
            # exp, and each score depends on several; far below the mean it may
            # underflow.
            np.testing.assert_allclose(scores, expected, rtol=5e-4, atol=1e-28)
        if MAPS[name].rowwise and name in ("relu", "positive", "taylor 2"):
            blocks = scores_of(name, normalised, centred, 7)(queries, keys)
            # As above, and Taylor's sums in another order.
            np.testing.assert_allclose(blocks, scores, rtol=1e-3, atol=1e-28)


@pytest.mark.parametrize("name", POSITIVE)
def test_attention_in_float32_from_tiny_weights_to_large_logits(name):
    centred = MAPS[name].exponential
    attend = jax.jit(
        lambda *z: linear_attention(*z, features=MAPS[name], centred=centred)
    )
    for scale in (1e-20, 2.0, 30.0):
        queries, keys = tokens(scale=scale)
        out = np.asarray(attend(queries, keys, values()))
        largest = np.abs(np.asarray(values())).max()
        # Averages of values; Taylor's sums cancel some digits.
        assert np.all(np.abs(out) <= largest * (1 + 1e-3))
        if scale == 2.0:
            shifts = means(queries, keys) if centred else None
            rows, _ = matrix(queries, keys, name, shifts)
            expected = rows / rows.sum(axis=1, keepdims=True) @ np.asarray(values())
            np.testing.assert_allclose(out, expected, atol=5e-4 * largest)  # as above


@pytest.mark.parametrize("name", ["trig", "angular"])
def test_rows_without_a_positive_sum_get_and_give_nothing(name):
    queries, keys = tokens(scale=2.0)
    rows, _ = matrix(queries, keys, name)
    sums = rows.sum(axis=1) / np.abs(rows).sum(axis=1)
    assert np.any(sums < -0.01)  # clear of rounding, both ways
    out = linear_attention(queries, keys, values(), MAPS[name])
    np.testing.assert_array_equal(out[sums < -0.01], 0)
    assert np.all(np.abs(out[sums > 0.01]).max(axis=1) > 0)
    for normalised in (True, False):
        plain = linear_scores(queries, keys, MAPS[name], normalised=normalised)
        assert np.all(np.isfinite(plain))
        blocks = linear_scores(
            queries, keys, MAPS[name], normalised=normalised, chunk=7
        )
        # Terms of either sign cancel; what is left is as large as the largest score.
        np.testing.assert_allclose(
            blocks, plain, atol=1e-3 * float(jnp.max(jnp.abs(plain)))
        )


# 10 s of compilation each
SLOW = ("taylor 4",)
UPSTREAM = np.random.default_rng(3).standard_normal((20, 3)).astype(np.float32)


def gradient(function, upstream, count):
    return jax.jit(
        jax.grad(
            lambda *z: jnp.sum(upstream * function(*z)), argnums=tuple(range(count))
        )
    )


def float32_matrix(queries, keys, name, centred):
    """The explicit matrix as JAX differentiates it, for logits that need no care."""
    factors = 1.0
    if centred:
        queries, keys, log_u, log_w = centre(queries, keys)
        factors = jnp.exp(log_u + log_w.T)
    phi, psi = (f.value * jnp.exp(f.exponent) for f in MAPS[name](queries, keys))
    return phi @ psi.T * factors


@pytest.mark.parametrize(
    ("name", "normalised", "centred"),
    sample([name for name in MAPS if name not in SLOW]),
)
def test_gradients_of_scores(name, normalised, centred):
    def explicit(queries, keys):
        rows = float32_matrix(queries, keys, name, centred)
        if normalised:
            rows = rows / jnp.sum(rows, axis=1, keepdims=True)
        scores = jnp.sum(rows, axis=0)
        return scores / jnp.mean(scores)

    actual = gradient(scores_of(name, normalised, centred), UPSTREAM[:, 0], 2)
    if MAPS[name].positive:
        large = actual(*tokens(length=20, scale=30.0))
        assert all(np.all(np.isfinite(g)) for g in large)
    moderate = tokens(length=20, scale=0.5 * size(name))
    expected = gradient(explicit, UPSTREAM[:, 0], 2)(*moderate)
    for a, e in zip(actual(*moderate), expected, strict=True):
        # Differences of float32 terms whose size is that of a score, about 1.
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in MAPS if name not in SLOW])
def test_gradients_of_attention(name):
    centred = MAPS[name].exponential

    def explicit(queries, keys, values):
        rows = float32_matrix(queries, keys, name, centred)
        return rows / jnp.sum(rows, axis=1, keepdims=True) @ values

    def implicit(queries, keys, values):
        return linear_attention(queries, keys, values, MAPS[name], centred=centred)

    actual = gradient(implicit, UPSTREAM, 3)
    if MAPS[name].positive:
        large = actual(*tokens(length=20, scale=30.0), values(20))
        assert all(np.all(np.isfinite(g)) for g in large)
    moderate = (*tokens(length=20, scale=0.5 * size(name)), values(20))
    expected = gradient(explicit, UPSTREAM, 3)(*moderate)
    for a, e in zip(actual(*moderate), expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-5)  # as above


@pytest.mark.parametrize(("name", "normalised", "centred"), with_both(MAPS))
def test_no_quadratic_array(name, normalised, centred):
    length = 601

    def total(queries, keys):
        score = scores_of(name, normalised, centred)
        return jnp.sum(score(queries, keys) ** 2)

    sizes = array_sizes(jax.value_and_grad(total), *tokens(length=length))
    assert max(sizes) <= length * MOST


@pytest.mark.parametrize(("name", "centred"), with_centring(MAPS))
def test_no_quadratic_array_in_attention(name, centred):
    length = 601

    def total(queries, keys, values):
        out = linear_attention(queries, keys, values, MAPS[name], centred=centred)
        return jnp.sum(out**2)

    arguments = (*tokens(length=length), values(length))
    gradients = jax.value_and_grad(total, argnums=(0, 1, 2))
    assert max(array_sizes(gradients, *arguments)) <= length * MOST


# Scores in blocks


@pytest.mark.parametrize(("name", "normalised", "centred"), sample(ROWWISE))
def test_blocks_change_no_score(name, normalised, centred):
    queries, keys = tokens(scale=size(name))
    expected = scores_of(name, normalised, centred)(queries, keys)
    # 7 does not divide 50, 50 is one block of a scan, 64 holds more than there is.
    for chunk in (7, 50, 64) if name == "positive" else (7,):
        actual = scores_of(name, normalised, centred, chunk)(queries, keys)
        # Sums in another order; terms of taylor, trig and angular cancel some digits.
        np.testing.assert_allclose(actual, expected, rtol=2e-4)


@pytest.mark.parametrize(
    ("name", "normalised", "centred"),
    # Constant, full and row exponents, of one sign or two.
    sample(["relu", "positive", "taylor 2", "trig"]),
)
def test_blocks_change_no_gradient(name, normalised, centred):
    plain = gradient(scores_of(name, normalised, centred), UPSTREAM[:, 0], 2)
    blocks = gradient(scores_of(name, normalised, centred, 8), UPSTREAM[:, 0], 2)
    moderate = tokens(length=20, scale=0.5 * size(name))
    for a, e in zip(blocks(*moderate), plain(*moderate), strict=True):
        # Differences of float32 terms whose size is that of a score, about 1.
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-5)
    if MAPS[name].positive:
        large = blocks(*tokens(length=20, scale=30.0))
        assert all(np.all(np.isfinite(g)) for g in large)


@pytest.mark.parametrize(("name", "normalised", "centred"), sample(ROWWISE))
def test_blocks_hold_features_of_one_block_only(name, normalised, centred):
    length, chunk = 3001, 32

    def total(queries, keys):
        scores = scores_of(name, normalised, centred, chunk)(queries, keys)
        return jnp.sum(scores**2)

    sizes = array_sizes(jax.value_and_grad(total, (0, 1)), *tokens(length=length))
    # Queries beside keys, 2 d numbers a patch; a block's features; a sum per block.
    assert max(sizes) <= max(length * 2 * D, chunk * MOST, length // chunk * MOST)


def test_blocks_hold_features_of_one_block_only_when_compiled():
    queries, keys = tokens(length=8192)
    gradients = [
        jax.value_and_grad(
            lambda *z, chunk=chunk: jnp.sum(
                scores_of("positive", True, True, chunk)(*z) ** 2
            )
        )
        for chunk in (8192, 64)
    ]
    plain, blocks = (temporary_bytes(g, queries, keys) for g in gradients)
    # Of 64 features a patch remain some 8 arrays as large as queries.
    assert blocks < 8 * queries.nbytes + 16 * 64 * 64 * 4
    assert plain > 4 * blocks


@pytest.mark.parametrize("name", ["relu", "oprf"])
def test_many_features_are_made_in_blocks_unless_all_are_needed(name):
    length = 9001  # times 64 features; the last block is shorter
    arguments = tokens(length=length, scale=0.5)
    sizes = array_sizes(scores_of(name, True, name == "oprf", None), *arguments)
    held = max(length * 2 * D, BLOCK)  # queries beside keys, or a block
    assert max(sizes) <= held if MAPS[name].rowwise else max(sizes) == length * 64


def test_blocks_of_many_features_change_no_score():
    queries, keys = tokens(length=9001, scale=0.5)
    blocks, whole = (
        scores_of("positive", True, True, chunk)(queries, keys)
        for chunk in (None, len(queries))
    )
    # Sums of 9001 terms in another order.
    np.testing.assert_allclose(blocks, whole, rtol=2e-4)


@pytest.mark.parametrize("name", ["oprf", "saderf"])
def test_blocks_refuse_constants_measured_on_all_tokens(name):
    with pytest.raises(ValueError, match=r"chunk does not go with .* spread"):
        linear_scores(*tokens(), MAPS[name], chunk=8)


def test_refuses_blocks_of_nothing():
    with pytest.raises(ValueError, match="chunk=0 must be at least 1 row"):
        linear_scores(*tokens(), MAPS["relu"], chunk=0)


# Input


@pytest.mark.parametrize(
    ("queries", "keys", "value", "message"),
    [
        ((0, 4), (0, 4), (0, 3), r"queries have shape \(0, 4\); .* at least one token"),
        ((2, 5, 4), (5, 4), (5, 3), r"queries have shape \(2, 5, 4\); expected \[L, d"),
        ((5, 4), (6, 4), (5, 3), "keys are 6 tokens, queries 5"),
        ((5, 4), (5, 3), (5, 3), r"queries \(5, 4\) and keys \(5, 3\) differ"),
        ((5, 4), (5, 4), (6, 3), "values are 6 tokens, queries 5"),
        ((5, 4), (5, 4), (5,), r"values have shape \(5,\)"),
    ],
)
def test_refusals(queries, keys, value, message):
    with pytest.raises(ValueError, match=message):
        linear_attention(
            jnp.zeros(queries), jnp.zeros(keys), jnp.zeros(value), MAPS["relu"]
        )


def test_refuses_shifts_of_another_length():
    features = shifted(MAPS["positive"], np.zeros(3), np.zeros(D))
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(4,\); .* need \(4,\)"):
        linear_scores(*tokens(), features)


def test_refuses_whole_numbers():
    whole = jnp.zeros((5, D), jnp.int32)
    with pytest.raises(ValueError, match="queries have dtype int32; expected floating"):
        linear_scores(whole, whole, MAPS["relu"])


@pytest.mark.parametrize("name", ["relu", "positive", "taylor 2"])
def test_bfloat16_tokens_are_summed_in_float32(name):
    queries, keys = (z.astype(jnp.bfloat16) for z in tokens())
    centred = MAPS[name].exponential
    scores = linear_scores(queries, keys, MAPS[name], centred=centred)
    rounded = [z.astype(jnp.float32) for z in (queries, keys)]
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(
        scores, linear_scores(*rounded, MAPS[name], centred=centred)
    )
