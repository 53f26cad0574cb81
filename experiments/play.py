"""`mode=play`: a person drives; without a screen, the scripted driver is filmed.

pygame, which Gymnasium's CarRacing brings, is imported when a window opens.
"""

import contextlib
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents import keys as names
from agents.rollout import reset_key, step_key
from envs import registry
from envs.car_racing.driver import drive
from envs.car_racing.state import State
from envs.car_racing.track import Roads
from envs.core import Box, Environment
from experiments import overlay, record
from experiments.config import Config
from experiments.evaluate import level_key
from experiments.folder import RunError, replacing

ASPECT = 5 / 4
"""Width to height of Gymnasium's window."""
HELP = (
    "←  →   steer",
    "↑   gas      ↓   brake",
    "R   next track      Esc   quit",
    "Any key starts the race.",
)
BEHIND = 4
"""Frames that may go unpainted in a row where a machine paints too slowly."""


class Game(NamedTuple):
    """The world of a configuration, frame by frame, on any track.

    Attributes:
      env: its static facts and `paint`.
      config: the world's settings.
      key: of the episodes, as in evaluation.
      reset: jitted (world, key) -> state.
      step: jitted (world, state, action, key, t) -> (state, reward, over).
    """

    env: Environment
    config: Any
    key: jax.Array
    reset: Callable[[Any, jax.Array], Any]
    step: Callable[..., tuple[Any, jax.Array, jax.Array]]


class Race(NamedTuple):
    """One track, ready to be driven on.

    Attributes:
      level: its Gymnasium seed.
      world: its constant data, for the device.
      host: the same, for `paint`.
      key: the episode's own.
    """

    level: int
    world: Any
    host: Any
    key: jax.Array


class NoScreen(Exception):  # noqa: N818
    """There is no screen to open a window on; says why."""


def play_run(config: Config) -> None:
    """Opens a window to drive in from `config.track` on, or films the scripted driver.

    Raises:
      RunError: the world is not one that can be driven, or the film cannot be written.
      ValueError: a height that no film can have.
    """
    if config.env.name != "CarRacing":
        raise RunError(f"mode=play can drive CarRacing only, not env={config.env.name}")
    if config.height % 2 or config.height < 120:
        raise ValueError(f"height is {config.height}; it must be even and at least 120")
    size = round(config.height * ASPECT / 2) * 2, config.height
    try:
        with _window(size) as screen:
            _by_hand(_game(config, config.env), screen, config.track)
    except NoScreen as reason:
        # The scripted driver uses pedals, whatever the player has.
        game = _game(config, dataclasses.replace(config.env, continuous=True))
        for level in range(config.track, config.track + max(1, config.episodes)):
            path = Path(config.root) / f"driver-track-{level}.mp4"
            total, frames = film(game, path, level, size)
            print(
                f"There is no window to drive in ({reason}), so the scripted driver "
                f"was filmed on track {level}: {path}, return {total:.1f} in {frames} "
                "frames."
            )


def _game(config: Config, world: Any) -> Game:
    env = registry.make(world, [config.track])

    @jax.jit
    def step(world, state, action, key, t):
        state, outcome = env.step(world, state, action, step_key(key, t))
        return state, outcome.reward, outcome.terminated | outcome.truncated

    key = names.stream(jax.random.key(config.seed), "evaluate")
    reset = jax.jit(lambda world, key: env.reset(world, jnp.int32(0), reset_key(key)))
    return Game(env, world, key, reset, step)


def _race(game: Game, level: int) -> Race:
    world = registry.make(game.config, [level]).world
    return Race(level, world, jax.device_get(world), level_key(game.key, level))


# --- by hand ------------------------------------------------------------------------


class Screen(NamedTuple):
    """A window.

    Attributes:
      size: width and height in pixels.
      show: (u8[height, width, 3]) -> None.
      events: () -> what happened since the last call: (kind, key) pairs, kind "down",
        "up" or "quit", keys by pygame's names ("left", "r", "escape").
    """

    size: tuple[int, int]
    show: Callable[[np.ndarray], None]
    events: Callable[[], list[tuple[str, str]]]


@contextlib.contextmanager
def _window(size: tuple[int, int]) -> Iterator[Screen]:
    """A pygame window of this width and height.

    Raises:
      NoScreen: it cannot be opened.
    """
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform == "linux" and not any(map(os.environ.get, displays)):
        raise NoScreen("neither DISPLAY nor WAYLAND_DISPLAY is set")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    kinds = {pygame.KEYDOWN: "down", pygame.KEYUP: "up", pygame.QUIT: "quit"}

    def show(picture: np.ndarray) -> None:
        pygame.surfarray.blit_array(surface, picture.swapaxes(0, 1))
        pygame.display.flip()

    def events() -> list[tuple[str, str]]:
        return [
            (kinds[event.type], pygame.key.name(getattr(event, "key", 0)))
            for event in pygame.event.get()
            if event.type in kinds
        ]

    try:
        pygame.display.init()
        surface = pygame.display.set_mode(size)
    except pygame.error as error:
        raise NoScreen(str(error)) from error
    try:
        pygame.display.set_caption("CarRacing")
        yield Screen(size, show, events)
    finally:
        # Not all of pygame: the score's font lives on.
        pygame.display.quit()


def _action(held: set[str], space: Any) -> np.ndarray:
    """What the held keys mean, as in Gymnasium's own game."""
    left, right, gas, brake = (k in held for k in ("left", "right", "up", "down"))
    if isinstance(space, Box):
        return np.array([right - left, gas, 0.8 * brake], np.float32)
    choices = (("down", 4), ("right", 1), ("left", 2), ("up", 3))
    return np.array(next((c for key, c in choices if key in held), 0), np.int32)


def _by_hand(game: Game, screen: Screen, first: int) -> None:
    """Race after race, from the track `first` on, until the player leaves."""
    for level in itertools.count(first):
        if not _drive(game, screen, _race(game, level)):
            return


def _wish(events: list[tuple[str, str]], held: set[str]) -> str:
    """What the player wants: leave, next, drive or nothing. Keeps `held` up to date."""
    wish = ""
    for kind, key in events:
        if kind == "up":
            held.discard(key)
        elif kind == "quit" or key in ("escape", "q"):
            return "leave"
        elif key in ("r", "return"):
            return "next"
        else:
            held.add(key)
            wish = "drive"
    return wish


def _drive(game: Game, screen: Screen, race: Race) -> bool:
    """One race, at the game's own speed.

    Returns:
      Whether the player goes on to the next track.
    """
    width, height = screen.size
    fps, space = game.env.spec.fps, game.env.spec.action
    held: set[str] = set()
    state = game.reset(race.world, race.key)
    # Compiled before the player waits for it.
    game.step(race.world, state, _action(held, space), race.key, 0)
    t, total, started, over = 0, 0.0, False, False
    due, unpainted = time.perf_counter(), 0
    while True:
        match _wish(screen.events(), held):
            case "leave":
                return False
            case "next":
                return True
            case "drive":
                started = True
        if started and not over:
            action = _action(held, space)
            state, reward, ended = game.step(race.world, state, action, race.key, t)
            t, total, over = t + 1, total + float(reward), bool(ended)
            if over:
                print(_result(race, total, t, fps), flush=True)
        now = time.perf_counter()
        if now - due < 1 / fps or unpainted == BEHIND:
            picture = game.env.paint(race.host, state, height, width)
            if not started:
                _caption(picture, f"CarRacing, track {race.level}", HELP)
            if over:
                _caption(picture, _result(race, total, t, fps), HELP[2:3])
            screen.show(picture)
            unpainted = 0
        else:
            unpainted += 1
        # A pause of the machine is not made up for.
        due = max(due, now - 0.5) + 1 / fps
        time.sleep(max(0.0, due - time.perf_counter()))


def _result(race: Race, total: float, frames: int, fps: int) -> str:
    return f"Track {race.level}: {total:.1f} points in {frames / fps:.1f} s"


def _caption(picture: np.ndarray, title: str, lines: Sequence[str]) -> None:
    """Writes a title and lines below it onto a darkened band, in place."""
    unit = picture.shape[0] / 720
    top, left = round(110 * unit), round(60 * unit)
    bottom = top + round((76 + 34 * len(lines)) * unit)
    picture[top:bottom] //= 4
    y = top + round(16 * unit)
    overlay.write(picture, title, (left, y), round(30 * unit), overlay.INK, bold=True)
    for number, line in enumerate(lines):
        at = left, y + round((48 + 34 * number) * unit)
        overlay.write(picture, line, at, round(20 * unit), overlay.INK)


# --- the scripted driver ------------------------------------------------------------


def film(
    game: Game, path: Path, level: int, size: tuple[int, int]
) -> tuple[float, int]:
    """Films the scripted driver's episode on a track as H.264 mp4.

    Args:
      game: the world.
      path: the mp4.
      level: the track's Gymnasium seed.
      size: width and height of the picture; a panel with the action stands beside it.

    Returns:
      The return, and the number of game frames.

    Raises:
      RunError: the film cannot be written.
    """
    width, height = size
    spec = game.env.spec
    H, W, _ = spec.image.shape
    race = _race(game, level)
    steered = jax.jit(drive)
    roads = _part(race.world, Roads)
    style = overlay.Style(
        image=(H, W),
        window=1,
        stride=1,
        action=spec.action,
        labels=registry.REGISTRY[game.config.name].labels(game.config),
        title=f"{game.config.name}, track {level}",
        subtitle="scripted driver, which reads the track",
        heat_map=False,
    )
    state, t, total, over = game.reset(race.world, race.key), 0, 0.0, False
    shape = height, width + overlay.panel_width(height)
    nothing = np.zeros(0, np.float32)
    with (
        replacing(path) as temporary,
        record.encoder(temporary, shape, spec.fps) as add,
    ):
        while True:
            action = np.asarray(steered(roads, _part(state, State)))
            moment = overlay.Moment(
                *(nothing, nothing, nothing),
                action=action,
                total=total,
                seconds=t / spec.fps,
            )
            picture = game.env.paint(race.host, state, height, width)
            panel = overlay.panel(style, moment, height)
            add(np.concatenate([picture, panel], axis=1))
            if over:
                return total, t
            state, reward, ended = game.step(race.world, state, action, race.key, t)
            t, total, over = t + 1, total + float(reward), bool(ended)


def _part(tree: Any, kind: type) -> Any:
    """The one part of this kind of a world or a state, whatever wraps it."""
    parts = jax.tree.leaves(tree, is_leaf=lambda part: isinstance(part, kind))
    return next(part for part in parts if isinstance(part, kind))
