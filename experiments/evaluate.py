"""Evaluation: the mean policy plays its mode on given levels, each to the end."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from agents import host_rollout
from agents import keys as names
from agents.core import Params, Policy
from agents.rollout import EpisodeStats, returns
from envs.core import Environment, HostVectorEnv, World
from envs.vector import vectorise

BATCH = 32
"""Levels that are played at once, always: one compilation serves any number."""


class Evaluation(NamedTuple):
    """Episodes, one for each level.

    Attributes:
      levels: their names.
      returns: f32[N], undiscounted.
      decisions: taken by the policy, all episodes together.
      frames: game frames played, all episodes together.
    """

    levels: Sequence[int]
    returns: np.ndarray
    decisions: int
    frames: int

    @property
    def mean(self) -> float:
        """The score: mean return."""
        return float(np.mean(self.returns, dtype=np.float64))

    @property
    def sd(self) -> float:
        """Standard deviation of the returns over the levels (divided by N)."""
        return float(np.std(self.returns, dtype=np.float64))


Evaluator: TypeAlias = Callable[[Params, Sequence[int]], Evaluation]
"""(params, levels) -> Evaluation."""


def level_key(key: jax.Array, level: jax.Array | int) -> jax.Array:
    """The key of the episode on a level, whichever set of levels it is played in."""
    return names.at(key, level)


def evaluator(
    policy: Policy,
    env: Callable[[Sequence[int]], Environment],
    key: jax.Array,
    devices: Sequence[Any],
) -> Evaluator:
    """Prepares evaluations; compiles at the first, once for all levels.

    Args:
      policy: what plays.
      env: levels -> the world with these levels as its episodes 0, 1, ...
      key: of the run's evaluations.
      devices: JAX devices that share the levels; how many does not change results.
    """
    D = len(devices)
    B = -(-BATCH // D) * D
    mesh = Mesh(np.asarray(devices), ("levels",))
    everywhere = NamedSharding(mesh, PartitionSpec())

    @functools.cache
    def play() -> Callable:
        return _play(policy, env([0]), B // D, mesh)

    @functools.lru_cache(maxsize=1)  # validation comes back to the same levels
    def world(levels: tuple[int, ...]) -> World:
        return jax.device_put(env(levels).world, everywhere)

    def evaluate(params: Params, levels: Sequence[int]) -> Evaluation:
        params = jax.device_put(params, everywhere)
        N, parts = len(levels), []
        for first in range(0, N, B):
            last = min(first + B, N)
            # Always B worlds: room to spare is filled with the levels before these.
            batch = tuple(levels[i % N] for i in range(last - B, last))
            ids = jnp.asarray(batch, jnp.uint32)
            stats = jax.device_get(play()(params, world(batch), ids, key))
            kept = B - (last - first)
            parts.append(jax.tree.map(lambda x, kept=kept: x[kept:], stats))
        stats = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        return Evaluation(
            levels, stats.returns, int(stats.decisions.sum()), int(stats.frames.sum())
        )

    return evaluate


def host_evaluator(policy: Policy, env: HostVectorEnv) -> Evaluator:
    """As `evaluator`, for simulators on the host: a level is the seed of an episode."""
    act = host_rollout.acting(policy)

    def evaluate(params: Params, levels: Sequence[int]) -> Evaluation:
        params = jax.device_put(params)
        start = policy.start()
        stats = host_rollout.returns(env, act, start, lambda _: params, levels)
        return Evaluation(
            levels,
            np.asarray(stats.returns),
            int(stats.decisions.sum()),
            int(stats.frames.sum()),
        )

    return evaluate


def _play(policy: Policy, env: Environment, size: int, mesh: Mesh) -> Callable:
    """(params, world, levels u32[B], key) -> EpisodeStats [B], `size` a device."""
    worlds = vectorise(env, size)

    def shard(params, world, levels, key) -> EpisodeStats:
        def act(carry, observation):
            return policy.act(params, carry, observation, None)

        carry: Any = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), policy.start()
        )
        offset = jax.lax.axis_index("levels") * size
        episodes = offset + jnp.arange(size, dtype=jnp.int32)
        keys = jax.vmap(level_key, (None, 0))(key, levels)
        return returns(worlds, world, jax.vmap(act), carry, episodes, keys)

    split, all_ = PartitionSpec("levels"), PartitionSpec()
    return jax.jit(
        jax.shard_map(
            shard,
            mesh=mesh,
            in_specs=(all_, all_, split, all_),
            out_specs=split,
            check_vma=False,
        )
    )
