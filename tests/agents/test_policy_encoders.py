"""Policies that see through every kind of encoder."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.controllers import ControllerConfig, Core
from agents.policy import make_actor_critic, make_policy, parameter_count
from envs.core import Box, Spec
from iap import EncoderConfig, Kernel, Kind, TransConfig

CAR = Box((3,), (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PICTURE = Box((24, 24, 3), (0,), (255,), "uint8")
MLP = ControllerConfig(Core.mlp, 8)
ENCODERS = {
    "mask": EncoderConfig(kind=Kind.mask, content=True),
    "heads": EncoderConfig(heads=2, kernel=Kernel.taylor),
    "trans": TransConfig(width=8, heads=2, layers=1, hidden=8),
    "tokens to token": TransConfig(
        width=8, heads=2, layers=1, hidden=8, restructured=1
    ),
}
FEATURES = {"mask": 36 * 6, "heads": 20, "trans": 8, "tokens to token": 8}


def spec(observation: Any = PICTURE):
    return Spec(observation, CAR, 1000, 50)


def picture(seed=0):
    return jax.random.randint(jax.random.key(seed), (24, 24, 3), 0, 256, jnp.uint8)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_drives(name):
    """Its features' count is the controller's, its picture decides the action."""
    policy = make_policy(spec(), ENCODERS[name], MLP)
    params = jax.jit(policy.init)(jax.random.key(0))
    controlled = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(params)
        if "controller" in jax.tree_util.keystr(path) and leaf.ndim == 2
    ]
    assert FEATURES[name] in {len(leaf) for leaf in controlled}
    act = jax.jit(policy.act)
    _, decision = act(params, policy.start(), picture(), None)
    _, other = act(params, policy.start(), picture(1), None)
    assert decision.attention.scores.shape == (36,)
    assert (decision.action != other.action).any()


def test_a_vector_beside_the_picture_reaches_the_controller():
    """The observation is then a pair, of boxes in the spec, of arrays in the world."""
    speed = Box((2,), (-1.0,), (1.0,))
    plain = make_policy(spec(), EncoderConfig(top_k=3), MLP)
    policy = make_policy(spec((PICTURE, speed)), EncoderConfig(top_k=3), MLP)
    key = jax.random.key(0)
    params = jax.jit(policy.init)(key)
    assert parameter_count(params) == parameter_count(plain.init(key)) + 2 * 8
    act = jax.jit(policy.act)
    _, slow = act(params, policy.start(), (picture(), jnp.zeros(2)), None)
    _, fast = act(params, policy.start(), (picture(), jnp.ones(2)), None)
    assert (slow.action != fast.action).any()


def test_a_policy_gradient_reaches_trans():
    policy = make_actor_critic(spec(), ENCODERS["trans"], MLP)
    assert policy.see is not None
    assert policy.evaluate is not None
    params = jax.jit(policy.init)(jax.random.key(0))
    carry = policy.start()
    _, decision = jax.jit(policy.act)(params, carry, picture(), jax.random.key(1))
    assert decision.choice == ()

    def log_prob(params):
        seen = policy.see(params, picture(), ())
        one = jax.tree.map(lambda x: x[None], (seen, jnp.array(True), decision.action))
        return policy.evaluate(params, carry, *one)[0][0]

    value, gradient = jax.jit(jax.value_and_grad(log_prob))(params)
    np.testing.assert_allclose(value, decision.log_prob, rtol=1e-4)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
    assert np.any(gradient["encoder"]["tokens"])
