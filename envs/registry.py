"""Worlds by name: the settings of each, and how it is made from them.

A new world is one folder and one line of `REGISTRY`. Nothing of a world is imported
before it is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from envs import transforms
from envs.core import Environment


class Color(Enum):
    """What a world's picture is made of."""

    rgb = "rgb"
    gray = "gray"


class LapRule(Enum):
    """When a lap of CarRacing is complete, which ends the episode."""

    gymnasium = "gymnasium"
    intended = "intended"


@dataclass(frozen=True)
class CarRacingConfig:
    """CarRacing, a port of Gymnasium's CarRacing-v3.

    Attributes:
      name: "CarRacing".
      size: height and width of the agent's picture in pixels.
      color: rgb (3 channels) or gray (1).
      continuous: steer, gas and brake in a box, or one of five choices.
      lap_rule: gymnasium (as it is: a lap hardly ever ends an episode, Gymnasium issue
        1269) or intended (as its documentation says).
      lap_complete_percent: share of the tiles that must be visited for a lap.
      tracks: how many tracks training draws from.
      time_limit: game frames after which an episode is truncated; 0 keeps the game's
        own 1000.
      action_repeat: game frames for which an action is held.
      frame_stack: pictures, the newest last, that the agent sees at once.
    """

    name: str = "CarRacing"
    size: int = 96
    color: Color = Color.rgb
    continuous: bool = True
    lap_rule: LapRule = LapRule.gymnasium
    lap_complete_percent: float = 0.95
    tracks: int = 256
    time_limit: int = 0
    action_repeat: int = 4
    frame_stack: int = 1

    def __post_init__(self):
        for name, least in (
            ("size", 1),
            ("tracks", 1),
            ("time_limit", 0),
            ("action_repeat", 1),
            ("frame_stack", 1),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"env.{name} is {value}; it must be at least {least}")
        if not 0 < self.lap_complete_percent <= 1:
            raise ValueError(
                f"env.lap_complete_percent is {self.lap_complete_percent}; it must be "
                "greater than 0 and at most 1"
            )


def _car_racing(config: CarRacingConfig, levels: Sequence[int]) -> Environment:
    from envs.car_racing.env import make

    return make(
        levels,
        size=config.size,
        color=config.color.value,
        continuous=config.continuous,
        lap_rule=config.lap_rule.value,
        lap_complete_percent=config.lap_complete_percent,
    )


def _car_racing_labels(config: CarRacingConfig) -> tuple[str, ...]:
    if config.continuous:
        return ("steer", "gas", "brake")
    return ("coast", "steer right", "steer left", "gas", "brake")


class Entry(NamedTuple):
    """A world of the registry.

    Attributes:
      config: the frozen dataclass of its settings; all have `name`, `tracks`,
        `time_limit`, `action_repeat` and `frame_stack`.
      make: (settings, levels) -> Environment, without those transforms; level i of its
        episodes is `levels[i]`.
      labels: settings -> a name for each component of an action, or each choice.
    """

    config: type
    make: Callable[[Any, Sequence[int]], Environment]
    labels: Callable[[Any], tuple[str, ...]]


REGISTRY = {"CarRacing": Entry(CarRacingConfig, _car_racing, _car_racing_labels)}
"""Every world by name."""


def make(config: Any, levels: Sequence[int]) -> Environment:
    """The game itself, frame by frame, within its time limit.

    Args:
      config: settings, an instance of its entry's `config`.
      levels: the levels that `episode` 0, 1, ... stand for (Gymnasium seeds).

    Raises:
      KeyError: no world has this name.
      ValueError: settings that the world cannot have.
    """
    game = REGISTRY[config.name].make(config, levels)
    if config.time_limit:
        return transforms.time_limit(game, config.time_limit)
    return game


def transformed(config: Any, game: Environment) -> Environment:
    """The game as the agent plays it: action repeat, then frame stack."""
    repeated = transforms.action_repeat(game, config.action_repeat)
    return transforms.frame_stack(repeated, config.frame_stack)
