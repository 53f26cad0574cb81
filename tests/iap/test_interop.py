"""Every framework's module gives the numbers of haiku's from the same parameters."""

import sys

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import (
    Encoder,
    EncoderConfig,
    Kernel,
    TransConfig,
    TransEncoder,
    encode,
    trans_network,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
CONFIGS = {
    "default": EncoderConfig(),
    "all": EncoderConfig(kernel=Kernel.taylor, content=True, score=True, heads=2),
    "no bias": EncoderConfig(bias=False, temperature=1.0),
}
CAMERAS = IMAGE, IMAGE[:9, :, :1]
KEY = jax.random.key(3)
VECTOR = jnp.array([0.5, -0.5])


def reference(config, image=IMAGE):
    """Parameters of haiku's module, and what it makes of them."""
    network = hk.without_apply_rng(
        hk.transform(lambda image: Encoder(config)(image, KEY, None, VECTOR))
    )
    params = jax.jit(network.init)(jax.random.key(0), image)
    return params["encoder"], jax.jit(network.apply)(params, image)


def assert_equal(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CONFIGS)
def test_linen(name):
    linen = pytest.importorskip("iap.interop.linen", exc_type=ImportError)
    config = CONFIGS[name]
    params, expected = reference(config)
    module = linen.Encoder(config)
    own = jax.jit(module.init)(jax.random.key(0), IMAGE)["params"]
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, params)
    # Truncated at two standard deviations: 0.88 of the normal's.
    assert 0.7 < float(own["weights"].std()) * len(own["weights"]) ** 0.5 < 1.1
    apply = jax.jit(lambda p: module.apply({"params": p}, IMAGE, KEY, None, VECTOR))
    assert_equal(apply(params), expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_equinox(name):
    equinox = pytest.importorskip("iap.interop.equinox", exc_type=ImportError)
    import equinox as eqx

    config = CONFIGS[name]
    params, expected = reference(config)
    module = equinox.Encoder(config, 3, key=jax.random.key(0))
    assert module.weights.shape == params["weights"].shape
    assert 0.7 < float(module.weights.std()) * len(module.weights) ** 0.5 < 1.1
    module = eqx.tree_at(lambda m: m.weights, module, params["weights"])
    assert (module.bias is None) == ("bias" not in params)
    call = eqx.filter_jit(lambda m: m(IMAGE, key=KEY, vector=VECTOR))
    assert_equal(call(module), expected)


@pytest.mark.parametrize("name", ["all", "no bias"])
def test_several_cameras(name):
    linen = pytest.importorskip("iap.interop.linen", exc_type=ImportError)
    equinox = pytest.importorskip("iap.interop.equinox", exc_type=ImportError)
    import equinox as eqx

    config = CONFIGS[name]
    params, expected = reference(config, CAMERAS)
    flax = linen.Encoder(config)
    own = jax.eval_shape(flax.init, jax.random.key(0), CAMERAS)["params"]
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, dict(params))
    apply = jax.jit(lambda p: flax.apply({"params": p}, CAMERAS, KEY, None, VECTOR))
    assert_equal(apply(params), expected)

    module = equinox.Encoder(config, (3, 1), key=jax.random.key(0))
    weights = tuple(params[f"weights_{i}"] for i in range(2))
    assert jax.tree.map(jnp.shape, module.weights) == jax.tree.map(jnp.shape, weights)
    assert (module.bias is None) == ("bias_0" not in params)
    module = eqx.tree_at(lambda m: m.weights, module, weights)
    call = eqx.filter_jit(lambda m: m(CAMERAS, key=KEY, vector=VECTOR))
    assert_equal(call(module), expected)


@pytest.mark.parametrize("image", [IMAGE, CAMERAS], ids=["one", "cameras"])
def test_trans(image):
    linen = pytest.importorskip("iap.interop.linen", exc_type=ImportError)
    equinox = pytest.importorskip("iap.interop.equinox", exc_type=ImportError)
    import equinox as eqx

    config = TransConfig(width=8, heads=2, hidden=12)
    network = hk.without_apply_rng(
        hk.transform(lambda image: TransEncoder(config)(image, VECTOR))
    )
    params = jax.jit(network.init)(KEY, image)
    expected = jax.jit(network.apply)(params, image)

    plain = trans_network(config)
    assert_equal(jax.jit(plain.init)(KEY, image), params)
    assert_equal(jax.jit(plain.apply)(params, image, VECTOR), expected)

    flax = linen.TransEncoder(config)
    own = jax.jit(flax.init)(KEY, image)["params"]
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, {"trans": params})
    apply = jax.jit(lambda p: flax.apply({"params": {"trans": p}}, image, VECTOR))
    assert_equal(apply(params), expected)

    module = eqx.filter_jit(equinox.TransEncoder)(config, image, key=KEY)
    assert_equal(module.params, params)
    call = eqx.filter_jit(lambda m: m(image, vector=VECTOR))
    assert_equal(call(module), expected)


def test_functions_alone():
    params, expected = reference(CONFIGS["all"])
    call = jax.jit(lambda p: encode(CONFIGS["all"], IMAGE, **p, key=KEY, vector=VECTOR))
    assert_equal(call(params), expected)


@pytest.mark.parametrize(
    ("module", "framework"), [("linen", "flax"), ("equinox", "equinox")]
)
def test_says_what_is_missing(module, framework, monkeypatch):
    import importlib

    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.delitem(sys.modules, f"iap.interop.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install {framework}\."):
        importlib.import_module(f"iap.interop.{module}")
