import dataclasses
import math
import subprocess
import sys

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import (
    Centring,
    Encoder,
    EncoderConfig,
    Kernel,
    Kind,
    Order,
    Origin,
    Position,
    Projection,
    Ranking,
    Scale,
    encode,
    sampling,
    weights_shape,
)
from tests.iap.matrices import array_sizes

IMAGE = np.random.default_rng(0).integers(0, 256, (30, 38, 3), dtype=np.uint8)


def transform(config):
    return hk.without_apply_rng(hk.transform(lambda image: Encoder(config)(image)))


def draw(config, seed=0, scale=0.3):
    rng = np.random.default_rng(seed)
    shape = weights_shape(config, 3)
    weights = scale * rng.standard_normal(shape)
    bias = scale * rng.standard_normal(shape[1])
    return jnp.asarray(weights, jnp.float32), jnp.asarray(bias, jnp.float32)


jitted = jax.jit(encode, static_argnums=0)


def explicit(config, weights, bias, place=None):
    """Exact-kernel tokens, scores and centres by explicit loops, in float64."""
    height, width, _ = IMAGE.shape
    w, s, d = config.window, config.stride, config.depth
    corners = [
        (top, left)
        for top in range(0, height - w + 1, s)
        for left in range(0, width - w + 1, s)
    ]
    tokens = np.stack([IMAGE[r : r + w, c : c + w].ravel() / 255 for r, c in corners])
    centre = np.array(corners) + w // 2
    relative = centre / [height, width]
    if place is not None:
        tokens = np.concatenate([tokens, place(relative)], axis=1)
    divisor = tokens.shape[1] if config.scale is Scale.d_in else d
    affine = tokens @ np.asarray(weights, np.float64) + np.asarray(bias, np.float64)
    q, k = affine[:, :d], affine[:, d : 2 * d]
    logits = q @ k.T / np.sqrt(divisor)
    matrix = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = (matrix / matrix.sum(axis=1, keepdims=True)).sum(axis=0)
    return affine, scores, centre, relative


def sincos(relative):
    columns = []
    for axis in (0, 1):
        for wave in (np.sin, np.cos):
            columns += [wave(np.pi * 2**n * relative[:, axis]) for n in range(4)]
    return np.stack(columns, axis=1)


PLACES = {
    Position.none: None,
    Position.concat: lambda relative: relative,
    Position.sincos: sincos,
}


@pytest.mark.parametrize(
    ("window", "stride", "scale", "position"),
    [
        (7, 4, Scale.d_in, Position.none),
        (7, 4, Scale.d_in, Position.sincos),
        (4, 4, Scale.depth, Position.concat),
        (2, 5, Scale.depth, Position.sincos),
        (1, 1, Scale.depth, Position.concat),
    ],
)
def test_exact_encoder_equals_explicit_loops(window, stride, scale, position):
    config = EncoderConfig(
        window=window,
        stride=stride,
        kernel=Kernel.exact,
        scale=scale,
        position=position,
        selection=Order.rank,
        content=True,
        score=True,
    )
    weights, bias = draw(config)
    features, attention, *_ = jitted(config, IMAGE, weights, bias)
    affine, scores, centre, relative = explicit(config, weights, bias, PLACES[position])
    # Logits up to ~20 as float32 sums of up to 163 terms: errors of exp below 1e-4.
    np.testing.assert_allclose(attention.scores, scores, rtol=1e-3)

    index = np.asarray(attention.index)
    np.testing.assert_array_equal(
        index, np.argsort(-np.asarray(attention.scores), kind="stable")[:10]
    )
    np.testing.assert_array_equal(attention.centre, centre[index])
    per_patch = np.asarray(features).reshape(10, 2 + config.depth + 1)
    np.testing.assert_allclose(per_patch[:, :2], 2 * relative[index] - 1, atol=1e-6)
    np.testing.assert_allclose(
        per_patch[:, 2:-1], affine[index, 2 * config.depth :], rtol=1e-3, atol=1e-4
    )
    share = scores[index] / scores[index].sum()
    np.testing.assert_allclose(per_patch[:, -1], share, rtol=2e-3)


@pytest.mark.parametrize("origin", list(Origin), ids=lambda o: o.name)
def test_features_are_centres_alone_by_default(origin):
    config = EncoderConfig(origin=origin)
    features, attention, *_ = jitted(config, IMAGE, *draw(config))
    assert features.shape == (20,)
    relative = np.asarray(attention.centre) / [[30, 38]]
    expected = relative if origin is Origin.corner else 2 * relative - 1
    np.testing.assert_allclose(features.reshape(10, 2), expected, atol=1e-6)


@pytest.mark.parametrize("kernel", Kernel)
def test_selection_order_changes_the_order_only(kernel):
    rank = EncoderConfig(kernel=kernel, selection=Order.rank)
    position = dataclasses.replace(rank, selection=Order.position)
    by_rank = jitted(rank, IMAGE, *draw(rank)).attention
    by_position = jitted(position, IMAGE, *draw(rank)).attention
    np.testing.assert_array_equal(np.sort(by_rank.index), by_position.index)
    chosen = np.asarray(by_rank.scores)[np.asarray(by_rank.index)]
    assert np.all(np.diff(chosen) <= 0)
    assert np.sort(by_rank.scores)[-10] == chosen[-1]


@pytest.mark.parametrize("kernel", Kernel)
def test_floats_in_0_1_are_seen_as_the_bytes_are(kernel):
    config = EncoderConfig(kernel=kernel, position=Position.sincos)
    weights, bias = draw(config)
    of_bytes = jitted(config, IMAGE, weights, bias)
    of_floats = jitted(config, IMAGE / np.float32(255), weights, bias)
    np.testing.assert_allclose(
        of_bytes.attention.scores, of_floats.attention.scores, rtol=1e-3
    )


@pytest.mark.parametrize("kernel", Kernel)
def test_members_with_own_weights_see_what_they_see_alone(kernel):
    config = EncoderConfig(kernel=kernel, content=True, score=True)
    images = jnp.stack([jnp.asarray(IMAGE), jnp.asarray(IMAGE[::-1])])
    members = [draw(config, seed) for seed in (0, 1, 2)]

    def look(parameters):
        return jax.vmap(lambda image: encode(config, image, *parameters))(images)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(lambda members: jax.lax.map(look, members))(stacked)
    for i, parameters in enumerate(members):
        for j in range(2):
            alone = jitted(config, images[j], *parameters).attention.scores
            batched = together.attention.scores[i, j]
            np.testing.assert_allclose(batched, alone, rtol=1e-4)


def test_the_module_is_the_function_of_its_parameters():
    config = EncoderConfig(kernel=Kernel.taylor, content=True)
    network = transform(config)
    params = jax.jit(network.init)(jax.random.key(0), IMAGE)
    weights, bias = params["encoder"]["weights"], params["encoder"]["bias"]
    assert weights.shape == weights_shape(config, 3) == (48, 12)
    # Truncated normal of standard deviation 1 / sqrt(48), 576 draws: 4 standard errors.
    assert abs(float(weights.std()) * 48**0.5 - 1) < 4 / (2 * 576) ** 0.5
    assert not np.any(bias)
    module = jax.jit(network.apply)(params, IMAGE)
    function = jitted(config, IMAGE, weights, bias)
    for a, b in zip(jax.tree.leaves(module), jax.tree.leaves(function), strict=True):
        np.testing.assert_array_equal(a, b)


def test_random_features_come_from_the_seed_and_are_no_parameters():
    scores = []
    for seed in (0, 0, 1):
        config = EncoderConfig(seed=seed)
        network = transform(config)
        params = jax.jit(network.init)(jax.random.key(7), IMAGE)
        assert {leaf.shape for leaf in jax.tree.leaves(params)} == {(48, 8), (8,)}
        scores.append(jax.jit(network.apply)(params, IMAGE).attention.scores)
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[0] - scores[2]).max() > 1e-3


@pytest.mark.parametrize("kernel", Kernel)
def test_gradients_are_finite(kernel):
    config = EncoderConfig(kernel=kernel, content=True, score=True)
    gradient = jax.jit(
        jax.grad(
            lambda w, b: jnp.sum(
                encode(config, jnp.asarray(IMAGE), w, b).features ** 2
            ),
            argnums=(0, 1),
        )
    )
    for scale in (0.0, 1.0, 30.0):
        gradients = gradient(*draw(config, scale=scale))
        assert all(np.all(np.isfinite(g)) for g in gradients)
        assert scale == 0 or all(np.abs(g).max() > 0 for g in gradients)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_attention_agent_has_3603_parameters():
    config = EncoderConfig.attention_agent()

    def agent(image):
        encoding = Encoder(config)(image)
        core = hk.LSTM(16)
        hidden, _ = core(encoding.features, core.initial_state(None))
        return hk.Linear(3)(hidden), encoding

    network = hk.without_apply_rng(hk.transform(agent))
    image = jax.ShapeDtypeStruct((96, 96, 3), jnp.uint8)
    params = jax.eval_shape(network.init, jax.random.key(0), image)
    assert count(params) == 3603
    _, (features, attention, *_) = jax.eval_shape(network.apply, params, image)
    assert features.shape == (20,)
    assert attention.scores.shape == (529,)


def test_single_pixels_need_32_parameters():
    config = EncoderConfig(window=1, stride=1)
    image = jax.ShapeDtypeStruct((96, 96, 3), jnp.uint8)
    params = jax.eval_shape(transform(config).init, jax.random.key(0), image)
    assert count(params) == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window=0 must be at least 1"),
        ({"stride": 0}, "stride=0 must be at least 1"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"features": 0}, "features=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"kernel": Kernel.taylor, "order": 3}, "order=3 must be even"),
        (
            {"kernel": Kernel.positive, "projection": Projection.none},
            "projection=none goes with kernel=relu only",
        ),
        (
            {"kernel": Kernel.relu, "centring": Centring.means},
            "centring=means does not go with kernel=relu: .* exp",
        ),
    ],
)
def test_refuses_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 31}, "window=31 does not fit an image of 30x38 .* at most 30"),
        ({"top_k": 64}, "top_k=64 must be between 1 and the number of patches, 63"),
    ],
)
def test_refuses_images_that_do_not_fit(settings, message):
    network = transform(EncoderConfig(**settings))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), jnp.asarray(IMAGE))


def test_refuses_a_batch_and_foreign_weights():
    config = EncoderConfig()
    weights, bias = draw(config)
    with pytest.raises(ValueError, match="expected one image"):
        encode(config, jnp.asarray(IMAGE)[None], weights, bias)
    with pytest.raises(ValueError, match=r"weights \(47, 8\) do not fit"):
        encode(config, jnp.asarray(IMAGE), weights[1:], bias)
    with pytest.raises(ValueError, match=r"bias has shape \(7,\); .* need \(8,\), or"):
        encode(config, jnp.asarray(IMAGE), weights, bias[1:])


def test_refuses_draws_that_do_not_fit():
    config = EncoderConfig(temperature=1.0, top_k=64)
    arguments = (config, jnp.asarray(IMAGE), *draw(config))
    with pytest.raises(ValueError, match=r"top_k=64 must be between 1 and .* 63"):
        encode(*arguments, jax.random.key(0))
    with pytest.raises(ValueError, match=r"choice has shape \(3,\); expected \(64,\)"):
        encode(*arguments, choice=jnp.arange(3))


def test_centring_follows_the_kernel():
    centred = {kernel: EncoderConfig(kernel=kernel).centred for kernel in Kernel}
    assert centred[Kernel.relu] is False
    assert centred[Kernel.positive] is centred[Kernel.taylor] is True
    assert EncoderConfig(kernel=Kernel.taylor, centring=Centring.none).centred is False


def test_iap_stands_alone():
    code = (
        "import sys, iap; "
        "print(*sorted({m.split('.')[0] for m in sys.modules}"
        " & {'agents', 'envs', 'experiments', 'evosax', 'gymnasium', 'cv2'}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == ""


def test_weights_are_k_times_the_shares_of_attention():
    plain = EncoderConfig(window=4, stride=4, top_k=5, content=True, score=True)
    weights, bias = draw(plain)
    once = np.asarray(jitted(plain, IMAGE, weights, bias).features).reshape(5, -1)
    weighted = dataclasses.replace(plain, weighted=True)
    twice = np.asarray(jitted(weighted, IMAGE, weights, bias).features).reshape(5, -1)
    share = once[:, -1:]
    np.testing.assert_allclose(twice[:, -1:], share)  # the share itself stays
    np.testing.assert_allclose(twice[:, :-1], 5 * share * once[:, :-1], rtol=1e-5)


@pytest.mark.parametrize("order", list(Order))
def test_drawn_patches_are_handed_on_with_their_probability(order):
    config = EncoderConfig(
        window=4, stride=4, top_k=5, content=True, temperature=0.5, selection=order
    )
    weights, bias = draw(config)
    best = jitted(config, IMAGE, weights, bias)
    assert best.choice == best.log_prob == ()
    drawn = jitted(config, IMAGE, weights, bias, jax.random.key(0))
    assert (drawn.attention.index != best.attention.index).any()
    ordered = jnp.sort(drawn.choice) if order is Order.position else drawn.choice
    np.testing.assert_array_equal(drawn.attention.index, ordered)
    logits = sampling.logits(drawn.attention.scores, 0.5)
    np.testing.assert_allclose(
        drawn.log_prob, sampling.log_prob(logits, drawn.choice), rtol=1e-5
    )
    again = jitted(config, IMAGE, weights, bias, None, drawn.choice)
    for name in ("features", "log_prob", "choice"):
        np.testing.assert_allclose(
            getattr(again, name), getattr(drawn, name), rtol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("temperature", [-1.0, math.inf, math.nan])
def test_refuses_temperatures_that_are_none(temperature):
    with pytest.raises(ValueError, match=r"temperature=.* must be at least 0 and fin"):
        EncoderConfig(temperature=temperature)


# --- kind=mask, several heads, a vector beside the pixels ---------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_mask_puts_the_chosen_patches_in_their_places(temperature):
    rank = EncoderConfig(top_k=5, content=True, weighted=True, temperature=temperature)
    mask = dataclasses.replace(rank, kind=Kind.mask)
    key = jax.random.key(0)
    chosen = jitted(rank, IMAGE, *draw(rank), key)
    every = jitted(mask, IMAGE, *draw(rank), key)
    np.testing.assert_array_equal(every.attention.index, chosen.attention.index)
    rows = np.asarray(every.features).reshape(63, 2 + 4)
    index = np.asarray(chosen.attention.index)
    np.testing.assert_allclose(
        rows[index], np.asarray(chosen.features).reshape(5, 6), rtol=1e-6
    )
    assert not np.delete(rows, index, axis=0).any()


@pytest.mark.parametrize("kernel", [Kernel.exact, Kernel.taylor, Kernel.relu])
def test_scores_of_heads_are_averaged(kernel):
    one = EncoderConfig(kernel=kernel, content=True)
    two = dataclasses.replace(one, heads=2)
    assert weights_shape(two, 3) == (48, 5 * 4)
    weights, bias = draw(two)
    both = jitted(two, IMAGE, weights, bias)
    # Columns: the queries of both heads, their keys, contents.
    alone = [
        jitted(one, IMAGE, weights[:, columns], bias[columns]).attention.scores
        for columns in (
            np.r_[0:4, 8:12, 16:20],
            np.r_[4:8, 12:16, 16:20],
        )
    ]
    # Logits of about 20: errors of exp near 1e-5.
    np.testing.assert_allclose(
        both.attention.scores, (alone[0] + alone[1]) / 2, rtol=1e-4
    )
    index = np.asarray(both.attention.index)
    assert set(index) == set(np.argsort(-np.asarray(both.attention.scores))[:10])


def test_a_vector_is_handed_on_behind_the_patches():
    config = EncoderConfig(top_k=3)
    weights, bias = draw(config)
    vector = jnp.array([1.5, -2.0])
    plain = jitted(config, IMAGE, weights, bias)
    joined = jitted(config, IMAGE, weights, bias, None, None, vector)
    np.testing.assert_array_equal(joined.features[:-2], plain.features)
    np.testing.assert_array_equal(joined.features[-2:], vector)
    for wrong in (jnp.ones((2, 1)), jnp.arange(3)):
        with pytest.raises(ValueError, match=r"vector has shape .* expected f32\[n\]"):
            encode(config, jnp.asarray(IMAGE), weights, bias, None, None, wrong)


@pytest.mark.parametrize("kind", list(Kind))
def test_gradients_reach_all_that_is_weighted(kind):
    config = EncoderConfig(
        kind=kind, kernel=Kernel.taylor, heads=2, content=True, weighted=True, top_k=5
    )

    def total(parameters):
        return jnp.sum(encode(config, jnp.asarray(IMAGE), *parameters).features ** 2)

    weights, bias = jax.jit(jax.grad(total))(draw(config))
    assert np.isfinite(bias).all()  # that of keys moves no score: nearly 0
    assert np.isfinite(weights).all()
    # Queries, keys and contents alike.
    assert (np.abs(weights).sum(axis=0) > 0).all()


# --- several images, low precision, what is no number -------------------------------


def test_images_at_once_are_channels_of_one():
    """Weights of 0 for the second camera leave what the first alone would give."""
    config = EncoderConfig(kernel=Kernel.taylor)
    weights, bias = draw(config)
    both = np.concatenate([IMAGE, IMAGE[::-1, ::-1]], axis=2)
    first = jnp.asarray(weights).reshape(4, 4, 3, 8)
    blind = jnp.concatenate([first, jnp.zeros_like(first)], axis=2).reshape(-1, 8)
    seeing = jnp.concatenate([first, first], axis=2).reshape(-1, 8)
    assert blind.shape == weights_shape(config, 6)
    alone = jitted(config, IMAGE, weights, bias)
    # Sums of twice as many terms, half of them 0.
    same = jitted(config, both, blind, bias).attention
    np.testing.assert_allclose(same.scores, alone.attention.scores, rtol=1e-4)
    other = jitted(config, both, seeing, bias).attention
    assert np.abs(other.scores - alone.attention.scores).max() > 0.1


def test_weights_in_bfloat16_count_as_the_same_in_float32():
    config = EncoderConfig(kernel=Kernel.taylor, content=True, position=Position.concat)
    low = [z.astype(jnp.bfloat16) for z in draw(config)]
    full = [z.astype(jnp.float32) for z in low]
    with jax.numpy_dtype_promotion("standard"):  # JAX's own; the tests' is strict
        found, expected = (jitted(config, IMAGE, *z) for z in (low, full))
        with pytest.raises(ValueError, match="image has dtype bfloat16; expected uint"):
            encode(config, jnp.asarray(IMAGE, jnp.bfloat16), *low)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype != jnp.bfloat16
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kernel", [Kernel.relu, Kernel.positive, Kernel.taylor])
@pytest.mark.parametrize(
    "settings", [{}, {"kind": Kind.mask}, {"heads": 2}], ids=["rank", "mask", "heads"]
)
def test_no_array_of_all_pairs_of_patches(kernel, settings):
    config = EncoderConfig(kernel=kernel, content=True, weighted=True, **settings)
    image = np.zeros((96, 96, 3), np.uint8)
    L = 24 * 24

    def total(parameters):
        encoding = encode(config, image, *parameters)
        return jnp.sum(encoding.features**2) + jnp.sum(encoding.attention.scores**2)

    sizes = array_sizes(jax.value_and_grad(total), draw(config))
    # 64 features of every patch and head, forwards and back, are the largest.
    assert max(sizes) <= L * 64 * config.heads < L**2


@pytest.mark.parametrize(
    "config",
    [
        EncoderConfig(),  # hands on centres alone
        EncoderConfig(content=True),
        EncoderConfig(kernel=Kernel.taylor, content=True, weighted=True),
        EncoderConfig(kernel=Kernel.positive, kind=Kind.mask, normalised=False),
        EncoderConfig(kernel=Kernel.exact, heads=2),
        EncoderConfig(ranking=Ranking.mean_query),
    ],
    ids=["default", "content", "taylor", "mask", "exact", "mean query"],
)
def test_what_is_no_number_is_seen_in_all_scores_and_found_by_jax(config):
    arguments = draw(config)
    image = IMAGE / np.float32(255)
    broken = {what: image.copy() for what in (np.nan, np.inf)}
    for what, other in broken.items():
        other[3, 5, 0] = what
        encoding = jitted(config, other, *arguments)
        assert np.isnan(encoding.attention.scores).all()
        handed_on = np.asarray(encoding.features)
        if config.kind is Kind.mask:  # zeros where nothing was chosen
            handed_on = handed_on.reshape(len(encoding.attention.scores), -1)
            handed_on = handed_on[encoding.attention.index]
        assert np.isnan(handed_on).all()

    def total(parameters, image):
        features = encode(config, image, *parameters).features
        return jnp.sum(features**2), features

    look = jax.jit(jax.grad(total, has_aux=True))
    with jax.debug_nans(True):
        for leaf in jax.tree.leaves(look(arguments, image)):
            assert np.isfinite(leaf).all()  # and no false alarm
        with pytest.raises(FloatingPointError, match="nan"):
            look(arguments, broken[np.nan])
