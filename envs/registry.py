"""Worlds by name: the settings of each, and how it is made from them.

A new world is one folder and one line of `REGISTRY`. Nothing of a world is imported
before it is made.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

from envs import transforms
from envs.adapters import dm_settings
from envs.core import Environment, HostVectorEnv
from envs.settings import Color
from envs.settings import at_least as _at_least
from envs.variants import ALL, JOIN, ORIGINAL, in_order, worn


class LapRule(Enum):
    """When a lap of CarRacing is complete, which ends the episode."""

    gymnasium = "gymnasium"
    intended = "intended"


CAR_RACING_VARIANTS = tuple(f"{ORIGINAL} color bars blob channels noise video".split())
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
        _at_least(self, size=1, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)
        if self.time_limit > GAME_FRAMES:
            raise ValueError(
                f"env.time_limit is {self.time_limit}; it must be at most "
                f"{GAME_FRAMES}, after which the game itself ends, or 0 for that"
            )
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
        variant = in_order(self.variant, CAR_RACING_VARIANTS, _RIVALS)
        object.__setattr__(self, "variant", variant)
        if self.video and variant != ALL and "video" not in worn(variant):
            raise ValueError(
                f"env.video is {self.video}, but env.variant is {variant} and shows "
                "none; add video to it, or leave env.video= empty"
            )


def _car_racing(config: CarRacingConfig, levels: Sequence[int]) -> Environment:
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


def _car_racing_labels(config: Any) -> tuple[str, ...]:
    if config.continuous:
        return ("steer", "gas", "brake")
    return ("coast", "steer right", "steer left", "gas", "brake")


@dataclass(frozen=True)
class GymnasiumConfig:
    """An environment of Gymnasium, each in a process of its own.

    Attributes:
      name: "gymnasium".
      id: its name in Gymnasium's registry, perhaps with the module that registers it
        (my_world:MyWorld-v0).
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
    options: dict[str, Any] = field(default_factory=dict)
    pixels: str = ""
    size: int = 0
    color: Color = Color.rgb
    tracks: int = 256
    time_limit: int = 0
    action_repeat: int = 1
    frame_stack: int = 1

    def __post_init__(self):
        _at_least(self, size=0, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)


def _gymnasium(config: GymnasiumConfig) -> Callable[[], Any]:
    from envs.adapters.gymnasium import simulator

    if not config.id:
        raise ValueError(
            "env.id is empty; env=gymnasium needs the name of an environment, for "
            "example env.id=CarRacing-v3"
        )
    return functools.partial(
        simulator,
        config.id,
        dict(config.options),
        pixels=config.pixels,
        size=config.size,
        gray=config.color is Color.gray,
    )


@dataclass(frozen=True)
class GymnasiumCarRacingConfig(_CarRacing):
    """Gymnasium's own CarRacing-v3, for agents that were trained on ours."""

    name: str = "GymnasiumCarRacing"


def _gymnasium_car_racing(config: GymnasiumCarRacingConfig) -> Callable[[], Any]:
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
        _at_least(self, size=1, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)


def _take_cover(config: TakeCoverConfig) -> Callable[[], Any]:
    from envs.adapters.take_cover import simulator

    gray = config.color is Color.gray
    return functools.partial(simulator, config.size, gray, config.continuous)


def _take_cover_labels(config: TakeCoverConfig) -> tuple[str, ...]:
    return ("steer",) if config.continuous else ("stand", "left", "right")


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
        _at_least(self, tracks=1, time_limit=0, action_repeat=1, frame_stack=1)


def _odd_one_out(config: OddOneOutConfig, levels: Sequence[int]) -> Environment:
    from envs.odd_one_out.env import make

    return make(levels)


class Entry(NamedTuple):
    """A world of the registry.

    Attributes:
      config: the frozen dataclass of its settings; all have `name`, `tracks`,
        `time_limit`, `action_repeat` and `frame_stack`, and may have `variant`.
      make: (settings, levels) -> Environment, without those transforms; level i of its
        episodes is `levels[i]`.
      labels: settings -> a name for each component of an action, or each choice.
      variants: the variants that `ALL` stands for, `ORIGINAL` first; () for a world
        without the setting `variant`.
      simulator: for worlds on the host, settings -> what makes one of its simulators
        (`envs.adapters.host_simulator.Maker`); `make` is then never called.
    """

    config: type
    make: Callable[[Any, Sequence[int]], Environment]
    labels: Callable[[Any], tuple[str, ...]]
    variants: tuple[str, ...] = ()
    simulator: Callable[[Any], Callable[[], Any]] | None = None


def _of_the_host(config: Any, levels: Sequence[int]) -> Environment:
    raise ValueError(f"env={config.name} is simulated on the host, and is no JAX world")


REGISTRY = {
    "CarRacing": Entry(
        CarRacingConfig, _car_racing, _car_racing_labels, CAR_RACING_VARIANTS
    ),
    "OddOneOut": Entry(OddOneOutConfig, _odd_one_out, lambda _: ("row", "column")),
    "GymnasiumCarRacing": Entry(
        GymnasiumCarRacingConfig,
        _of_the_host,
        _car_racing_labels,
        simulator=_gymnasium_car_racing,
    ),
    "gymnasium": Entry(
        GymnasiumConfig, _of_the_host, lambda _: (), simulator=_gymnasium
    ),
    "dm_control": Entry(
        dm_settings.DmControlConfig,
        _of_the_host,
        lambda _: (),
        # The suite's own benchmark is all of them together.
        (*dm_settings.VARIANTS, JOIN.join(dm_settings.VARIANTS[1:])),
        simulator=dm_settings.maker,
    ),
    "TakeCover": Entry(
        TakeCoverConfig, _of_the_host, _take_cover_labels, simulator=_take_cover
    ),
}
"""Every world by name."""


def variant(config: Any) -> str:
    """The variant that a world's settings name; `ORIGINAL` where it has only that."""
    return getattr(config, "variant", ORIGINAL)


def manner(config: Any) -> str:
    """How a world wears its variant, "" where there is one way only."""
    return "" if variant(config) == ORIGINAL else getattr(config, "manner", "")


def as_variant(config: Any, name: str) -> Any:
    """The same settings for another of the world's variants."""
    changes = {"variant": name}
    for setting, shows in (("video", "video"), ("frames", "background")):
        if getattr(config, setting, "") and shows not in worn(name):
            changes[setting] = ""
    return replace(config, **changes)


def _check_one_variant(config: Any) -> None:
    if variant(config) == ALL:
        raise ValueError(
            f"env.variant={ALL} evaluates every variant, with mode=evaluate; here it "
            f"must be one of {', '.join(REGISTRY[config.name].variants)}, or several "
            f"joined with {JOIN}"
        )


def make(config: Any, levels: Sequence[int]) -> Environment:
    """The game itself, frame by frame, within its time limit.

    Args:
      config: settings, an instance of its entry's `config`.
      levels: the levels that `episode` 0, 1, ... stand for (Gymnasium seeds).

    Raises:
      KeyError: no world has this name.
      ValueError: settings that the world cannot have, or `ALL` variants at once.
    """
    _check_one_variant(config)
    game = REGISTRY[config.name].make(config, levels)
    if config.time_limit:
        return transforms.time_limit(game, config.time_limit)
    return game


def transformed(config: Any, game: Environment) -> Environment:
    """The game as the agent plays it: action repeat, then frame stack."""
    repeated = transforms.action_repeat(game, config.action_repeat)
    return transforms.frame_stack(repeated, config.frame_stack)


def title(config: Any) -> str:
    """What to call a world."""
    return getattr(config, "id", "") or config.name


def on_host(config: Any) -> bool:
    """Whether a world is simulated on the host, and not by JAX."""
    return REGISTRY[config.name].simulator is not None


def host(config: Any, workers: int, timeout: float) -> HostVectorEnv:
    """A world that is simulated on the host, as the agent plays it.

    Args:
      config: settings, an instance of its entry's `config`.
      workers: how many simulators, each in a process of its own.
      timeout: seconds that one may take for its start or for a decision.

    Raises:
      ValueError, ChildProcessError: as `envs.adapters.host.host`; `ALL` variants at
        once.
    """
    from envs.adapters.host import host
    from envs.adapters.host_simulator import Playing

    make = REGISTRY[config.name].simulator
    assert make is not None, f"{config.name} is a JAX world"
    _check_one_variant(config)
    playing = Playing(config.action_repeat, config.frame_stack, config.time_limit)
    return host(make(config), workers, title(config), playing, timeout)
