"""The settings of `env=TakeCover`; imports no simulator."""

import functools
from dataclasses import dataclass

from envs.adapters.host_simulator import Maker
from envs.settings import Color, at_least, within

TICS = 2100
"""After so many an episode is truncated, as in AttentionAgent; the game has no end."""


@dataclass(frozen=True)
class TakeCoverConfig:
    """VizDoom's TakeCover, as AttentionAgent plays it; needs the package vizdoom.

    Attributes:
      name: "TakeCover".
      size: height and width of the agent's picture in pixels.
      color: rgb (3 channels) or gray (1).
      continuous: a steering in [-1, 1] that moves beyond a third, or one of three
        choices.
      tracks: how many seeds training draws from.
      time_limit: tics after which an episode is truncated; 0 takes AttentionAgent's
        2,100.
      action_repeat: tics for which an action is held.
      frame_stack: pictures, the newest last, that the agent sees at once.
    """

    name: str = "TakeCover"
    size: int = 96
    color: Color = Color.rgb
    continuous: bool = True
    tracks: int = 256
    time_limit: int = 0
    action_repeat: int = 4
    frame_stack: int = 1

    def __post_init__(self):
        at_least(self, size=1, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)
        within(self, time_limit=TICS)


def maker(config: TakeCoverConfig) -> Maker:
    """What makes a simulator of these settings."""
    from envs.adapters.take_cover import simulator

    gray = config.color is Color.gray
    return functools.partial(simulator, config.size, gray, config.continuous)


def labels(config: TakeCoverConfig) -> tuple[str, ...]:
    """Of the components of an action, or of the choices."""
    return ("steer",) if config.continuous else ("stand", "left", "right")
