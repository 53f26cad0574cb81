"""What a simulator on the host is, and how its decisions are played.

It runs in a worker process. Nothing here, and nothing that a maker of simulators
imports, loads JAX: a worker needs neither its memory nor its threads.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

Seen: TypeAlias = np.ndarray | tuple[np.ndarray, np.ndarray]
"""An observation: the picture u8[H, W, C]; or, where `Facts.vector` is n and not 0,
the pair of it and a vector f32[n] (`sensed`)."""


class Facts(NamedTuple):
    """What does not change about a simulator.

    Attributes:
      picture: height, width and channels of what the agent sees.
      low: lower bound of each component of an action; () where actions are choices.
      high: the upper bounds.
      choices: how many choices there are; 0 where actions are vectors.
      max_steps: game frames after which an episode is over at the latest; 0 for never.
      fps: game frames a second, for films.
      vector: how many numbers are known beside the picture; 0 where it is all.
    """

    picture: tuple[int, int, int]
    low: tuple[float, ...]
    high: tuple[float, ...]
    choices: int
    max_steps: int
    fps: int
    vector: int = 0


class Simulator(NamedTuple):
    """One world that keeps its own state and cannot be copied or rewound.

    Attributes:
      facts: what does not change.
      reset: seed -> the first observation. Begins an episode that is the same whenever
        it begins with this seed.
      step: action f32[A], or an i32[] choice -> (observation, reward, terminated,
        truncated), after one game frame.
      paint: (height, width) -> u8[height, width, 3], the present picture for people.
      close: () -> None, gives up what the simulator holds.
      observe: () -> the present observation, for simulators that take longer to draw
        than to move; their `step` returns `UNDRAWN` instead. Else None.
    """

    facts: Facts
    reset: Callable[[int], Seen]
    step: Callable[[np.ndarray], tuple[Seen, float, bool, bool]]
    paint: Callable[[int, int], np.ndarray]
    close: Callable[[], None]
    observe: Callable[[], Seen] | None = None


UNDRAWN = np.zeros((0, 0, 0), np.uint8)
"""In place of an observation that no one has asked for."""

Maker: TypeAlias = Callable[[], Simulator]
"""Makes a simulator; a function of a module, or a `functools.partial` of one."""


class Refused(Exception):  # noqa: N818
    """This simulator cannot be made, here or anywhere; says why, in one sentence."""


def sensed(values: Sequence[np.ndarray | float]) -> np.ndarray:
    """Readings of sensors as one vector that a policy can bear, f32[n].

    A fall may be felt as a thousand times what walking is. Every reading is squashed by
    arcsinh: x below about 0.5, sign(x) log(2 |x|) above 2, so that what is small keeps
    its unit, what is large its order, and nothing that a float can say is beyond 711.
    What is no number, as after the state has run to infinity, is 0.

    Args:
      values: readings of any shape, each in its own unit, in the order of the vector.
    """
    flat = np.concatenate([np.ravel(value) for value in values]).astype(np.float64)
    return np.arcsinh(np.nan_to_num(flat)).astype(np.float32)


def picture_of(seen: Seen) -> np.ndarray:
    """The picture of an observation, u8[H, W, C]."""
    return seen[0] if isinstance(seen, tuple) else seen


def in_company() -> None:
    """Many simulators share the cores: none of them gains from threads of its own."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


class Playing(NamedTuple):
    """How an agent plays a simulator.

    Attributes:
      action_repeat: game frames for which an action is held.
      frame_stack: pictures, the newest last, that are seen at once.
      time_limit: game frames after which an episode is truncated; 0 for the
        simulator's own limit.
    """

    action_repeat: int = 1
    frame_stack: int = 1
    time_limit: int = 0


def decided(
    simulator: Simulator, playing: Playing, watch: Callable[[], object]
) -> tuple[Simulator, Callable[[], int]]:
    """The simulator as the agent plays it: one step is one decision.

    What follows an episode's end inside a decision is not played. `max_steps` still
    counts game frames. Only pictures are stacked: of a vector the newest is seen.

    Args:
      simulator: the game, frame by frame.
      playing: how it is played.
      watch: called after every reset and every game frame.

    Returns:
      The simulator, and a function that tells how many game frames the last step took.
    """
    facts, stack = simulator.facts, playing.frame_stack
    limits = [n for n in (facts.max_steps, playing.time_limit) if n]
    limit = min(limits, default=0)
    H, W, C = facts.picture
    stacked = np.zeros((H, W, C * stack), np.uint8)
    count = {"episode": 0, "step": 0}

    def with_stacked(seen: Seen) -> Seen:
        return (stacked, seen[1]) if isinstance(seen, tuple) else stacked

    def reset(seed: int) -> Seen:
        seen = simulator.reset(seed)
        stacked[:] = np.tile(picture_of(seen), (1, 1, stack))
        count["episode"] = 0
        watch()
        return with_stacked(seen)

    def step(action: np.ndarray) -> tuple[Seen, float, bool, bool]:
        total, frames = 0.0, 0
        while True:
            seen, reward, terminated, truncated = simulator.step(action)
            total += reward
            frames += 1
            count["episode"] += 1
            watch()
            if limit and count["episode"] >= limit and not terminated:
                truncated = True
            if terminated or truncated or frames == playing.action_repeat:
                break
        count["step"] = frames
        if simulator.observe is not None:
            seen = simulator.observe()
        stacked[..., : C * (stack - 1)] = stacked[..., C:].copy()
        stacked[..., C * (stack - 1) :] = picture_of(seen)
        return with_stacked(seen), total, terminated, truncated and not terminated

    facts = facts._replace(picture=(H, W, C * stack), max_steps=limit)
    made = simulator._replace(facts=facts, reset=reset, step=step, observe=None)
    return made, lambda: count["step"]
