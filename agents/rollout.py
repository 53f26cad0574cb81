"""Batches of worlds played by a policy. Written once, for JAX and host worlds alike."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents import keys as names
from envs.core import VectorEnv


class EpisodeStats(NamedTuple):
    """What one episode of each of B worlds came to.

    Attributes:
      returns: f32[B], sum of rewards.
      decisions: i32[B], decisions taken by the policy.
      frames: i32[B], game frames played: decisions times the action repeat, less what
        an episode's end cut off.
    """

    returns: jax.Array
    decisions: jax.Array
    frames: jax.Array


class _Progress(NamedTuple):
    states: Any
    carry: Any
    alive: jax.Array  # bool[B]
    step: jax.Array  # i32[]
    idle: jax.Array  # i32[B], decisions since the last reward
    stats: EpisodeStats


def episode_keys(key: jax.Array, count: int) -> jax.Array:
    """One key for each of `count` episodes, independent of how many there are."""
    return jax.vmap(names.at, (None, 0))(key, jnp.arange(count))


def reset_key(key: jax.Array) -> jax.Array:
    """The key that begins the episode of this key."""
    return names.stream(key, "reset")


def step_key(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """The key of the world's step number `step` (a decision, counted from 0)."""
    return names.at(names.stream(key, "world"), step)


def returns(
    env: VectorEnv,
    world: Any,
    act: Callable[[Any, jax.Array], tuple[Any, Any]],
    carry: Any,
    episodes: jax.Array,
    keys: jax.Array,
    patience: int | None = None,
) -> EpisodeStats:
    """Plays one episode in each world, to its end; stores nothing on the way.

    Args:
      env: B worlds.
      world: their constant data.
      act: (carry [B], observations [B]) -> (carry [B], Decision [B]).
      carry: the policy's memory at the start, [B].
      episodes: i32[B], the levels.
      keys: key[B], one for each episode (`episode_keys`).
      patience: ends an episode after this many decisions in a row without a positive
        reward; None plays to the world's own end. A shortcut for training: what is
        returned then is a lower bound, not a score.

    Returns:
      Statistics of the B episodes. The loop stops when the last world has ended; the
      rewards of a world that ended earlier are masked.
    """
    B = env.size
    none = jnp.zeros(B, jnp.int32)

    def body(p: _Progress) -> _Progress:
        carry, decision = act(p.carry, env.observe(world, p.states))
        step_keys = jax.vmap(step_key, (0, None))(keys, p.step)
        states, outcome = env.step(world, p.states, decision.action, step_keys)
        alive = p.alive
        idle = jnp.where(outcome.reward > 0, 0, p.idle + 1)
        ended = outcome.terminated | outcome.truncated
        if patience is not None:
            ended |= idle >= patience
        frames = outcome.metrics.get("frames", jnp.ones(B, jnp.int32))
        stats = EpisodeStats(
            returns=p.stats.returns + jnp.where(alive, outcome.reward, 0.0),
            decisions=p.stats.decisions + alive.astype(jnp.int32),
            frames=p.stats.frames + jnp.where(alive, frames, 0),
        )
        return _Progress(states, carry, alive & ~ended, p.step + 1, idle, stats)

    start = _Progress(
        states=env.reset(world, episodes, jax.vmap(reset_key)(keys)),
        carry=carry,
        alive=jnp.ones(B, bool),
        step=jnp.int32(0),
        idle=none,
        stats=EpisodeStats(jnp.zeros(B), none, none),
    )
    return env.loop.until(lambda p: ~p.alive.any(), body, start).stats
