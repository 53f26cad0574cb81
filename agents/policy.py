"""The policy: the encoder looks, the controller acts. The only `hk.transform`s."""

from functools import partial
from typing import Any, TypeAlias

import haiku as hk
import jax
import jax.numpy as jnp

from agents import controllers, distributions
from agents import keys as names
from agents.controllers import Controller, ControllerConfig
from agents.core import Carry, Decision, Params, Policy
from envs.core import Box, Spec
from iap import Encoder, EncoderConfig, Encoding, TransConfig, TransEncoder

Eyes: TypeAlias = EncoderConfig | TransConfig
"""The settings of any encoder."""


def make_policy(spec: Spec, encoder: Eyes, controller: ControllerConfig) -> Policy:
    """A policy for worlds of this spec that has a mode and nothing else.

    Raises:
      ValueError: the encoder does not fit the observation, found by tracing shapes
        before anything compiles; or it draws its patches.
    """
    if isinstance(encoder, EncoderConfig) and encoder.temperature:
        raise ValueError(
            f"encoder.temperature is {encoder.temperature}, but patches are drawn for "
            "a policy gradient only; leave it 0, or choose agent=ppo"
        )

    def forward(observation, carry):
        encoding = _look(encoder, observation)
        outputs = distributions.parameters(spec.action)
        raw, _, carry = Controller(controller, outputs)(encoding.features, carry)
        return carry, Decision(
            action=distributions.mode(spec.action, raw), attention=encoding.attention
        )

    network = hk.without_apply_rng(hk.transform(forward))

    def act(params, carry, observation, key=None):
        del key  # the action is the mode
        return network.apply(params, observation, carry)

    return _policy(spec, controller, network, act)


def make_actor_critic(
    spec: Spec, encoder: Eyes, controller: ControllerConfig
) -> Policy:
    """A policy that also has a distribution over its decisions, and a value.

    Distribution and value are read off the same controller. Where the encoder draws its
    patches, a decision is the draw and the action together.

    Raises:
      ValueError: the encoder does not fit the observation, found by tracing shapes
        before anything compiles.
    """

    def control(features, carry, first=None):
        outputs = distributions.outputs(spec.action)
        return Controller(controller, outputs, critic=True)(features, carry, first)

    def forward(observation, carry, key=None):
        encoding = _look(encoder, observation, key)
        return encoding, *control(encoding.features, carry)

    # The halves of a network find their parameters among those of the whole.
    network, looking, controlling = (
        hk.without_apply_rng(hk.transform(f))
        for f in (forward, partial(_look, encoder), control)
    )
    draws = isinstance(encoder, EncoderConfig) and encoder.temperature > 0

    def log_prob(of_choice, raw, action):
        of_action = distributions.log_prob(spec.action, raw, action)
        return of_action + of_choice if draws else of_action

    def act(params, carry, observation, key=None):
        if key is None:
            encoding, raw, _, carry = network.apply(params, observation, carry)
            action = distributions.expected(spec.action, raw)
            return carry, Decision(action=action, attention=encoding.attention)
        encoding, raw, value, carry = network.apply(
            params, observation, carry, names.stream(key, "patches")
        )
        action = distributions.sample(spec.action, raw, names.stream(key, "action"))
        return carry, Decision(
            action=action,
            attention=encoding.attention,
            choice=encoding.choice,
            log_prob=log_prob(encoding.log_prob, raw, action),
            value=value,
        )

    def see(params, observation, choice):
        encoding = looking.apply(params, observation, None, choice)
        return encoding.features, encoding.log_prob

    def evaluate(params, carry, seen, first, action):
        features, of_choice = seen
        raw, value, _ = controlling.apply(params, features, carry, first)
        entropy = jax.vmap(partial(distributions.entropy, spec.action))(raw)
        return jax.vmap(log_prob)(of_choice, raw, action), entropy, value

    policy = _policy(spec, controller, network, act)
    return policy._replace(see=see, evaluate=evaluate)


def _look(
    encoder: Eyes, observation: Any, key: Any = None, choice: Any = None
) -> Encoding:
    """Encodes an image, or the pair of an image and a vector of what else is known."""
    pair = observation if isinstance(observation, tuple) else (observation, None)
    image, vector = pair
    if isinstance(encoder, TransConfig):
        return TransEncoder(encoder)(image, vector)
    return Encoder(encoder)(image, key, choice, vector)


def _policy(
    spec: Spec, controller: ControllerConfig, network: hk.Transformed | Any, act: Any
) -> Policy:
    def start() -> Carry:
        return controllers.start(controller)

    def init(key: jax.Array) -> Params:
        return network.init(key, _blank(spec.observation), start())

    jax.eval_shape(init, jax.random.key(0))
    return Policy(init=init, start=start, act=act)


def _blank(observation: Any) -> Any:
    """An observation of zeros: of an image, or of an image and a vector."""
    if isinstance(observation, Box):
        return jnp.zeros(observation.shape, observation.dtype)
    return tuple(map(_blank, observation))


def parameter_count(params: Params) -> int:
    """How many numbers a policy holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
