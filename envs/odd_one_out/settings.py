"""The settings of `env=OddOneOut`."""

from collections.abc import Sequence
from dataclasses import dataclass

from envs.core import Environment
from envs.settings import at_least, within

SCENES = 16
"""Of an episode."""


@dataclass(frozen=True)
class OddOneOutConfig:
    """OddOneOut: one of 64 cells has other hues than all the rest; point at it.

    Attributes:
      name: "OddOneOut".
      tracks: how many levels training draws from; each is 16 scenes.
      time_limit: scenes after which an episode is truncated; 0 keeps the world's 16.
      action_repeat: scenes that one action answers.
      frame_stack: pictures, the newest last, that the agent sees at once.
    """

    name: str = "OddOneOut"
    tracks: int = 256
    time_limit: int = 0
    action_repeat: int = 1
    frame_stack: int = 1

    def __post_init__(self):
        at_least(self, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)
        within(self, time_limit=SCENES)


def world(config: OddOneOutConfig, levels: Sequence[int]) -> Environment:
    """The world of these settings."""
    from envs.odd_one_out.env import make

    return make(levels)


def labels(config: OddOneOutConfig) -> tuple[str, ...]:
    """Of the components of an action."""
    return "row", "column"
