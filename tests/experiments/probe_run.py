"""The command line with a world and an agent that take no time.

As a program (`python -m tests.experiments.probe_run`) it is `run.py` with these two.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents import keys as names
from agents.core import Learner
from agents.rollout import episode_keys, returns
from envs import distractions
from envs.registry import REGISTRY, Entry
from envs.variants import ORIGINAL, in_order, worn
from experiments.config import AGENTS, GROUPS, Agent
from tests.probes import dot_world

VARIANTS = (ORIGINAL, "bars", "noise")


@dataclass(frozen=True)
class ProbeConfig:
    """A bright dot.

    Attributes:
      name: "Probe".
      variant: original, bars or noise.
      tracks: levels of training.
      time_limit: frames.
      action_repeat: frames.
      frame_stack: pictures.
    """

    name: str = "Probe"
    variant: str = ORIGINAL
    tracks: int = 4
    time_limit: int = 0
    action_repeat: int = 2
    frame_stack: int = 1

    def __post_init__(self):
        object.__setattr__(self, "variant", in_order(self.variant, VARIANTS))


def make_world(config, levels):
    """`dot_world` whose episode i plays the level `levels[i]`."""
    dot = dot_world(max_steps=12)
    env = dot._replace(
        world=(dot.world, jnp.asarray(levels, jnp.int32)),
        reset=lambda world, episode, key: dot.reset(world[0], world[1][episode], key),
        step=lambda world, *rest: dot.step(world[0], *rest),
        observe=lambda world, state: dot.observe(world[0], state),
        paint=lambda world, *rest: dot.paint(world[0], *rest),
    )
    if "noise" in worn(config.variant):
        env = distractions.noise(env, alpha=0.9)
    return distractions.bars(env) if "bars" in worn(config.variant) else env


@dataclass(frozen=True)
class ClimbConfig:
    """Random search: what did better is kept.

    Attributes:
      name: "climb".
      episodes: of a trial.
      std: of its change.
    """

    name: str = "climb"
    episodes: int = 2
    std: float = 0.1


class ClimbState(NamedTuple):
    params: Any
    best: jax.Array


def make_agent(config, policy, env, levels, devices) -> Learner:
    def init(key):
        return ClimbState(policy.init(key), jnp.float32(-1e6))

    def play(params, world, key):
        episodes = jax.random.randint(
            names.stream(key, "levels"), (env.size,), 0, levels
        )
        act = jax.vmap(lambda c, o: policy.act(params, c, o, None))
        carry = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (env.size, *x.shape)), policy.start()
        )
        keys = episode_keys(names.stream(key, "episodes"), env.size)
        return returns(env, world, act, carry, episodes, keys)

    @jax.jit
    def update(state, world, key):
        leaves, structure = jax.tree.flatten(state.params)
        keys = jax.random.split(names.stream(key, "ask"), len(leaves))
        trial = structure.unflatten(
            x + config.std * jax.random.normal(k, x.shape)
            for x, k in zip(leaves, keys, strict=True)
        )
        stats = play(trial, world, key)
        score = stats.returns.mean()
        better = score > state.best
        params = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), trial, state.params
        )
        metrics: Mapping[str, jax.Array] = {
            "return_mean": score,
            "return_best": stats.returns.max(),
            "decisions": stats.decisions.sum(),
            "frames": stats.frames.sum(),
        }
        return ClimbState(params, jnp.maximum(score, state.best)), metrics

    return Learner(init, update, lambda state: state.params, lambda world: world)


ARGUMENTS = (
    *("env=Probe", "agent=climb", "controller=mlp", "controller.size=4"),
    *("encoder.window=3", "encoder.stride=3", "encoder.top_k=3", "encoder.features=8"),
    *("evaluate_every=2", "save_every=2", "film_every=0"),
)
"""Settings of a run that takes seconds."""


def register(set_item) -> None:
    """Adds the two by `set_item(mapping, name, value)`."""
    entry = Entry(ProbeConfig, make_world, lambda _: ("y", "x"), VARIANTS)
    set_item(REGISTRY, "Probe", entry)
    set_item(GROUPS["env"], "Probe", ProbeConfig)
    set_item(AGENTS, "climb", Agent(ClimbConfig, make_agent))
    set_item(GROUPS["agent"], "climb", ClimbConfig)


if __name__ == "__main__":
    from experiments.main import main

    register(lambda mapping, name, value: mapping.__setitem__(name, value))
    sys.exit(main(sys.argv[1:]))
