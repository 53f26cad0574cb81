"""Config -> Parts: the only place where worlds, policies and learners are put together.

Tracks are named by their Gymnasium seeds. Nothing below `TRAINING` is ever trained on.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from agents import keys as names
from agents.core import Learner, Params, Policy
from envs import registry
from envs.core import Environment, HostVectorEnv, Spec, World
from envs.variants import ORIGINAL
from envs.vector import vectorise
from experiments.config import AGENTS, Config, WorkersOn
from experiments.evaluate import Evaluator, evaluator, host_evaluator, level_key
from experiments.folder import RunError
from experiments.overlay import Style
from experiments.record import Film, Recorder, host_recorder, recorder

TRAINING = 100_000  # and up, as many as `env.tracks`
VALIDATION = range(1000, 1032)  # chooses the best policy of a run
TEST = range(2000, 2100)  # scores it

Filmer: TypeAlias = Callable[[Path, Params, int, str], Film]
"""(path, params, level, subtitle) -> Film."""


class Parts(NamedTuple):
    """What a run is made of. What takes a while is made when it is first called for.

    Attributes:
      key: the root of all its random keys.
      devices: the JAX devices of this process that it uses.
      policy: what acts.
      learner: () -> what improves the policy.
      world: () -> the training tracks; of simulators on the host, their seeds i32[].
      evaluate: scores the policy on given levels.
      film: films the episode that `evaluate` plays on a level.
    """

    key: jax.Array
    devices: Sequence[Any]
    policy: Policy
    learner: Callable[[], Learner]
    world: Callable[[], World]
    evaluate: Evaluator
    film: Filmer


def build(config: Config) -> Parts:
    """The parts of a run; what does not fit is found here, before anything compiles.

    Raises:
      ValueError: settings that do not fit together.
      RunError: more devices than there are.
      ChildProcessError: a simulator on the host cannot be started.
    """
    if registry.on_host(config.env):
        return _on_host(config)
    key = jax.random.key(config.seed)
    devices = _devices(config.devices)

    def env(levels: Sequence[int]) -> Environment:
        return registry.transformed(config.env, registry.make(config.env, levels))

    def world() -> World:
        return env(range(TRAINING, TRAINING + config.env.tracks)).world

    def learner() -> Learner:
        batch = vectorise(sample, agent.worlds(config.agent))
        everywhere = _everywhere(config.devices) if config.distributed else devices
        return agent.make(config.agent, policy, batch, config.env.tracks, everywhere)

    # One track gives the world's functions and shapes at once.
    sample = env(VALIDATION[:1])
    agent = AGENTS[config.agent.name]
    policy = agent.policy(sample.spec, config.encoder, config.controller)
    played = names.stream(key, "evaluate")
    return Parts(
        key=key,
        devices=devices,
        policy=policy,
        learner=learner,
        world=world,
        evaluate=evaluator(policy, env, played, devices),
        film=_filmer(config, policy, played, devices[0]),
    )


def _on_host(config: Config) -> Parts:
    """As `build`, for a world that is simulated on the host."""
    if config.distributed:
        raise ValueError(
            f"distributed=true does not go with env={config.env.name}, which is "
            "simulated on the host; leave it out"
        )
    agent = AGENTS[config.agent.name]

    def learner() -> Learner:
        return agent.make(config.agent, policy, env, config.env.tracks, devices)

    devices = _devices(config.devices)
    on_ray = config.workers_on is WorkersOn.ray
    env = registry.host(config.env, config.workers, config.timeout, on_ray)
    policy = agent.policy(env.spec, config.encoder, config.controller)
    return Parts(
        key=jax.random.key(config.seed),
        devices=devices,
        policy=policy,
        learner=learner,
        world=lambda: np.arange(TRAINING, TRAINING + config.env.tracks, dtype=np.int32),
        evaluate=host_evaluator(policy, env),
        film=_host_filmer(config, policy, env),
    )


def _devices(wanted: int) -> Sequence[Any]:
    present = jax.local_devices()
    if wanted > len(present):
        raise RunError(
            f"devices={wanted}, but there are {len(present)}; choose fewer, or 0 for "
            "all"
        )
    return present[: wanted or None]


def _everywhere(wanted: int) -> Sequence[Any]:
    """The devices of all processes, as many of each; `_devices` are this one's."""
    found = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    groups = itertools.groupby(found, lambda device: device.process_index)
    return [device for _, own in groups for device in [*own][: wanted or None]]


def _filmer(config: Config, policy: Policy, key: jax.Array, device: Any) -> Filmer:
    """Compiles at the first film, once."""

    @functools.cache
    def record() -> Recorder:
        game = registry.make(config.env, VALIDATION[:1])
        env = registry.transformed(config.env, game)
        return recorder(game, env, policy, _style(config, env.spec))

    def film(path: Path, params: Params, level: int, subtitle: str) -> Film:
        return record()(
            path,
            jax.device_put(
                params, device
            ),  # else trained and loaded ones compile apart
            registry.make(config.env, [level]).world,
            0,
            level_key(key, level),
            title=f"{config.env.name}, track {level}",
            subtitle=_worn(config) + subtitle,
            height=config.height,
        )

    return film


def _host_filmer(config: Config, policy: Policy, env: HostVectorEnv) -> Filmer:
    record = host_recorder(env, policy, _style(config, env.spec))

    def film(path: Path, params: Params, level: int, subtitle: str) -> Film:
        return record(
            path,
            params,
            level,
            title=f"{registry.title(config.env)}, seed {level}",
            subtitle=_worn(config) + subtitle,
            height=config.height,
        )

    return film


def _worn(config: Config) -> str:
    """The variant, for the second line of a film."""
    variant = registry.variant(config.env)
    if variant == ORIGINAL:
        return ""
    return f"{variant} {registry.manner(config.env)}".strip() + "; "


def _style(config: Config, spec: Spec) -> Style:
    H, W, _ = spec.image.shape
    return Style(
        image=(H, W),
        window=config.encoder.window,
        stride=config.encoder.stride,
        action=spec.action,
        labels=registry.REGISTRY[config.env.name].labels(config.env),
        heat_map=config.heat_map,
    )
