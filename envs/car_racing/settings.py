"""The settings of CarRacing, ours and Gymnasium's own; imports neither."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from envs.adapters.host_simulator import Maker
from envs.core import Environment
from envs.settings import Color, at_least, within
from envs.variants import ALL, ORIGINAL, in_order, worn


class LapRule(Enum):
    """When a lap of CarRacing is complete, which ends the episode."""

    gymnasium = "gymnasium"
    intended = "intended"


VARIANTS = tuple(f"{ORIGINAL} color bars blob channels noise video".split())
"""AttentionAgent's generalisation tests in the order of its table, and video."""
_RIVALS = (("color", "channels"), ("noise", "video"))
_COLORS = {"color": "scalar", "channels": "channels"}
GAME_FRAMES = 1000
"""After so many CarRacing ends by itself."""


@dataclass(frozen=True)
class _CarRacing:
    """What the game and its port have in common.

    Attributes:
      name: "CarRacing" or "GymnasiumCarRacing".
      size: height and width of the agent's picture in pixels; the game's own is 96.
      color: rgb (3 channels) or gray (1).
      continuous: steer, gas and brake in a box, or one of five choices.
      lap_complete_percent: share of the tiles that must be visited for a lap.
      domain_randomize: whether every track has colours of its own, as in Gymnasium;
        its seeds stand for other tracks then.
      tracks: how many tracks training draws from.
      time_limit: game frames after which an episode is truncated; 0 keeps the game's
        own 1000.
      action_repeat: game frames for which an action is held.
      frame_stack: pictures, the newest last, that the agent sees at once.
    """

    name: str = ""
    size: int = 96
    color: Color = Color.rgb
    continuous: bool = True
    lap_complete_percent: float = 0.95
    domain_randomize: bool = False
    tracks: int = 256
    time_limit: int = 0
    action_repeat: int = 4
    frame_stack: int = 1

    def __post_init__(self):
        at_least(self, size=1, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)
        within(self, time_limit=GAME_FRAMES)
        if not 0 < self.lap_complete_percent <= 1:
            raise ValueError(
                f"env.lap_complete_percent is {self.lap_complete_percent}; it must be "
                "greater than 0 and at most 1"
            )


@dataclass(frozen=True)
class CarRacingConfig(_CarRacing):
    """CarRacing, a port of Gymnasium's CarRacing-v3.

    Attributes:
      lap_rule: gymnasium (as it is: a lap hardly ever ends an episode, Gymnasium issue
        1269) or intended (as its documentation says).
      variant: original, or what it wears to test generalisation (AttentionAgent's
        tests), several joined with "+": color or channels (the colours of road and of
        grass are shifted by up to 0.2 of full scale, by one amount or one for each
        channel), bars (black, at both sides), blob (a red square beside the car), noise
        or video (in place of the grass). With mode=evaluate also all: every variant,
        one after another.
      video: a video file for the variant video to show; drifting waves of colour
        without one.
    """

    name: str = "CarRacing"
    lap_rule: LapRule = LapRule.gymnasium
    variant: str = ORIGINAL
    video: str = ""

    def __post_init__(self):
        super().__post_init__()
        # Whichever way it was written: it is part of what identifies a run.
        variant = in_order(self.variant, VARIANTS, _RIVALS)
        object.__setattr__(self, "variant", variant)
        if self.video and variant != ALL and "video" not in worn(variant):
            raise ValueError(
                f"env.video is {self.video}, but env.variant is {variant} and shows "
                "none; add video to it, or leave env.video= empty"
            )


def world(config: CarRacingConfig, levels: Sequence[int]) -> Environment:
    """The world of these settings, frame by frame."""
    from envs import distractions
    from envs.car_racing.camera import road_rows
    from envs.car_racing.env import make

    wears = worn(config.variant)
    game = make(
        levels,
        size=config.size,
        color=config.color.value,
        continuous=config.continuous,
        lap_rule=config.lap_rule.value,
        lap_complete_percent=config.lap_complete_percent,
        domain_randomize=config.domain_randomize,
        colors=next((_COLORS[name] for name in wears if name in _COLORS), ORIGINAL),
        blob="blob" in wears,
    )
    if "noise" in wears:
        game = distractions.noise(game)
    if "video" in wears:
        game = distractions.video(game, config.video or None)
    if "bars" in wears:
        game = distractions.bars(game, road_rows(config.size))
    return game


@dataclass(frozen=True)
class GymnasiumCarRacingConfig(_CarRacing):
    """Gymnasium's own CarRacing-v3, for agents that were trained on ours."""

    name: str = "GymnasiumCarRacing"


def maker(config: GymnasiumCarRacingConfig) -> Maker:
    """What makes a simulator of these settings."""
    from envs.adapters.gymnasium import RENDER, simulator

    names = ("continuous", "lap_complete_percent", "domain_randomize")
    return functools.partial(
        simulator,
        "CarRacing-v3",
        {name: getattr(config, name) for name in names},
        size=config.size,
        gray=config.color is Color.gray,
        painted=RENDER,  # the same view, 600x400
    )


def labels(config: Any) -> tuple[str, ...]:
    """Of the components of an action, or of the choices."""
    if config.continuous:
        return ("steer", "gas", "brake")
    return ("coast", "steer right", "steer left", "gas", "brake")
