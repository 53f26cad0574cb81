"""Cameras of different sizes: their patches attend to each other in one row."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import (
    Encoder,
    EncoderConfig,
    Kernel,
    Kind,
    Order,
    Position,
    Ranking,
    Scale,
    TransConfig,
    TransEncoder,
    encode,
    locate,
    weights_shape,
)

RNG = np.random.default_rng(0)
FRONT = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)  # 6x8 patches of 4x4
BACK = RNG.integers(0, 256, (17, 12, 1), dtype=np.uint8)  # 4x3
IMAGES = FRONT, BACK

jitted = jax.jit(encode, static_argnums=0)


def draw(config, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [weights_shape(config, image.shape[2]) for image in IMAGES]
    weights = [0.3 * rng.standard_normal(shape) for shape in shapes]
    biases = [0.3 * rng.standard_normal(shape[1]) for shape in shapes]
    return tuple(
        tuple(jnp.asarray(x, jnp.float32) for x in arrays)
        for arrays in (weights, biases)
    )


def explicit(image, weights, bias):
    """A camera's affine tokens in float64 and its centres over its size."""
    height, width, _ = image.shape
    corners = [(r, c) for r in range(0, height - 3, 4) for c in range(0, width - 3, 4)]
    relative = (np.array(corners) + 2) / [height, width]
    pixels = [image[r : r + 4, c : c + 4].ravel() / 255 for r, c in corners]
    tokens = np.concatenate([np.stack(pixels), relative], axis=1)
    affine = tokens @ np.asarray(weights, np.float64) + np.asarray(bias, np.float64)
    return affine, relative, np.array(corners) + 2


@pytest.mark.parametrize("scale", Scale)
def test_equals_explicit_loops_over_both_cameras(scale):
    config = EncoderConfig(
        kernel=Kernel.exact,
        position=Position.concat,
        scale=scale,
        selection=Order.rank,
        top_k=20,
        content=True,
        score=True,
    )
    weights, biases = draw(config)
    features, attention, *_ = jitted(config, IMAGES, weights, biases)
    parts = [explicit(*camera) for camera in zip(IMAGES, weights, biases, strict=True)]
    affine, relative, centre = (np.concatenate(x) for x in zip(*parts, strict=True))
    inputs = np.repeat([50, 18], [48, 12]) if scale is Scale.d_in else np.full(60, 4)
    q, k = (affine[:, own] / inputs[:, None] ** 0.25 for own in (slice(4), slice(4, 8)))
    matrix = np.exp(q @ k.T)
    scores = (matrix / matrix.sum(axis=1, keepdims=True)).sum(axis=0)
    # Logits up to ~20 as float32 sums of up to 50 terms: errors of exp below 1e-4.
    np.testing.assert_allclose(attention.scores, scores, rtol=1e-3)

    index = np.asarray(attention.index)
    assert 0 < np.sum(index < 48) < 20  # both cameras are looked at
    np.testing.assert_array_equal(attention.centre, centre[index])
    rows = np.asarray(features).reshape(20, 2 + 4 + 1 + 2)
    np.testing.assert_allclose(rows[:, :2], 2 * relative[index] - 1, atol=1e-6)
    np.testing.assert_allclose(rows[:, 2:6], affine[index, 8:], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(rows[:, 6].sum(), 1, rtol=1e-6)
    np.testing.assert_array_equal(rows[:, 7:], np.eye(2)[(index >= 48).astype(int)])


@pytest.mark.parametrize(("kernel", "heads"), [(Kernel.relu, 1), (Kernel.taylor, 2)])
def test_two_halves_with_the_same_weights_are_one_image(kernel, heads):
    config = EncoderConfig(kernel=kernel, heads=heads, kind=Kind.mask, content=True)
    (weights, _), (bias, _) = draw(config)
    whole = jitted(config, FRONT, weights, bias)
    halves = FRONT[:8], FRONT[8:]
    split = jitted(config, halves, (weights,) * 2, (bias,) * 2)
    # Sums over one row of 48 tokens either way.
    np.testing.assert_allclose(
        split.attention.scores, whole.attention.scores, rtol=1e-5
    )
    np.testing.assert_array_equal(split.attention.index, whole.attention.index)
    rows = split.features.reshape(48, 2 + 4 + 2)
    contents = whole.features.reshape(48, 2 + 4)[:, 2:]
    np.testing.assert_allclose(rows[:, 2:6], contents, rtol=1e-5, atol=1e-6)
    chosen = np.isin(np.arange(48), split.attention.index)
    np.testing.assert_array_equal(rows[:, 6], chosen & (np.arange(48) < 16))
    np.testing.assert_array_equal(rows[:, 7], chosen & (np.arange(48) >= 16))


def test_the_fixed_filter_asks_the_mean_of_the_biases():
    config = EncoderConfig(ranking=Ranking.fixed_filter, position=Position.concat)
    weights, biases = draw(config)
    found = jitted(config, IMAGES, weights, biases).attention.scores
    parts = [explicit(*camera) for camera in zip(IMAGES, weights, biases, strict=True)]
    keys = np.concatenate([affine[:, 4:8] for affine, *_ in parts])
    logits = keys @ np.mean([bias[:4] for bias in biases], axis=0) / 2
    expected = 60 * np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # logits of some units


def test_the_way_back_to_a_camera_and_its_patch():
    config = EncoderConfig()
    shapes = [image.shape for image in (FRONT, BACK, FRONT)]
    index = jnp.array([0, 47, 48, 59, 60, 107])
    camera, patch = jax.jit(lambda index: locate(config, shapes, index))(index)
    np.testing.assert_array_equal(camera, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(patch, [0, 47, 0, 11, 0, 47])


def test_parameters_are_named_by_camera_and_gradients_reach_all():
    config = EncoderConfig(kernel=Kernel.taylor, content=True, weighted=True, top_k=60)
    network = hk.without_apply_rng(hk.transform(lambda x: Encoder(config)(x)))
    params = jax.jit(network.init)(jax.random.key(0), IMAGES)
    assert jax.tree.map(jnp.shape, dict(params["encoder"])) == {
        "weights_0": (48, 12),
        "bias_0": (12,),
        "weights_1": (16, 12),
        "bias_1": (12,),
    }

    def total(params):
        return jnp.sum(network.apply(params, IMAGES).features ** 2)

    for gradient in jax.tree.leaves(jax.jit(jax.grad(total))(params)):
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient)


def test_refusals():
    config = EncoderConfig()
    weights, biases = draw(config)
    for image, (w, b), message in (
        (IMAGES, (weights[:1], biases), "image is a tuple of 2 and weights a tuple of"),
        (IMAGES, (weights, biases[0]), "image is a tuple of 2 and bias an array; give"),
        (FRONT, (weights, None), "image is an array and weights a tuple of 2; give"),
        (list(IMAGES), (weights, None), "a list of 2 was given for cameras; give one"),
        ((), ((), None), "a tuple of 0 was given for cameras"),
        (IMAGES, (weights[::-1], None), r"image \(24, 32, 3\) and weights \(16, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            encode(config, image, w, b)
    with pytest.raises(ValueError, match="top_k=61 must be between 1 and"):
        many = dataclasses.replace(config, top_k=61)
        jax.eval_shape(lambda *given: encode(many, *given), IMAGES, weights, biases)
    network = hk.transform(lambda x: Encoder(config)(x))
    with pytest.raises(ValueError, match="a list of 2 was given for cameras"):
        network.init(jax.random.key(0), list(IMAGES))
    with pytest.raises(ValueError, match="shapes is empty"):
        locate(config, [], jnp.arange(3))


def trans(config):
    return hk.without_apply_rng(hk.transform(lambda x: TransEncoder(config)(x)))


def test_two_halves_with_the_same_projection_are_one_image_to_trans():
    network = trans(TransConfig(width=8, heads=2, hidden=12, layers=1))
    halves = jnp.asarray(FRONT[:8]), jnp.asarray(FRONT[8:])
    shapes = jax.eval_shape(network.init, jax.random.key(0), halves)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), shapes
    )
    own = dict(params["encoder"])
    assert own["tokens_0"].shape == own["tokens_1"].shape == (4, 4, 3, 8)
    place = {"w": jnp.zeros_like(params["encoder/place"]["w"])}  # it tells them apart
    own["tokens_1"] = own["tokens"] = own["tokens_0"]
    own["tokens_1_bias"] = own["tokens_bias"] = own["tokens_0_bias"]
    params = {**params, "encoder": own, "encoder/place": place}
    one = dict(params, encoder={k: own[k] for k in ("tokens", "tokens_bias")})
    del own["tokens"], own["tokens_bias"]
    two = dict(params, encoder=own)
    whole = jax.jit(network.apply)(one, jnp.asarray(FRONT))
    split = jax.jit(network.apply)(two, halves)
    np.testing.assert_allclose(
        split.attention.scores, whole.attention.scores, rtol=1e-5
    )
    np.testing.assert_allclose(split.features, whole.features, rtol=1e-4, atol=1e-5)


def test_tokens_of_two_cameras_are_no_grid():
    network = trans(TransConfig(restructured=1))
    with pytest.raises(ValueError, match="restructured=1 does not go with 2 cameras"):
        jax.eval_shape(network.init, jax.random.key(0), IMAGES)
