"""The settings of `env=gymnasium`; imports no environment."""

import functools
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from envs.adapters.host_simulator import Maker
from envs.settings import Color, at_least


class Backend(Enum):
    """Whose environments they are."""

    gymnasium = "gymnasium"
    envpool = "envpool"


@dataclass(frozen=True)
class GymnasiumConfig:
    """An environment of Gymnasium, each in a process of its own.

    Attributes:
      name: "gymnasium".
      id: its name in Gymnasium's registry, perhaps with the module that registers it
        (my_world:MyWorld-v0).
      backend: gymnasium, or envpool, whose worlds in C++ are faster; their seeds stand
        for other episodes, and only ids of its own list can be played.
      options: keyword arguments of its constructor (`env.options.continuous=false`).
      pixels: what the agent sees: observation, render (what it renders), or the name of
        an entry of its observation; empty takes the observation if that is an image,
        else its only image, else render.
      size: height and width to which pictures are resized; 0 leaves them.
      color: rgb, or gray (1 channel).
      tracks: how many seeds training draws from.
      time_limit: game frames after which an episode is truncated; 0 keeps the
        environment's own limit.
      action_repeat: game frames for which an action is held.
      frame_stack: pictures, the newest last, that the agent sees at once.
    """

    name: str = "gymnasium"
    id: str = ""
    backend: Backend = Backend.gymnasium
    options: dict[str, Any] = field(default_factory=dict)
    pixels: str = ""
    size: int = 0
    color: Color = Color.rgb
    tracks: int = 256
    time_limit: int = 0
    action_repeat: int = 1
    frame_stack: int = 1

    def __post_init__(self):
        at_least(self, size=0, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)


def maker(config: GymnasiumConfig) -> Maker:
    """What makes a simulator of these settings."""
    from envs.adapters.gymnasium import simulator

    if not config.id:
        raise ValueError(
            "env.id is empty; env=gymnasium needs the name of an environment, for "
            "example env.id=CarRacing-v3"
        )
    made = None
    if config.backend is Backend.envpool:
        from envs.adapters.envpool import made
    return functools.partial(
        simulator,
        config.id,
        dict(config.options),
        pixels=config.pixels,
        size=config.size,
        gray=config.color is Color.gray,
        made=made,
    )
