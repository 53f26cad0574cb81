"""PPO on small worlds, for the tests of it."""

import jax
import numpy as np

from agents import keys
from iap import EncoderConfig

CONTENT = EncoderConfig(window=2, stride=2, top_k=2, features=8, content=True)
QUICK = {
    **{"worlds": 16, "steps": 16, "minibatches": 4, "learning_rate": 5e-3},
    **{"target_kl": 0.0, "patience": 0},
}


def improve(learner, world, iterations, state=None, start=0):
    """The state after so many iterations, and the last one's metrics."""
    root = keys.stream(jax.random.key(0), "train")
    state = learner.init(jax.random.key(0)) if state is None else state
    metrics = {}
    for iteration in range(start, iterations):
        state, metrics = learner.update(state, world, keys.at(root, iteration))
    return state, metrics


def same(a, b):
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)
