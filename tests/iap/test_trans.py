import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import (
    Design,
    Kernel,
    Norms,
    Projection,
    TransConfig,
    feature_map,
    trans_network,
)
from tests.iap.matrices import array_sizes

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
SMALL = TransConfig(width=8, heads=2, hidden=12)


def started(config, image=IMAGE):
    network = trans_network(config)
    return network, jax.jit(network.init)(jax.random.key(0), image)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_parameters_and_shapes():
    network, params = started(SMALL)
    tokens = 48 * 8 + 8 + 16 * 8  # with places
    block = (2 * 8) + (8 * 24 + 24) + (8 * 8 + 8) + (2 * 8) + (8 * 12 + 12) + 12 * 8 + 8
    assert count(params) == tokens + 2 * block + 2 * 8
    features, attention, choice, log_prob = jax.jit(network.apply)(params, IMAGE)
    assert features.shape == (8,)
    assert attention.scores.shape == (80,)
    assert attention.centre.shape == (10, 2)
    assert choice == log_prob == ()
    np.testing.assert_allclose(attention.scores.sum(), 80, rtol=1e-5)
    np.testing.assert_array_equal(
        attention.index, np.argsort(-np.asarray(attention.scores), kind="stable")[:10]
    )


def test_restructuring_joins_windows_of_tokens():
    config = dataclasses.replace(SMALL, layers=1, restructured=1)
    network, params = started(config)
    plain = count(started(dataclasses.replace(SMALL, layers=2))[1])
    assert count(params) == plain + 9 * 8 * 8 + 8
    _, attention, *_ = jax.jit(network.apply)(params, IMAGE)
    assert attention.scores.shape == (80,)  # of the patches, not of what joins them
    sizes = set(array_sizes(network.apply, params, jnp.asarray(IMAGE)))
    assert 3 * 4 * 3 * 8 in sizes  # the queries, keys and values of 3x4 tokens


def explicit(params, config, tokens, block="block_0"):
    """One block by explicit float64 matrices, the exact kernel."""

    def at(name):
        return {
            k: np.asarray(v, np.float64)
            for k, v in params[f"encoder/{block}/{name}"].items()
        }

    def normed(x, name):
        scale, offset = at(name)["scale"], at(name)["offset"]
        middle = x - x.mean(axis=1, keepdims=True)
        return middle / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5) * scale + offset

    def linear(x, name):
        return x @ at(name)["w"] + at(name)["b"]

    depth = config.width // config.heads
    q, k, v = np.split(linear(normed(tokens, "norm_1"), "attend"), 3, axis=1)
    reads, scores = [], []
    for head in range(config.heads):
        own = slice(head * depth, (head + 1) * depth)
        matrix = np.exp(q[:, own] @ k[:, own].T / np.sqrt(depth))
        matrix /= matrix.sum(axis=1, keepdims=True)
        reads.append(matrix @ v[:, own])
        scores.append(matrix.sum(axis=0))
    tokens = tokens + linear(np.concatenate(reads, axis=1), "join")
    hidden = linear(normed(tokens, "norm_2"), "hidden")
    gelu = (
        hidden / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    )
    return tokens + linear(gelu, "out"), np.mean(scores, axis=0)


@pytest.mark.parametrize("restructured", [0, 1])
def test_exact_attention_equals_explicit_matrices(restructured):
    """Of one block; and of Tokens-to-Token, a block and windows of 3x3, before it."""
    config = dataclasses.replace(
        SMALL, layers=1, kernel=Kernel.exact, restructured=restructured
    )
    network, params = started(config)
    rng = np.random.default_rng(1)
    params = jax.tree.map(  # biases and scales too
        lambda x: x + 0.3 * rng.standard_normal(x.shape).astype(np.float32), params
    )
    features, attention, *_ = jax.jit(network.apply)(params, IMAGE)
    own = {k: np.asarray(v, np.float64) for k, v in params["encoder"].items()}
    patches = IMAGE.reshape(8, 4, 10, 4, 3).swapaxes(1, 2).reshape(80, 48) / 255
    grid = np.indices((8, 10)).reshape(2, -1).T
    relative = (2 + 4 * grid) / [32, 40]
    angles = relative[:, :, None] * np.pi * 2.0 ** np.arange(4)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=2).reshape(80, 16)
    tokens = patches @ own["tokens"].reshape(48, 8) + own["tokens_bias"]
    tokens = tokens + waves @ np.asarray(params["encoder/place"]["w"], np.float64)
    if restructured:
        tokens, scores = explicit(params, config, tokens, "block_t0")
        plane = tokens.reshape(8, 10, 8)
        corners = itertools.product((0, 2, 4), (0, 2, 4, 6))
        windows = [plane[i : i + 3, j : j + 3].ravel() for i, j in corners]
        tokens = windows @ own["tokens_t0"].reshape(72, 8) + own["tokens_t0_bias"]
        tokens, _ = explicit(params, config, tokens)
    else:
        tokens, scores = explicit(params, config, tokens)
    # float32 through a dozen sums of up to 80 terms.
    np.testing.assert_allclose(attention.scores, scores, rtol=1e-3)
    last = {k: np.asarray(v) for k, v in params["encoder/norm"].items()}
    middle = tokens - tokens.mean(axis=1, keepdims=True)
    normed = middle / np.sqrt(tokens.var(axis=1, keepdims=True) + 1e-5)
    expected = (normed * last["scale"] + last["offset"]).mean(axis=0)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


def test_taylor_comes_near_exact_attention():
    """Logits within 1/2 leave the series an error of 1/48 times exp(1/2) at most."""
    exact = dataclasses.replace(SMALL, kernel=Kernel.exact)
    network, params = started(exact)
    for i in range(2):
        attend = params[f"encoder/block_{i}/attend"]
        attend["w"] = attend["w"] * 0.3
    taylor = trans_network(dataclasses.replace(SMALL, kernel=Kernel.taylor))
    a, b = (jax.jit(n.apply)(params, IMAGE) for n in (network, taylor))
    np.testing.assert_allclose(a.attention.scores, b.attention.scores, rtol=0.04)
    np.testing.assert_allclose(a.features, b.features, atol=0.01)


@pytest.mark.parametrize(
    ("kernel", "restructured"), [(Kernel.relu, 0), (Kernel.taylor, 1)]
)
def test_no_matrix_of_tokens_by_tokens(kernel, restructured):
    """529 tokens, forwards and backwards: the largest array is far below 529^2."""
    config = dataclasses.replace(
        SMALL, window=7, kernel=kernel, features=16, restructured=restructured
    )
    network = trans_network(config)
    image = jnp.zeros((96, 96, 3), jnp.uint8)
    params = jax.eval_shape(network.init, jax.random.key(0), image)

    def loss(params, image):
        return jnp.sum(network.apply(params, image).features)

    largest = max(array_sizes(jax.grad(loss), params, image))
    assert largest < 529**2 / 4
    exact = trans_network(dataclasses.replace(config, kernel=Kernel.exact))
    assert max(array_sizes(exact.apply, params, image)) >= 529**2


@pytest.mark.parametrize("kernel", [Kernel.relu, Kernel.taylor])
def test_gradients_are_finite_and_reach_every_parameter(kernel):
    config = dataclasses.replace(SMALL, kernel=kernel, restructured=1)
    network, params = started(config)

    def loss(params):
        return jnp.sum(network.apply(params, IMAGE).features ** 3)

    gradients = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all()
        assert np.any(leaf), jax.tree_util.keystr(path)


def test_a_vector_is_handed_on_behind_the_tokens():
    network, params = started(SMALL)
    vector = jnp.array([1.0, 2.0])
    plain = jax.jit(network.apply)(params, IMAGE).features
    joined = jax.jit(network.apply)(params, IMAGE, vector).features
    np.testing.assert_allclose(joined[:-2], plain, rtol=1e-5)
    np.testing.assert_array_equal(joined[-2:], vector)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 30}, "width=30 must be a multiple of heads=4"),
        ({"layers": 0}, "layers=0 must be at least 1"),
        ({"restructured": -1}, "restructured=-1 must be at least 0"),
        ({"features": 0}, "features=0 must be at least 1"),
        ({"kernel": Kernel.taylor, "order": 3}, "order=3 must be even"),
        (
            {"kernel": Kernel.positive, "projection": Projection.none},
            "projection=none goes with kernel=relu only",
        ),
        ({"kernel": Kernel.oprf, "spread": -1.0}, "spread=-1.0 must be a mean"),
        (
            {"kernel": Kernel.saderf, "balance": (1.0,)},
            r"balance=\(1.0,\) must be depth=8 positive numbers",
        ),
    ],
)
def test_refuses_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        TransConfig(**settings)


def test_constants_of_the_features_can_be_fixed():
    balance = (0.5, 2.0, 1.0, 1.5)
    config = dataclasses.replace(
        SMALL, kernel=Kernel.saderf, spread=3.0, balance=list(balance)
    )
    design = Design(4, spread=3.0, balance=balance)
    x, y = np.random.default_rng(1).standard_normal((2, 5, 4)).astype(np.float32)
    made = config.feature_map()(x, y)
    jax.tree.map(
        np.testing.assert_array_equal, made, feature_map(Kernel.saderf, design)(x, y)
    )
    loose = feature_map(Kernel.saderf, Design(4))(x, y)
    assert not np.allclose(made[0].exponent, loose[0].exponent)
    assert hash(config)  # a list has none
    assert config.feature_map().rowwise


def test_directions_of_one_length_are_warned_of():
    with pytest.warns(UserWarning, match="norms=sqrt_d at depth=4"):
        dataclasses.replace(SMALL, kernel=Kernel.positive, norms=Norms.sqrt_d)


def test_refuses_to_restructure_too_few_tokens():
    network = trans_network(dataclasses.replace(SMALL, restructured=3))
    message = "restructured=3 is too often: 2 of them leave 1x1 tokens"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), jnp.asarray(IMAGE))


def test_refuses_what_is_no_image():
    flat = jax.ShapeDtypeStruct((32, 40), jnp.uint8)
    with pytest.raises(ValueError, match=r"image has shape \(32, 40\); expected one"):
        jax.eval_shape(trans_network(SMALL).init, jax.random.key(0), flat)


def test_random_features_come_from_the_seed():
    features = []
    for seed in (0, 0, 1):
        network, params = started(dataclasses.replace(SMALL, seed=seed))
        features.append(np.asarray(jax.jit(network.apply)(params, IMAGE).features))
    equal = [np.array_equal(a, b) for a, b in itertools.pairwise(features)]
    assert equal == [True, False]
