import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import centres, project

# (H, W, C, window, stride, d): overlap, tiling, gaps, remainders, single pixels.
SHAPES = [
    (13, 17, 3, 7, 4, 4),
    (12, 12, 1, 4, 4, 5),
    (9, 10, 2, 1, 1, 3),
    (11, 14, 3, 3, 5, 2),
    (10, 9, 3, 5, 2, 4),
    (8, 8, 3, 8, 3, 2),
    (7, 9, 2, 3, 1, 1),
    (10, 10, 1, 1, 3, 2),
]


def patches(image, window, stride):
    """Every patch, flattened as (row, column, channel), by explicit loops."""
    height, width, _ = image.shape
    return np.stack(
        [
            image[top : top + window, left : left + window].ravel()
            for top in range(0, height - window + 1, stride)
            for left in range(0, width - window + 1, stride)
        ]
    )


def draw(height, width, channels, window, depth, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((height, width, channels)).astype(np.float32)
    weights = rng.standard_normal((window, window, channels, depth)).astype(np.float32)
    return image, weights, rng.standard_normal(depth).astype(np.float32)


def assert_close(actual, image, weights, expected):
    # A float32 sum of n products is off by at most n * 2^-24 times the sum of their
    # magnitudes, here below n * max|image| * max|weights|.
    n = np.prod(weights.shape[:3])
    bound = (n + 2) * 2.0**-24 * n * np.abs(image).max() * np.abs(weights).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_product_of_explicit_patches(shape):
    height, width, channels, window, stride, depth = shape
    image, weights, bias = draw(height, width, channels, window, depth)
    flat = weights.reshape(-1, depth).astype(np.float64)
    expected = patches(image, window, stride) @ flat + bias
    actual = project(
        jnp.asarray(image), jnp.asarray(weights), jnp.asarray(bias), stride
    )
    assert actual.dtype == jnp.float32
    assert_close(actual, image, weights, expected)
    without = project(jnp.asarray(image), jnp.asarray(weights), None, stride)
    assert_close(without, image, weights, expected - bias)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_with_respect_to_weights(shape):
    height, width, channels, window, stride, depth = shape
    image, weights, _ = draw(height, width, channels, window, depth)
    rows = patches(image, window, stride)
    upstream = np.random.default_rng(1).standard_normal((len(rows), depth))
    upstream = upstream.astype(np.float32)
    actual = jax.grad(
        lambda w: jnp.sum(project(jnp.asarray(image), w, None, stride) * upstream)
    )(jnp.asarray(weights))
    expected = (rows.T @ upstream).reshape(weights.shape)
    # Sums of L products, as above with n = L and a margin for the other order.
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_bytes_are_intensities_over_255():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 23, 3), dtype=np.uint8)
    weights = rng.standard_normal((7, 7, 3, 4)).astype(np.float32)
    expected = patches(image.astype(np.float64) / 255, 7, 4) @ weights.reshape(-1, 4)
    actual = project(jnp.asarray(image), jnp.asarray(weights), None, 4)
    assert_close(actual, np.ones(1), weights, expected)


def test_a_batch_of_images_shares_weights_and_members_have_their_own():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 3, 12, 12, 3), dtype=np.uint8)
    weights = rng.standard_normal((2, 4, 4, 3, 2)).astype(np.float32)
    over_images = jax.vmap(lambda w, x: project(x, w, None, 4), in_axes=(None, 0))
    mapped = jax.lax.map(
        lambda both: over_images(*both), (jnp.asarray(weights), jnp.asarray(images))
    )
    batched = jax.vmap(over_images)(jnp.asarray(weights), jnp.asarray(images))
    for member in range(2):
        for i in range(3):
            rows = patches(images[member, i] / 255.0, 4, 4)
            expected = rows @ weights[member].reshape(-1, 2)
            assert_close(mapped[member, i], np.ones(1), weights[member], expected)
            assert_close(batched[member, i], np.ones(1), weights[member], expected)


def test_overlapping_patches_are_never_materialised():
    image = jax.ShapeDtypeStruct((96, 96, 3), jnp.uint8)
    weights = jax.ShapeDtypeStruct((7, 7, 3, 8), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda x, w: project(x, w, None, 4))(image, weights)
    largest = max(var.aval.size for eqn in jaxpr.jaxpr.eqns for var in eqn.outvars)
    assert largest <= 96 * 96 * 3  # all patches together are 529 * 147, 2.8 times this


@pytest.mark.parametrize("shape", SHAPES)
def test_centres_agree_with_patches(shape):
    height, width, _, window, stride, _ = shape
    expected = [
        (top + window // 2, left + window // 2)
        for top in range(0, height - window + 1, stride)
        for left in range(0, width - window + 1, stride)
    ]
    actual = centres(height, width, window, stride)
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


def test_centres_of_attention_agent():
    actual = centres(96, 96, 7, 4)
    assert actual.shape == (23 * 23, 2)
    np.testing.assert_array_equal(
        actual[[0, 1, 23, -1]], [[3, 3], [3, 7], [7, 3], [91, 91]]
    )


@pytest.mark.parametrize(
    ("image", "weights", "stride", "message"),
    [
        (((8, 8, 3), "uint8"), (9, 9, 3, 1), 1, "window=9 does not fit .* 8x8"),
        (((9, 8, 3), "uint8"), (9, 9, 3, 1), 1, "a window of at most 8"),
        (((8, 8, 3), "uint8"), (4, 4, 3, 1), 0, "stride=0 must .* at least 1"),
        (((8, 8), "uint8"), (4, 4, 3, 1), 4, r"image has shape \(8, 8\)"),
        (((8, 8, 3), "uint8"), (4, 3, 3, 1), 4, r"weights have shape \(4, 3, 3, 1\)"),
        (((8, 8, 1), "uint8"), (4, 4, 3, 1), 4, "expect 3 channels, the image has 1"),
        (((8, 8, 3), "int32"), (4, 4, 3, 1), 4, "dtype int32; expected uint8"),
    ],
)
def test_refusals(image, weights, stride, message):
    with pytest.raises(ValueError, match=message):
        project(jnp.zeros(*image), jnp.zeros(weights), None, stride)


def test_refuses_a_bias_that_does_not_fit():
    image, weights = jnp.zeros((8, 8, 3), jnp.uint8), jnp.zeros((4, 4, 3, 2))
    with pytest.raises(ValueError, match=r"bias has shape \(3,\); .* need \(2,\)"):
        project(image, weights, jnp.zeros(3), 4)
