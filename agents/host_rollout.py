"""Whole episodes of simulators on the host: the twin of `agents.rollout.returns`.

Only the policy is jitted. It decides for one world at a time, as soon as that world has
something to show, so that nothing depends on how many of them there are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from agents.core import Carry, Params, Policy
from agents.rollout import EpisodeStats
from envs.core import Episode, HostVectorEnv, Moment

Act = Callable[[Params, Carry, np.ndarray], tuple[Carry, Any]]
"""(params, carry, observation) -> (carry, Decision), of one world, in its mode."""


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
