"""The policy: the encoder looks, the controller acts. The only `hk.transform`."""

import haiku as hk
import jax
import jax.numpy as jnp

from agents import controllers, distributions
from agents.controllers import Controller, ControllerConfig
from agents.core import Carry, Decision, Params, Policy
from envs.core import Spec
from iap import Encoder, EncoderConfig


def make_policy(
    spec: Spec, encoder: EncoderConfig, controller: ControllerConfig
) -> Policy:
    """A policy for worlds of this spec.

    Raises:
      ValueError: the encoder does not fit the observation; found by tracing shapes,
        before anything compiles.
    """

    def forward(observation, carry):
        encoding = Encoder(encoder)(observation)
        outputs = distributions.parameters(spec.action)
        raw, carry = Controller(controller, outputs)(encoding.features, carry)
        return carry, Decision(
            action=distributions.mode(spec.action, raw), attention=encoding.attention
        )

    network = hk.without_apply_rng(hk.transform(forward))

    def start() -> Carry:
        return controllers.start(controller)

    def init(key: jax.Array) -> Params:
        observation = jnp.zeros(spec.observation.shape, spec.observation.dtype)
        return network.init(key, observation, start())

    def act(params, carry, observation, key=None):
        del key  # the action is the mode; stochastic policies will draw from it
        return network.apply(params, observation, carry)

    jax.eval_shape(init, jax.random.key(0))
    return Policy(init=init, start=start, act=act)


def parameter_count(params: Params) -> int:
    """How many numbers a policy holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
