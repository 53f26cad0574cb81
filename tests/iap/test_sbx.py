"""The encoder as the eyes of somebody else's agent: docs/examples/train_with_sbx.py."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import encode
from iap.parameters import random_parameters

EXAMPLE = Path(__file__).parents[2] / "docs/examples/train_with_sbx.py"
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 3), dtype=np.uint8)


def test_images_with_channels_first_are_encoded_and_gradients_reach_the_weights():
    pytest.importorskip("flax")
    spec = importlib.util.spec_from_file_location("train_with_sbx", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    extractor = example.PatchEncoder(example.CONFIG, 512, jax.nn.relu)
    first = jnp.asarray(IMAGES.transpose(0, 3, 1, 2))
    weights, bias = random_parameters(example.CONFIG, seed=0)
    params = {"params": {"encoder": {"weights": weights, "bias": bias}}}
    made = jax.eval_shape(extractor.init, jax.random.key(0), first)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)

    @jax.jit
    def run(params):
        features, pull = jax.vjp(lambda p: extractor.apply(p, first), params)
        one = [encode(example.CONFIG, x, weights, bias).features for x in IMAGES]
        return features, jnp.stack(one), pull(features)[0]

    found, expected, gradient = run(params)
    # Batched products may sum in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    columns = np.abs(gradient["params"]["encoder"]["weights"]).sum(axis=0)
    assert columns.shape == (12,)  # queries, keys and contents
    assert (columns > 0).all()


@pytest.mark.slow
# Not pytest.importorskip: what SBX imports warns, which is an error in here.
@pytest.mark.skipif(not importlib.util.find_spec("sbx"), reason="SBX is not installed")
def test_the_example_runs():
    small = {"--steps": "512", "--worlds": "4", "--tracks": "2", "--length": "20"}
    command = [
        sys.executable,
        str(EXAMPLE),
        *(a for pair in small.items() for a in pair),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    before, trained, after = run.stdout.splitlines()[1:]
    assert before.startswith("before ") and after.startswith("after ")
    assert trained.startswith("trained for 512 frames")
