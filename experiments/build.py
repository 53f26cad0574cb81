"""Config -> Parts: the only place where worlds, policies and learners are put together.

Tracks are named by their Gymnasium seeds. Nothing below `TRAINING` is ever trained on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from agents.core import Learner, Policy
from agents.policy import make_policy
from envs import registry
from envs.core import Environment, World
from envs.vector import vectorise
from experiments.config import AGENTS, Config
from experiments.folder import RunError

TRAINING = 100_000  # and up, as many as `env.tracks`
VALIDATION = range(1000, 1032)  # chooses the best policy of a run
TEST = range(2000, 2100)  # scores it


class Parts(NamedTuple):
    """What a run is made of.

    Attributes:
      devices: those that the run uses.
      policy: what acts.
      game: levels -> the world frame by frame.
      env: game -> the same world as the agent plays it.
      learner: () -> (Learner, the training world's constant data, on its devices).
        Called only to train: making the training tracks takes a while.
    """

    devices: Sequence[jax.Device]
    policy: Policy
    game: Callable[[Sequence[int]], Environment]
    env: Callable[[Environment], Environment]
    learner: Callable[[], tuple[Learner, World]]


def build(config: Config) -> Parts:
    """The parts of a run; what does not fit is found here, before anything compiles.

    Raises:
      ValueError: settings that do not fit together.
      RunError: more devices than there are.
    """
    devices = _devices(config.devices)

    def game(levels: Sequence[int]) -> Environment:
        return registry.make(config.env, levels)

    def env(game: Environment) -> Environment:
        return registry.transformed(config.env, game)

    def learner() -> tuple[Learner, Any]:
        tracks = config.env.tracks
        world = env(game(range(TRAINING, TRAINING + tracks)))
        batch = vectorise(world, config.agent.episodes)
        make = AGENTS[config.agent.name].make
        made = make(config.agent, policy, batch, tracks, devices)
        return made, made.place(world.world)

    spec = env(game(VALIDATION[:1])).spec
    policy = make_policy(spec, config.encoder, config.controller)
    return Parts(devices, policy, game, env, learner)


def _devices(wanted: int) -> Sequence[jax.Device]:
    present = jax.local_devices()
    if wanted > len(present):
        raise RunError(
            f"devices={wanted}, but there are {len(present)}; choose fewer, or 0 for "
            "all"
        )
    return present[: wanted or None]
