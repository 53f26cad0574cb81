"""What it costs to keep simulators in processes of their own.

    python -m experiments.studies.host_overhead
    python -m experiments.studies.host_overhead --games cheetah --seconds 10

Plays the same seeds with the same random actions, drawn beforehand, in three ways: in
this process with the simulator's own interface alone, behind `HostVectorEnv` with one
worker, and with two. There is no policy: all that is measured is the simulator and what
lies around it. Every decision has its picture, and the three must come to the same
rewards and the same last pictures.

They take turns, as often as `--repeats` says. A ratio is that of two turns beside each
other; its median and its extremes are printed. What it takes to start is told apart.
MuJoCo draws with one thread everywhere (LP_NUM_THREADS=1). Prints a table, writes
host_overhead.csv. Run it on an idle machine with at least two cores.
"""

import argparse
import csv
import logging
import os
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from envs import registry
from envs.adapters import opengl
from envs.adapters.dm_settings import DmControlConfig
from envs.car_racing.settings import GymnasiumCarRacingConfig
from envs.core import Box, Episode, HostVectorEnv, Moment
from experiments.studies.throughput import machine

DECISIONS = 100
"""Of an episode; it is left then."""
WAYS = ("bare", "1 worker", "2 workers")
TIMEOUT = 60.0

Story: TypeAlias = tuple[float, int]
"""What an episode came to: its return, and a checksum of its last picture."""
Play: TypeAlias = Callable[[int, np.ndarray], Story]
"""(seed, actions f32[DECISIONS, A]) -> Story."""


class Game(NamedTuple):
    """A world that is played in all ways.

    Attributes:
      config: its settings.
      bare: settings -> `Play`, with the simulator's own interface.
    """

    config: Any
    bare: Callable[[Any], Play]


class Turn(NamedTuple):
    """One measurement.

    Attributes:
      game: its name.
      way: one of `WAYS`.
      repeat: which of them, from 0.
      decisions: that were played.
      seconds: on the clock.
    """

    game: str
    way: str
    repeat: int
    decisions: int
    seconds: float


def _story(total: float, picture: np.ndarray) -> Story:
    return total, zlib.crc32(np.ascontiguousarray(picture).tobytes())


# --- without processes --------------------------------------------------------------


def bare_car_racing(config: Any) -> Play:
    """CarRacing-v3 as Gymnasium makes it."""
    import gymnasium

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types
        env = gymnasium.make("CarRacing-v3", disable_env_checker=True)

    def play(seed: int, actions: np.ndarray) -> Story:
        picture, _ = env.reset(seed=seed)
        total, over = 0.0, False
        for action in actions:
            held = 0.0
            for _ in range(config.action_repeat):
                picture, reward, terminated, truncated, _ = env.step(action)
                held += float(reward)
                if over := terminated or truncated:
                    break
            total += held
            if over:
                break
        return _story(total, picture)

    return play


def bare_dm_control(config: Any) -> Play:
    """A task as dm_control loads it."""
    opengl.choose()
    from dm_control import suite
    from dm_control.mujoco import engine

    logging.getLogger("absl").setLevel(logging.ERROR)  # what its own models say
    env = suite.load(config.domain, config.task, task_kwargs={"random": 0})
    size, physics = config.size, env.physics
    # As in the workers: software draws the whole buffer, however small the picture.
    whole = physics.model.vis.global_
    whole.offheight = whole.offwidth = size
    # As there too: `physics.render` would make one for every picture.
    camera = engine.Camera(physics, size, size, 0)

    def play(seed: int, actions: np.ndarray) -> Story:
        env.task.random.seed(seed)
        env.reset()
        picture = camera.render()
        total, over = 0.0, False
        for action in actions:
            held = 0.0
            for _ in range(config.action_repeat):
                now = env.step(action)
                held += float(now.reward)
                if over := now.last():
                    break
            picture = camera.render()
            total += held
            if over:
                break
        return _story(total, picture)

    return play


GAMES = {
    "CarRacing-v3": Game(GymnasiumCarRacingConfig(), bare_car_racing),
    "cheetah": Game(DmControlConfig(domain="cheetah", task="run"), bare_dm_control),
}


# --- behind HostVectorEnv -----------------------------------------------------------


def hosted(
    world: HostVectorEnv, seeds: Sequence[int], actions: np.ndarray
) -> list[Story]:
    """The same episodes in the workers.

    Args:
      world: the simulators.
      seeds: one for each episode.
      actions: f32[episodes, DECISIONS, A].
    """

    def begin(index: int, seen: Moment) -> Episode:
        total = 0.0
        for action in actions[index]:
            seen = yield action
            total += seen.reward
            if seen.terminated or seen.truncated:
                break
        assert isinstance(seen.observation, np.ndarray), "neither game tells a vector"
        return _story(total, seen.observation)

    return world.play(seeds, begin, (0, 0))


# --- the study ----------------------------------------------------------------------


def drawn(low: Sequence[float], high: Sequence[float], episodes: int) -> np.ndarray:
    """f32[episodes, DECISIONS, A], uniform within the bounds."""
    size = (episodes, DECISIONS, len(low))
    return np.random.default_rng(0).uniform(low, high, size).astype(np.float32)


def turns(name: str, game: Game, seconds: float, repeats: int) -> list[Turn]:
    """Plays a game in all ways, in turns.

    Args:
      name: of the game.
      game: what is played.
      seconds: about as long as a turn of one simulator is to take.
      repeats: turns of each way.

    Raises:
      RuntimeError: the ways do not come to the same.
    """
    began = time.perf_counter()
    one = registry.host(game.config, 1, TIMEOUT)
    started = time.perf_counter() - began
    two = registry.host(game.config, 2, TIMEOUT)
    try:
        bare, box = game.bare(game.config), one.spec.action
        assert isinstance(box, Box), "both games are steered by strengths"
        bare(0, drawn(box.low, box.high, 1)[0])  # what is made when it first draws
        began = time.perf_counter()
        bare(0, drawn(box.low, box.high, 1)[0])
        took = time.perf_counter() - began
        # As many for each of two.
        episodes = 2 * max(1, round(seconds / took / 2))
        seeds, actions = range(episodes), drawn(box.low, box.high, episodes)
        ways: dict[str, Callable[[], list[Story]]] = {
            "bare": lambda: [bare(s, a) for s, a in zip(seeds, actions, strict=True)],
            "1 worker": lambda: hosted(one, seeds, actions),
            "2 workers": lambda: hosted(two, seeds, actions),
        }
        # In which the second of two workers starts, too.
        stories = {way: ways[way]() for way in WAYS}
        if any(stories[way] != stories["bare"] for way in WAYS):
            raise RuntimeError(f"{name} came out differently in another process")
        print(
            f"{name}: {one.spec.image.shape} pictures, action repeat "
            f"{game.config.action_repeat}, {episodes} episodes of {DECISIONS} "
            f"decisions; a worker starts in {started:.1f} s",
            flush=True,
        )
        measured = []
        for repeat in range(repeats):
            for way in WAYS:
                began = time.perf_counter()
                ways[way]()
                took = time.perf_counter() - began
                measured.append(Turn(name, way, repeat, episodes * DECISIONS, took))
        return measured
    finally:
        one.close()
        two.close()


def speeds(measured: Sequence[Turn], game: str, way: str) -> np.ndarray:
    """f64[repeats], decisions a second."""
    return np.array(
        [t.decisions / t.seconds for t in measured if (t.game, t.way) == (game, way)]
    )


def table(measured: Sequence[Turn]) -> str:
    """Speeds and their ratios, median (lowest to highest), as Markdown."""
    lines = [
        f"| game | {', decisions/s | '.join(WAYS)}, decisions/s "
        "| overhead of 1 worker | 2 workers / 1 |",
        "|" + "---|" * (len(WAYS) + 3),
    ]
    for game in dict.fromkeys(turn.game for turn in measured):
        bare, one, two = (speeds(measured, game, way) for way in WAYS)
        cells = [_spread(values, "{:,.1f}") for values in (bare, one, two)]
        cells += [_spread(bare / one - 1, "{:.1%}"), _spread(two / one, "{:.2f}")]
        lines.append(f"| {game} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: np.ndarray, form: str) -> str:
    middle, *ends = (form.format(f(values)) for f in (np.median, np.min, np.max))
    return f"{middle} ({' to '.join(ends)})"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table and writes host_overhead.csv."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--games", nargs="+", choices=GAMES, default=list(GAMES))
    add("--seconds", type=float, default=5.0, help="of a turn (default: 5)")
    add("--repeats", type=int, default=7, help="turns of each way (default: 7)")
    add("--out", type=Path, default=Path("host_overhead.csv"))
    given = parser.parse_args(argv)
    if not given.seconds > 0 or given.repeats < 1:
        parser.error(
            f"--seconds {given.seconds:g} must be more than 0, and --repeats "
            f"{given.repeats} at least 1"
        )
    # The workers set these themselves; here it must be before MuJoCo is loaded.
    for name in ("LP_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}, LP_NUM_THREADS=1\n")
    measured = []
    for name in given.games:
        measured += turns(name, GAMES[name], given.seconds, given.repeats)
    print("\n" + table(measured))
    with open(given.out, "w", newline="") as file:
        csv.writer(file).writerows([Turn._fields, *measured])


if __name__ == "__main__":
    main()
