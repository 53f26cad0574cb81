"""Batches of worlds played by a policy. Written once, for JAX and host worlds alike."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents import keys as names
from agents.core import Decision
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


class Games(NamedTuple):
    """B episodes that are under way, or about to begin.

    Attributes:
      states: the worlds' states, [B].
      carry: the policy's memories, [B].
      done: bool[B], worlds whose episode is over: before their next step a new one
        begins, and what their state and memory hold no longer matters.
      idle: i32[B], decisions since the last positive reward.
    """

    states: Any
    carry: Any
    done: jax.Array
    idle: jax.Array


class Trajectory(NamedTuple):
    """T steps of B worlds.

    Attributes:
      observation: u8[T, B, H, W, C].
      first: bool[T, B], an episode begins: the memory is at its start.
      decision: Decision [T, B].
      reward: f32[T, B].
      terminated: bool[T, B], the world ended the episode with this step.
      truncated: bool[T, B], the clock did.
      successor: f32[T, B], value of the state after the step: 0 if it terminated.
      frames: i32[T, B], game frames that the step played.
    """

    observation: Any
    first: jax.Array
    decision: Decision
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    successor: jax.Array
    frames: jax.Array


class _Cuts(NamedTuple):
    """The truncations of each world so far, in their order."""

    count: jax.Array  # i32[B]
    step: jax.Array  # i32[C, B], T where there was none
    states: Any  # [C, B], after the step
    carry: Any  # [C, B]


def unroll(
    env: VectorEnv,
    world: Any,
    act: Callable[[Any, jax.Array, jax.Array], tuple[Any, Decision]],
    start: Any,
    games: Games,
    keys: jax.Array,
    levels: int,
    steps: int,
    patience: int | None = None,
) -> tuple[Games, Trajectory]:
    """Plays B worlds for T steps and keeps what was seen, done and earned.

    Where an episode is over the next one begins, on a level drawn at random: a restart
    of states, so that each step draws each world once. States that are cut off are kept
    until the end, then drawn and valued: C of each world, as many as clock and patience
    can cut off within T steps.

    Args:
      env: B worlds.
      world: their constant data.
      act: (carry [B], observations [B], keys [B]) -> (carry [B], Decision [B]), with
        values.
      start: the policy's memory at the start of an episode, of one world.
      games: where the worlds stand.
      keys: key[B], one for each world (`episode_keys`), of this unroll alone.
      levels: how many levels the world has.
      steps: T.
      patience: truncates an episode after this many decisions in a row without a
        positive reward; None leaves that to the clock.

    Returns:
      Where the worlds stand now, and what happened.
    """
    B = games.done.shape[0]
    shortest = min(env.spec.max_steps, patience or steps)
    C = 1 + (steps - 1) // shortest  # the first may cut off what began earlier
    start = _repeated(start, B)

    def stream(keys, name):
        return jax.vmap(lambda key: names.stream(key, name))(keys)

    def body(carried: tuple[Games, _Cuts], step):
        games, cuts = carried
        now = jax.vmap(names.at, (0, None))(keys, step)
        episodes = jax.vmap(
            lambda key: jax.random.randint(key, (), 0, levels, jnp.int32)
        )(stream(now, "levels"))
        states = env.restart(
            world, games.states, games.done, episodes, stream(now, "reset")
        )
        carry = _where(games.done, start, games.carry)
        observation = env.observe(world, states)
        carry, decision = act(carry, observation, stream(now, "policy"))
        states, outcome = env.step(world, states, decision.action, stream(now, "world"))
        idle = jnp.where(games.done, 0, games.idle)
        idle = jnp.where(outcome.reward > 0, 0, idle + 1)
        truncated = outcome.truncated
        if patience is not None:
            truncated |= idle >= patience
        truncated &= ~outcome.terminated
        seen = Trajectory(
            observation=observation,
            first=games.done,
            decision=decision,
            reward=outcome.reward,
            terminated=outcome.terminated,
            truncated=truncated,
            successor=decision.value,
            frames=outcome.metrics.get("frames", jnp.ones(B, jnp.int32)),
        )
        cuts = _kept(cuts, truncated, jnp.asarray(step, jnp.int32), states, carry)
        ended = outcome.terminated | truncated
        return (Games(states, carry, ended, idle), cuts), seen

    cuts = _Cuts(
        jnp.zeros(B, jnp.int32),
        jnp.full((C, B), steps, jnp.int32),
        _repeated(games.states, C),
        _repeated(games.carry, C),
    )
    (games, cuts), seen = env.loop.scan(body, (games, cuts), jnp.arange(steps), steps)

    def value(states, carry):  # drawn patches are drawn for it alone
        return act(carry, env.observe(world, states), keys)[1].value

    last = value(games.states, games.carry)
    known = jax.lax.map(lambda cut: value(*cut), (cuts.states, cuts.carry))
    follows = jnp.concatenate([seen.decision.value[1:], last[None]])
    # A world that cuts off more often than its spec allows: the state before the cut.
    successor = jnp.where(seen.truncated, seen.successor, follows)
    successor = jnp.where(seen.terminated, 0.0, successor)
    successor = successor.at[cuts.step, jnp.arange(B)].set(known, mode="drop")
    return games, seen._replace(successor=successor)


def finished(total: jax.Array, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
    """Returns of the episodes that ended in a trajectory, begun in it or earlier.

    Args:
      total: f32[B], what the episodes under way had earned before it.
      trajectory: T steps of B worlds.

    Returns:
      f32[B], what the episodes now under way have earned, and f32[T, B], the return of
      an episode at the step that ended it, NaN elsewhere.
    """

    def add(total, step):
        reward, ended = step
        total = total + reward
        return jnp.where(ended, 0.0, total), jnp.where(ended, total, jnp.nan)

    ended = trajectory.terminated | trajectory.truncated
    return jax.lax.scan(add, total, (trajectory.reward, ended))


def _kept(
    cuts: _Cuts, truncated: jax.Array, step: jax.Array, states: Any, carry: Any
) -> _Cuts:
    """The cuts so far, and those of this step."""
    C, B = cuts.step.shape
    place = jnp.where(truncated, cuts.count, C), jnp.arange(B)
    now = jnp.broadcast_to(step, (B,)), states, carry
    kept = jax.tree.map(
        lambda before, x: before.at[place].set(x, mode="drop"), tuple(cuts[1:]), now
    )
    return _Cuts(cuts.count + truncated.astype(jnp.int32), *kept)


def _repeated(tree: Any, count: int) -> Any:
    """The same `count` times, side by side."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), tree)


def _where(mask: jax.Array, new: Any, old: Any) -> Any:
    """`new` in the worlds of a mask bool[B], `old` in the others."""

    def pick(new, old):
        rows = mask.reshape(mask.shape + (1,) * (old.ndim - 1))
        return jnp.where(rows, new, old)

    return jax.tree.map(pick, new, old)
