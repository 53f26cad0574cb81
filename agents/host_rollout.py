"""Simulators on the host, played by a policy: the twins of what is in `agents.rollout`.

Only the policy is jitted. It decides for one world at a time, as soon as that world has
something to show, so that nothing depends on how many of them there are.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents import keys as names
from agents.core import Carry, Decision, Params, Policy
from agents.rollout import EpisodeStats, Trajectory
from envs.core import Box, Episode, HostVectorEnv, Moment

Act = Callable[[Params, Carry, Any], tuple[Carry, Any]]
"""(params, carry, observation) -> (carry, Decision), of one world, in its mode."""

Draw = Callable[[Params, Carry, Any, jax.Array, Any], tuple[Carry, Decision]]
"""(params, carry, observation, key, step) -> (carry, Decision), of one world, drawn at
random with the key of a step (`agents.keys.at`)."""


def acting(policy: Policy) -> Act:
    """The policy's mode, jitted once for all worlds and parameters."""
    return jax.jit(lambda params, carry, seen: policy.act(params, carry, seen, None))


def returns(
    env: HostVectorEnv,
    act: Act,
    start: Carry,
    params: Callable[[int], Params],
    seeds: Sequence[int],
    patience: int | None = None,
) -> EpisodeStats:
    """Plays one episode from each seed, to its end; stores nothing on the way.

    Args:
      env: the simulators.
      act: decides (`acting`).
      start: the policy's memory at the start.
      params: episode -> the parameters it is played with.
      seeds: of the N episodes; the same seed may come several times.
      patience: as in `agents.rollout.returns`.

    Returns:
      Statistics of the N episodes, numpy arrays.

    Raises:
      ChildProcessError: a simulator failed time and again.
    """

    def begin(index: int, seen: Moment) -> Episode:
        mine, carry = params(index), start
        total, decisions, frames, idle = 0.0, 0, 0, 0
        while True:
            carry, decision = act(mine, carry, seen.observation)
            seen = yield np.asarray(decision.action)
            total += seen.reward
            decisions += 1
            frames += seen.frames
            idle = 0 if seen.reward > 0 else idle + 1
            impatient = patience is not None and idle >= patience
            if seen.terminated or seen.truncated or impatient:
                return total, decisions, frames

    played = env.play(seeds, begin, (0, 0))
    total, decisions, frames = zip(*played, strict=True)
    return EpisodeStats(
        np.asarray(total, np.float32),  # pyright: ignore[reportArgumentType]
        np.asarray(decisions, np.int32),  # pyright: ignore[reportArgumentType]
        np.asarray(frames, np.int32),  # pyright: ignore[reportArgumentType]
    )


def drawing(act: Callable[[Params, Carry, Any, jax.Array], Any]) -> Draw:
    """What draws decisions, jitted once for all worlds and parameters.

    Args:
      act: (params, carry, observation, key) -> (carry, Decision), with a value.
    """

    def draw(params, carry, observation, key, step):
        return act(params, carry, observation, _now(key, step, "policy"))

    return jax.jit(draw)


def unroll(
    env: HostVectorEnv,
    draw: Draw,
    start: Carry,
    params: Params,
    seeds: Sequence[int],
    keys: jax.Array,
    steps: int,
    patience: int | None = None,
) -> Trajectory:
    """Plays B streams of episodes for T steps; keeps what was seen, done and earned.

    Every stream begins with a new episode, and where one is over the next begins, so
    that no simulator has to be kept. Where `agents.rollout.unroll` begins new episodes
    too, both draw the same levels and decisions. Simulators show the state in which an
    episode was truncated, so that each truncation is valued exactly.

    Args:
      env: the simulators.
      draw: decides (`drawing`).
      start: the policy's memory at the start of an episode.
      params: of the policy.
      seeds: the training levels; each episode draws one of them.
      keys: key[B], one for each stream (`agents.rollout.episode_keys`), of this unroll
        alone.
      steps: T.
      patience: truncates an episode after this many decisions in a row without a
        positive reward; None leaves that to the clock.

    Returns:
      What happened, numpy arrays [T, B].

    Raises:
      ChildProcessError: a simulator failed time and again.
    """
    B = len(keys)
    kept = _nothing(env, draw, start, params, keys[0], (steps, B))
    done = np.zeros(B, np.int32)  # of each stream's steps

    def episode(stream: int, seen: Moment) -> Episode:
        """Returns the stream's steps that are done when it is over."""
        # Where the simulator is lost, another attempt overwrites what this one kept.
        step, carry, first, idle = int(done[stream]), start, True, 0
        key = keys[stream]
        while True:
            at = step, stream
            _keep(kept.observation, at, seen.observation)
            carry, drawn = draw(params, carry, seen.observation, key, np.int32(step))
            decision = jax.device_get(drawn)
            seen = yield np.asarray(decision.action)
            step += 1
            idle = 0 if seen.reward > 0 else idle + 1
            impatient = patience is not None and idle >= patience
            truncated = (seen.truncated or impatient) and not seen.terminated
            over = seen.terminated or truncated
            successor = 0.0
            if truncated or (step == steps and not over):
                after = draw(params, carry, seen.observation, key, np.int32(step))[1]
                successor = float(after.value)
            came = (seen.reward, seen.terminated, truncated, successor, seen.frames)
            _keep(kept[1:], at, (first, decision, *came))
            first = False
            if over or step == steps:
                return step

    while (open_ := np.flatnonzero(done < steps)).size:
        drawn = np.asarray(_levels(keys, done, len(seeds)))[open_]
        done[open_] = env.play(
            [seeds[level] for level in drawn],
            lambda index, seen, streams=open_: episode(int(streams[index]), seen),
            (0, 0),
        )
    goes_on = ~(kept.terminated | kept.truncated)[:-1]
    kept.successor[:-1][goes_on] = kept.decision.value[1:][goes_on]
    return kept


def _now(key: jax.Array, step: Any, name: str) -> jax.Array:
    """The key of what is drawn in one step of a stream; as `agents.rollout.unroll`."""
    return names.stream(names.at(key, step), name)


@partial(jax.jit, static_argnums=2)
def _levels(keys: jax.Array, steps: jax.Array, levels: int) -> jax.Array:
    """i32[B], the levels of the episodes that begin in these steps."""

    def one(key, step):
        key = _now(key, step, "levels")
        return jax.random.randint(key, (), 0, levels, jnp.int32)

    return jax.vmap(one)(keys, steps)


def _nothing(
    env: HostVectorEnv,
    draw: Draw,
    start: Carry,
    params: Params,
    key: jax.Array,
    size: tuple[int, int],
) -> Trajectory:
    """A trajectory [T, B] to be filled."""
    observation = jax.tree.map(
        lambda box: jax.ShapeDtypeStruct(box.shape, box.dtype),
        env.spec.observation,
        is_leaf=lambda box: isinstance(box, Box),
    )
    _, decision = jax.eval_shape(draw, params, start, observation, key, np.int32(0))
    number: Any = jax.ShapeDtypeStruct((), np.float32)
    count: Any = jax.ShapeDtypeStruct((), np.int32)
    flag: Any = jax.ShapeDtypeStruct((), np.bool_)
    one = Trajectory(
        observation=observation,
        first=flag,
        decision=decision,
        reward=number,
        terminated=flag,
        truncated=flag,
        successor=number,
        frames=count,
    )
    return jax.tree.map(lambda leaf: np.zeros((*size, *leaf.shape), leaf.dtype), one)


def _keep(kept: Any, at: tuple[int, int], new: Any) -> None:
    """Writes one step of one stream into arrays [T, B]."""
    pairs = zip(jax.tree.leaves(kept), jax.tree.leaves(new), strict=True)
    for array, value in pairs:
        array[at] = value
