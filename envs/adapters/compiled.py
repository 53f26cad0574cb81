"""CarRacing's functions, compiled once, and worlds of tracks made in memory."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.car_racing import cache
from envs.car_racing.cache import Pool
from envs.car_racing.colour_map import BLOCK
from envs.car_racing.env import World, make
from envs.core import Environment, State
from envs.vector import vectorise

KEPT = 16
"""Tracks that `track` remembers, 1.1 MB each."""


@functools.cache
def template(**settings: Any) -> Environment:
    """The game on one track, for its functions; other tracks replace its world."""
    return make([0], **settings)


@functools.lru_cache(KEPT)
def track(seed: int, domain_randomize: bool) -> Pool:
    """A pool of one track."""
    return cache.build([seed], domain_randomize)


def joined(a: Pool, b: Pool) -> Pool:
    """The tracks of `a`, and after them those of `b`, as one pool."""
    shift = np.uint32(len(a.ground.blocks) // BLOCK**2)
    b = b._replace(ground=b.ground._replace(index=b.ground.index + shift))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), a, b)


def world(template: Environment, pool: Pool) -> World:
    """The world of a pool, on the device; pictures' constants are the template's."""
    canvas = template.world.canvas._replace(ground=pool.ground)
    return jax.device_put(World(pool.roads, canvas))


def key_seeds(seeds: Sequence[int]) -> np.ndarray:
    """u32[n], the low bits of seeds of any size."""
    return np.array([seed % (1 << 32) for seed in seeds], np.uint32)


class Single(NamedTuple):
    """The compiled functions of one world.

    Attributes:
      begin: (world, key seed u32[]) -> state, observation.
      advance: (world, state, action) -> state, observation, reward, terminated.
      observe: (world, state) -> observation.
    """

    begin: Callable[..., tuple[State, jax.Array]]
    advance: Callable[..., tuple[State, jax.Array, jax.Array, jax.Array]]
    observe: Callable[..., jax.Array]


@functools.cache
def single(**settings: Any) -> Single:
    """Compiled once for all environments of the same settings."""
    env = template(**settings)

    def begin(world, key_seed):
        state = env.reset(world, jnp.int32(0), jax.random.key(key_seed))
        return state, env.observe(world, state)

    def advance(world, state, action):
        unused = jax.random.key(0)  # Nothing is random once the car drives.
        moved, outcome = env.step(world, state, action, unused)
        return moved, env.observe(world, moved), outcome.reward, outcome.terminated

    return Single(jax.jit(begin), jax.jit(advance), jax.jit(env.observe))


class Many(NamedTuple):
    """The compiled functions of B worlds.

    Attributes:
      begin: (world, levels i32[B], key seeds u32[B]) -> states, observations.
      restart: (world, states, mask, levels, key seeds) -> states, observations, where
        the worlds of the mask have begun.
      advance: (world, states, actions, mask, levels, key seeds, same_step) -> moved,
        states, observations, rewards, terminations: moved, then begun in the worlds of
        the mask, and where same_step in those that have terminated too.
      observe_one: (world, states, i) -> the observation of world i.
    """

    begin: Callable[..., tuple[State, jax.Array]]
    restart: Callable[..., tuple[State, jax.Array]]
    advance: Callable[..., tuple[State, State, jax.Array, jax.Array, jax.Array]]
    observe_one: Callable[..., jax.Array]


@functools.cache
def many(num_envs: int, **settings: Any) -> Many:
    """Compiled once for all environments of the same size and settings."""
    single = template(**settings)
    env = vectorise(single, num_envs)
    keys = jax.vmap(jax.random.key)

    def begin(world, levels, key_seeds):
        states = env.reset(world, levels, keys(key_seeds))
        return states, env.observe(world, states)

    def restart(world, states, mask, levels, key_seeds):
        states = env.restart(world, states, mask, levels, keys(key_seeds))
        return states, env.observe(world, states)

    def advance(world, states, actions, mask, levels, key_seeds, same_step):
        unused = keys(key_seeds)  # Nothing is random once the car drives.
        moved, outcome = env.step(world, states, actions, unused)
        if same_step:
            mask |= outcome.terminated
        begun, pictures = restart(world, moved, mask, levels, key_seeds)
        return moved, begun, pictures, outcome.reward, outcome.terminated

    def observe_one(world, states, i):
        return single.observe(world, row(states, i))

    return Many(
        jax.jit(begin),
        jax.jit(restart),
        jax.jit(advance, static_argnames="same_step"),
        jax.jit(observe_one),
    )


def row(states: State, i: int | jax.Array) -> State:
    """The state of world i."""
    return jax.tree.map(lambda array: array[i], states)
