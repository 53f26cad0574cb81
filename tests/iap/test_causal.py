from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from iap import (
    CausalState,
    Design,
    Kernel,
    causal_attention,
    causal_start,
    causal_step,
    exact_attention,
    feature_map,
    shifted,
)
from tests.iap.matrices import (
    MAPS,
    MOST,
    POSITIVE,
    ROWWISE,
    D,
    array_sizes,
    matrix,
    size,
    temporary_bytes,
    tokens,
    values,
    width,
)

A = np.array([0.3, -0.2, 0.5, 0.1], np.float32)
B = np.array([-0.4, 0.1, 0.2, 0.6], np.float32)
CASES = [("positive", False)] + [
    (name, MAPS[name].exponential)
    for name in ROWWISE
    if name not in ("relu plain", "positive iid", "positive m=1")
]
CHUNKS = (10, 7, None)  # 7 does not divide 50


def chunks(name):
    """All that takes seconds to compile is left to some maps."""
    return CHUNKS if name in ("relu", "positive") else CHUNKS[:1]


def features_of(name, shift):
    return shifted(MAPS[name], A, B) if shift else MAPS[name]


def whole(name, shift=False, chunk=None):
    features = features_of(name, shift)
    return jax.jit(lambda q, k, v: causal_attention(q, k, v, features, chunk=chunk))


def by_steps(name, shift=False):
    """The same by a scan of steps, which JAX differentiates by itself."""
    features = features_of(name, shift)

    def run(queries, keys, values):
        start = causal_start(features, queries.shape[1], values.shape[1])
        return lax.scan(
            lambda state, token: causal_step(state, *token, features),
            start,
            (queries, keys, values),
        )[1]

    return jax.jit(run)


def explicit(queries, keys, values, name, shift):
    shifts = (A, B) if shift else None
    rows, _ = matrix(queries, keys, name, shifts, causal=True)
    return rows / rows.sum(axis=1, keepdims=True) @ np.asarray(values, np.float64)


@pytest.mark.parametrize(("name", "shift"), CASES)
def test_equals_the_explicit_triangle(name, shift):
    arguments = (*tokens(scale=size(name)), values())
    expected = explicit(*arguments, name, shift)
    for attend in (
        by_steps(name, shift),
        *(whole(name, shift, chunk) for chunk in chunks(name)),
    ):
        actual = attend(*arguments)
        assert actual.dtype == jnp.float32
        # Sums of L M float32 terms in another order, exponents of size ~10:
        # (10 + sqrt(L M)) * 2^-23 is 1e-5; the terms of taylor, trig and angular
        # cancel some digits more. An average has the error of the values' size, 1.
        np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-4)


def test_shifted_taylor_approaches_exact_attention():
    queries, keys = tokens(scale=0.25)
    features = feature_map(Kernel.taylor, Design(D, order=6))
    actual = causal_attention(queries, keys, values(), shifted(features, A / 4, B / 4))
    # |t| <= 1.5 around the shifts: the series leaves 1.5^7 / 7! e^1.5 of entries >=
    # e^-1.5, numerator and row sum both, of values up to 3.
    np.testing.assert_allclose(
        actual, exact_attention(queries, keys, values(), causal=True), atol=0.01
    )


@pytest.mark.parametrize(
    ("name", "shift"), [case for case in CASES if case[0] in POSITIVE]
)
def test_float32_from_tiny_weights_to_large_logits(name, shift):
    for attend in (by_steps(name, shift), whole(name, shift, 10)):
        for scale in (1e-20, 2.0, 30.0):
            arguments = (*tokens(scale=scale), values())
            out = np.asarray(attend(*arguments))
            largest = np.abs(np.asarray(values())).max()
            # Averages of values; Taylor's sums cancel some digits.
            assert np.all(np.abs(out) <= largest * (1 + 1e-3))
            if scale == 2.0:
                assert 60 < float(jnp.max(jnp.abs(arguments[0] @ arguments[1].T))) < 100
                expected = explicit(*arguments, name, shift)
                # Exponents of up to 100 leave 100 * 2^-24 = 6e-6 as relative error of
                # an exp, and each output depends on several.
                np.testing.assert_allclose(out, expected, atol=5e-4 * largest)


@pytest.mark.parametrize("name", ["relu", "positive", "taylor 2"])
def test_later_tokens_change_nothing_earlier(name):
    seen = 30
    arguments = (*tokens(scale=size(name)), values())
    # Silence and noise, of which one or the other has the larger features, to wipe out
    # earlier keys; and what is no number.
    later = [
        [z.at[seen:].set(f * z[seen:]) for z in arguments] for f in (0.0, 20.0, jnp.nan)
    ]
    for attend in (by_steps(name), *(whole(name, chunk=c) for c in CHUNKS)):
        expected = np.asarray(attend(*arguments))[:seen]
        assert np.all(np.isfinite(expected))
        for changed in later:
            np.testing.assert_array_equal(attend(*changed)[:seen], expected)
        changed = attend(*later[1])[seen:] - attend(*arguments)[seen:]
        assert np.abs(changed).max() > 0.01


@pytest.mark.parametrize("chunk", CHUNKS)
def test_earlier_outputs_give_later_tokens_no_gradient(chunk):
    seen = 30
    gradient = jax.grad(
        lambda *z: jnp.sum(whole("positive", True, chunk)(*z)[:seen] ** 2), (0, 1, 2)
    )
    for g in gradient(*tokens(), values()):
        np.testing.assert_array_equal(g[seen:], 0)
        assert np.all(np.abs(g[:seen]).max(axis=1) > 0)


UPSTREAM = np.random.default_rng(3).standard_normal((50, 3)).astype(np.float32)


def gradient(attend, upstream=UPSTREAM):
    return jax.jit(jax.grad(lambda *z: jnp.sum(upstream * attend(*z)), (0, 1, 2)))


@pytest.mark.parametrize(("name", "shift"), CASES)
def test_gradients_equal_those_of_the_steps(name, shift):
    by_itself = gradient(by_steps(name, shift))
    arguments = (*tokens(scale=0.5 * size(name)), values())
    expected = by_itself(*arguments)
    for chunk in chunks(name):
        blocks = gradient(whole(name, shift, chunk))
        for a, e in zip(blocks(*arguments), expected, strict=True):
            # Differences of float32 terms whose size is that of values, about 1.
            np.testing.assert_allclose(a, e, rtol=1e-3, atol=2e-5)
        if not MAPS[name].positive:
            continue
        for scale in (1e-20, 2.0, 30.0):  # logits of some 1e-40, 80 and 20,000
            large = (*tokens(scale=scale), values())
            pairs = zip(blocks(*large), by_itself(*large), strict=True)
            for a, e in pairs:
                assert np.all(np.isfinite(a))
                if scale == 2.0:
                    # Exponents up to 100 round by 6e-6; gradients are up to 100.
                    np.testing.assert_allclose(a, e, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("name", "shift"), [("relu", False), ("positive", True)])
@pytest.mark.parametrize("begun", [0, 12], ids=["at once", "in mid-episode"])
def test_goes_on_from_a_state_and_begins_anew_where_told(name, shift, begun):
    """As by steps, outputs and gradients, however blocks and episodes lie."""
    features = features_of(name, shift)
    arguments = (*tokens(scale=0.5 * size(name)), values())
    past, rest = (
        jax.tree.map(lambda x, cut=cut: x[cut], arguments)
        for cut in (slice(0, 9), slice(9, None))
    )
    start = causal_start(features, D, arguments[2].shape[1])
    state = lax.scan(lambda s, t: causal_step(s, *t, features), start, past)[0]
    first = jnp.zeros(len(rest[0]), bool).at[jnp.array([begun, 13, 14, 30])].set(True)

    def by_itself(*tokens):
        def step(state, token):
            *token, anew = token
            fresh = jax.tree.map(partial(jnp.where, anew), start, state)
            return causal_step(fresh, *token, features)

        return lax.scan(step, state, (*tokens, first))[1]

    def attend(*tokens):
        settings = {"chunk": 7, "state": state, "first": first}
        return causal_attention(*tokens, features, **settings)

    # As above.
    np.testing.assert_allclose(
        jax.jit(attend)(*rest), jax.jit(by_itself)(*rest), rtol=1e-4, atol=1e-5
    )
    upstream = UPSTREAM[: len(first)]
    slopes = (gradient(run, upstream)(*rest) for run in (attend, by_itself))
    for a, e in zip(*slopes, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=2e-5)


def test_a_prefix_that_a_later_key_dwarfs_keeps_its_gradient():
    queries, keys = tokens()
    keys = (8 * keys / jnp.linalg.norm(keys, axis=1, keepdims=True)).at[40].set(0.0)
    _, psi = MAPS["positive"](queries, keys)
    exponent = np.asarray(psi.exponent)
    # Added to the new key's, the earlier sums of some features leave no digit in
    # float32: subtracting it again would find nothing of them.
    assert (exponent[40] - exponent[:40].max(axis=0)).max() > 24 * np.log(2)
    expected = gradient(by_steps("positive"))(queries, keys, values())
    actual = gradient(whole("positive", chunk=7))(queries, keys, values())
    assert np.abs(expected[0][1:40]).max(axis=1).min() > 1e-3
    for a, e in zip(actual, expected, strict=True):
        # Exponents up to 50 round by 3e-6; gradients are up to 10 in size.
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param("positive", marks=pytest.mark.slow), "taylor 2"]
)
def test_long_sequences_do_not_drift(name):
    length = 20_032  # 313 blocks
    shift = MAPS[name].exponential
    arguments = (*tokens(length=length, scale=0.5), values(length))
    upstream = np.random.default_rng(5).standard_normal((length, 3))

    attend = whole(name, shift, 64)

    @jax.jit
    def both(upstream, *z):
        out, pull = jax.vjp(attend, *z)
        return out, *pull(upstream)

    arguments = (upstream.astype(np.float32), *arguments)
    actual = both(*arguments)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        expected = both(*(np.asarray(z, np.float64) for z in arguments))
    for a, e in zip(actual, expected, strict=True):
        assert e.dtype == jnp.float64
        error = np.abs(a - np.asarray(e)).max() / np.abs(e).max()
        assert error < 1e-5


def test_memory_is_that_of_a_block():
    length, chunk, most = 20_001, 16, 3

    for name, shift in CASES:
        gradients = jax.value_and_grad(
            lambda *z, name=name, shift=shift: jnp.sum(
                whole(name, shift, chunk)(*z) ** 2
            ),
            (0, 1, 2),
        )
        sizes = array_sizes(gradients, *tokens(length=length), values(length))
        # Queries, keys, values, what comes out, its gradient with a column more; the
        # prefixes of a block.
        assert max(sizes) <= max(length * (most + 1), chunk * width(name) * (most + 1))
    assert chunk * MOST * (most + 1) < length * (most + 1) / 4  # so the test can fail


@pytest.mark.slow
def test_memory_is_that_of_a_block_when_compiled():
    def temporary(length, chunk):
        gradients = jax.value_and_grad(
            lambda *z: jnp.sum(whole("positive", True, chunk)(*z) ** 2), (0, 1, 2)
        )
        arguments = (*tokens(length=length), values(length))
        return temporary_bytes(gradients, *arguments)

    # What grows with T is a few arrays as long as the inputs (11 numbers a token), not
    # 64 features or their sums, 256 numbers a token.
    growth = (temporary(16_384, 64) - temporary(4096, 64)) / (16_384 - 4096)
    assert growth <= 4 * 5 * (2 * D + 3)
    assert temporary(1024, None) / 1024 > 4 * 256


def test_the_state_does_not_grow():
    features = features_of("positive", True)
    state = causal_start(features, D, 3)
    shapes = jax.tree.map(jnp.shape, state)
    assert shapes == CausalState((64, 1), (64, 4))
    queries, keys = tokens()
    for token in zip(queries[:3], keys[:3], values()[:3], strict=True):
        state, _ = causal_step(state, *token, features)
        assert jax.tree.map(jnp.shape, state) == shapes


def test_heads_and_batches_are_mapped():
    rng = np.random.default_rng(4)
    q, k, v = (
        jnp.asarray(rng.standard_normal((2, 3, 20, n)), jnp.float32) for n in (D, D, 5)
    )
    upstream = jnp.asarray(rng.standard_normal(v.shape), jnp.float32)
    attend = whole("positive", True, 10)

    def both(upstream, *z):
        out, pull = jax.vjp(attend, *z)
        return out, *pull(upstream)

    mapped = jax.jit(jax.vmap(jax.vmap(both)))(upstream, q, k, v)
    for b, h in np.ndindex(2, 3):
        alone = jax.jit(both)(*(z[b, h] for z in (upstream, q, k, v)))
        for m, e in zip(mapped, alone, strict=True):
            np.testing.assert_allclose(m[b, h], e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["oprf", "saderf"])
def test_refuses_constants_measured_on_all_tokens(name):
    with pytest.raises(ValueError, match=r"causal attention does not go .* spread"):
        causal_attention(*tokens(), values(), MAPS[name])
    state = causal_start(MAPS["positive"], D, 3)
    with pytest.raises(ValueError, match=r"causal attention does not go .* spread"):
        causal_step(state, jnp.zeros(D), jnp.zeros(D), jnp.zeros(3), MAPS[name])


def test_refusals():
    with pytest.raises(ValueError, match="chunk=0 must be at least 1"):
        causal_attention(*tokens(), values(), MAPS["relu"], chunk=0)
    with pytest.raises(ValueError, match="values are 7 tokens, queries 50"):
        causal_attention(*tokens(), values(7), MAPS["relu"])
    with pytest.raises(ValueError, match=r"first has shape \(50,\) and dtype float32"):
        causal_attention(*tokens(), values(), MAPS["relu"], first=jnp.zeros(50))
    other = causal_start(MAPS["relu"], D, 2)
    with pytest.raises(ValueError, match=r"state holds .* shape \(\d+, 3\), but"):
        causal_attention(*tokens(), values(), MAPS["relu"], state=other)
    state = causal_start(MAPS["relu"], D, 3)
    with pytest.raises(ValueError, match=r"keys have shape \(1, 3, 4\)"):
        causal_step(state, jnp.zeros(D), jnp.zeros((3, D)), jnp.zeros(3), MAPS["relu"])
    with pytest.raises(ValueError, match=r"value has shape \(2,\), but .* \(3,\)"):
        causal_step(state, jnp.zeros(D), jnp.zeros(D), jnp.zeros(2), MAPS["relu"])
