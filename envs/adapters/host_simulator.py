"""What a simulator on the host is, and how its decisions are played.

It runs in a worker process. Nothing here, and nothing that a maker of simulators
imports, loads JAX: a worker needs neither its memory nor its threads.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np


class Facts(NamedTuple):
    """What does not change about a simulator.

    Attributes:
      picture: height, width and channels of what the agent sees.
      low: lower bound of each component of an action; () where actions are choices.
      high: the upper bounds.
      choices: how many choices there are; 0 where actions are vectors.
      max_steps: game frames after which an episode is over at the latest; 0 for never.
      fps: game frames a second, for films.
    """

    picture: tuple[int, int, int]
    low: tuple[float, ...]
    high: tuple[float, ...]
    choices: int
    max_steps: int
    fps: int


class Simulator(NamedTuple):
    """One world that keeps its own state and cannot be copied or rewound.

    Attributes:
      facts: what does not change.
      reset: seed -> the first picture u8[H, W, C]. Begins an episode that is the same
        whenever it begins with this seed.
      step: action f32[A], or an i32[] choice -> (picture, reward, terminated,
        truncated), after one game frame.
      paint: (height, width) -> u8[height, width, 3], the present picture for people.
      close: () -> None, gives up what the simulator holds.
      observe: () -> the present picture, for simulators that take longer to draw than
        to move; their `step` returns `UNDRAWN` instead. Else None.
    """

    facts: Facts
    reset: Callable[[int], np.ndarray]
    step: Callable[[np.ndarray], tuple[np.ndarray, float, bool, bool]]
    paint: Callable[[int, int], np.ndarray]
    close: Callable[[], None]
    observe: Callable[[], np.ndarray] | None = None


UNDRAWN = np.zeros((0, 0, 0), np.uint8)
"""In place of a picture that no one has asked for."""

Maker: TypeAlias = Callable[[], Simulator]
"""Makes a simulator; a function of a module, or a `functools.partial` of one."""


class Refused(Exception):  # noqa: N818
    """This simulator cannot be made, here or anywhere; says why, in one sentence."""


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
    counts game frames.

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

    def reset(seed: int) -> np.ndarray:
        stacked[:] = np.tile(simulator.reset(seed), (1, 1, stack))
        count["episode"] = 0
        watch()
        return stacked

    def step(action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        total, frames = 0.0, 0
        while True:
            picture, reward, terminated, truncated = simulator.step(action)
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
            picture = simulator.observe()
        stacked[..., : C * (stack - 1)] = stacked[..., C:].copy()
        stacked[..., C * (stack - 1) :] = picture
        return stacked, total, terminated, truncated and not terminated

    facts = facts._replace(picture=(H, W, C * stack), max_steps=limit)
    made = simulator._replace(facts=facts, reset=reset, step=step, observe=None)
    return made, lambda: count["step"]
