"""The settings of PPO, and what they have to fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents import minibatches
from agents.core import Policy
from envs.core import HostVectorEnv, VectorEnv


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation.

    Attributes:
      name: "ppo".
      worlds: how many are played side by side.
      steps: decisions in each world, from one update to the next.
      epochs: times that an update goes over them.
      minibatches: parts of an epoch, a gradient step each.
      learning_rate: of Adam.
      decay: iterations over which it falls to 0 in a straight line; 0 keeps it.
      discount: of a reward one decision later.
      trace: lambda of the advantage estimates.
      clip: how far a decision's probability may move from what it was, as a ratio.
      value_clip: the same for values, in standard deviations of the returns; 0 does
        not clip.
      value_weight: of the value loss.
      entropy_weight: of the entropy of actions, which is wanted.
      gradient_norm: longer gradients are cut to this length.
      target_kl: an update stops after the epoch in which the policy has moved this far
        from what it was; 0 never stops it.
      normalise: whether the value head predicts returns by their own mean and standard
        deviation, which are followed.
      patience: in training, an episode is truncated after this many decisions in a row
        without reward; 0 plays to the end.
      skips: after an iteration whose last so many gradient steps, or more with those
        before it, were not finite, training stops.
    """

    name: str = "ppo"
    worlds: int = 64
    steps: int = 64
    epochs: int = 4
    minibatches: int = 8
    learning_rate: float = 5e-4
    decay: int = 0
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.0
    value_weight: float = 0.5
    entropy_weight: float = 0.005
    gradient_norm: float = 0.5
    target_kl: float = 0.05
    normalise: bool = True
    patience: int = 10
    skips: int = 100


def check(
    config: PPOConfig,
    policy: Policy,
    env: VectorEnv | HostVectorEnv,
    devices: Sequence[Any],
) -> None:
    """Raises ValueError for settings that do not go together, or with the rest.

    Args:
      config: the settings.
      policy: what is improved.
      env: where.
      devices: that are there.
    """
    whole = ("worlds", "steps", "epochs", "minibatches", "skips")
    bounds = (*((name, 1) for name in whole), ("decay", 0), ("patience", 0))
    for name, least in bounds:
        if (value := getattr(config, name)) < least:
            raise ValueError(f"agent.{name} is {value}; it must be at least {least}")
    for name in ("learning_rate", "clip", "gradient_norm"):
        if not (value := getattr(config, name)) > 0:
            raise ValueError(f"agent.{name} is {value}; it must be greater than 0")
    for name in ("value_clip", "value_weight", "entropy_weight", "target_kl"):
        if not (value := getattr(config, name)) >= 0:
            raise ValueError(f"agent.{name} is {value}; it must be at least 0")
    for name in ("discount", "trace"):
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise ValueError(f"agent.{name} is {value}; it must be between 0 and 1")
    if policy.see is None or policy.evaluate is None:
        raise ValueError("agent=ppo needs a policy with a distribution and a value")
    _check_steps(config, policy, env)
    name = "worlds" if minibatches.recurrent(policy) else "steps"
    number = getattr(config, name)
    if number % config.minibatches:
        raise ValueError(
            f"agent.minibatches is {config.minibatches}, which does not divide "
            f"agent.{name}={number}; choose a divisor of it"
        )
    if len(devices) > config.worlds:
        raise ValueError(
            f"there are {len(devices)} devices for agent.worlds={config.worlds}; "
            f"choose devices={config.worlds} or fewer, or more worlds"
        )


def _check_steps(
    config: PPOConfig, policy: Policy, env: VectorEnv | HostVectorEnv
) -> None:
    steps, longest = config.steps, env.spec.max_steps
    if isinstance(env, HostVectorEnv):
        if steps < longest:
            unit = 1 if minibatches.recurrent(policy) else config.minibatches
            raise ValueError(
                f"agent.steps is {steps}, but an episode of this world may take "
                f"{longest} decisions, and a simulator on the host begins a new one in "
                f"each iteration, so that the rest would never be seen; choose "
                f"agent.steps={-(-longest // unit) * unit} or more, or a shorter "
                "env.time_limit"
            )
        return
    if env.size != config.worlds:
        raise ValueError(f"agent.worlds is {config.worlds}, but there are {env.size}")
    if steps > longest:
        raise ValueError(
            f"agent.steps is {steps}, but an episode of this world is over "
            f"after {longest} decisions; choose "
            f"agent.steps={longest} or fewer, or a longer env.time_limit"
        )
