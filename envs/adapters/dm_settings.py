"""The settings of `env=dm_control`; imports no simulator."""

import functools
from dataclasses import dataclass
from enum import Enum

from envs.adapters.host_simulator import Maker
from envs.settings import Color, at_least
from envs.variants import ALL, ORIGINAL, in_order, worn

VARIANTS = (ORIGINAL, "color", "camera", "background")
"""The distractions of the Distracting Control Suite."""
DISTRACTED = ("ball_in_cup", "cartpole", "cheetah", "finger", "reacher", "walker")
"""The domains that it knows."""


class Drawing(Enum):
    """How much MuJoCo draws."""

    full = "full"
    light = "light"
    plain = "plain"


class Difficulty(Enum):
    """How far the Distracting Control Suite distracts."""

    easy = "easy"
    medium = "medium"
    hard = "hard"


@dataclass(frozen=True)
class DmControlConfig:
    """A task of the DeepMind Control Suite, each in a process of its own.

    Attributes:
      name: "dm_control".
      domain: of the task, for example cheetah.
      task: for example run.
      camera: number or name of what the agent sees with; several joined with "+" are
        seen at once, as more channels; empty is 0 (and 2 for the quadruped).
      variant: original, or what it wears of the Distracting Control Suite, several
        joined with "+": color, camera (elsewhere, and rolled), background (a film for
        the sky). With mode=evaluate also all: every one, and all together.
      difficulty: how far that distracts: easy, medium or hard.
      dynamic: whether it also moves within an episode.
      frames: what the variant background shows: a folder of images, a folder of such
        folders, a video file, or the folder of DAVIS 2017; waves of colour without one.
      size: height and width of the agent's picture in pixels.
      color: rgb, or gray (1 channel of each camera).
      drawing: full, as the suite draws; light, with coarser shadows and edges that are
        not smoothed, in 1/4 to 2/5 of the time; or plain, without shadows and
        reflections besides, in 1/20 to 1/9.
      tracks: how many seeds training draws from.
      proprioception: names of the task's own observations that the agent knows beside
        the picture, joined with "+" (for the quadruped egocentric_state+imu); empty is
        none.
      time_limit: control steps (game frames) after which an episode is truncated; 0
        keeps the task's own limit, 1000.
      action_repeat: game frames for which an action is held.
      frame_stack: pictures, the newest last, that the agent sees at once.
    """

    name: str = "dm_control"
    domain: str = ""
    task: str = ""
    camera: str = ""
    variant: str = ORIGINAL
    difficulty: Difficulty = Difficulty.easy
    dynamic: bool = False
    frames: str = ""
    size: int = 84
    color: Color = Color.rgb
    drawing: Drawing = Drawing.full
    tracks: int = 256
    proprioception: str = ""
    time_limit: int = 0
    action_repeat: int = 4
    frame_stack: int = 1

    def __post_init__(self):
        at_least(self, size=1, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)
        variant = in_order(self.variant, VARIANTS)
        object.__setattr__(self, "variant", variant)
        if variant != ORIGINAL and self.domain not in DISTRACTED:
            raise ValueError(
                f"env.variant is {variant}, but the Distracting Control Suite has no "
                f"env.domain={self.domain}; it has {', '.join(DISTRACTED)}"
            )
        if self.frames and variant != ALL and "background" not in worn(variant):
            raise ValueError(
                f"env.frames is {self.frames}, but env.variant is {variant} and shows "
                "none; add background to it, or leave env.frames= empty"
            )

    @property
    def id(self) -> str:
        """What to call the task."""
        return f"{self.domain} {self.task}".strip()

    @property
    def manner(self) -> str:
        """How variants are worn."""
        return f"{self.difficulty.value} {'dynamic' if self.dynamic else 'static'}"


def maker(config: DmControlConfig) -> Maker:
    """What makes a simulator of these settings."""
    from envs.adapters.dm_control import simulator
    from envs.adapters.dm_distractions import Wear

    return functools.partial(
        simulator,
        config.domain,
        config.task,
        camera=config.camera,
        size=config.size,
        gray=config.color is Color.gray,
        proprioception=config.proprioception,
        drawing=config.drawing.value,
        wear=Wear(
            worn(config.variant),
            config.difficulty.value,
            config.dynamic,
            config.frames,
        ),
    )
