"""What the scripted driver scores: mean, spread and worst track.

    python -m experiments.studies.driver
    python -m experiments.studies.driver --gymnasium 10

The driver of `envs.car_racing.driver`, which reads the track, plays every test track in
our world; with `--gymnasium N` it also plays the first N of them in Gymnasium's own
CarRacing-v3. Prints a table and writes driver.csv with every track's return.
"""

import argparse
import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.core import Decision
from agents.rollout import episode_keys, returns
from envs.car_racing import track
from envs.car_racing.driver import Motion, drive
from envs.car_racing.env import make
from envs.vector import vectorise
from experiments.build import TEST


class Episode(NamedTuple):
    """One episode of the driver.

    Attributes:
      world: "ours" or "gymnasium".
      track: its Gymnasium seed.
      total: the return.
      frames: game frames until the episode's end.
    """

    world: str
    track: int
    total: float
    frames: int


def in_ours(levels: Sequence[int]) -> list[Episode]:
    """The driver's episodes in our world, side by side."""
    env = make(levels)
    # The driver looks at the state where a policy would look at the picture.
    worlds = vectorise(env, len(levels))._replace(observe=lambda world, states: states)

    @jax.jit
    def play(world):
        def act(carry, states):
            actions = jax.vmap(drive, (None, 0))(world.roads, states)
            return carry, Decision(actions, attention=None)  # type: ignore[arg-type]

        episodes = jnp.arange(len(levels))
        keys = episode_keys(jax.random.key(0), len(levels))
        return returns(worlds, world, act, (), episodes, keys)

    stats = jax.device_get(play(env.world))
    return [
        Episode("ours", level, float(total), int(frames))
        for level, total, frames in zip(
            levels, stats.returns, stats.frames, strict=True
        )
    ]


def in_gymnasium(level: int) -> Episode:
    """The driver's episode in Gymnasium's CarRacing-v3, not drawn."""
    import gymnasium

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types
        env = gymnasium.make("CarRacing-v3", disable_env_checker=True)
    game: Any = env.unwrapped
    game._render = lambda mode: np.zeros((96, 96, 3), np.uint8)
    env.reset(seed=level)
    roads = jax.tree.map(jnp.asarray, track.stack([level]))
    steer = jax.jit(drive)
    total, frames, over = 0.0, 0, False
    while not over:
        hull = game.car.hull
        pose = *hull.position, hull.angle, *hull.linearVelocity, hull.angularVelocity
        car = Motion(jnp.int32(0), *map(jnp.float32, pose))
        action = np.asarray(steer(roads, car))
        _, reward, terminated, truncated, _ = env.step(action)
        total, frames = total + float(reward), frames + 1
        over = terminated or truncated
    env.close()
    return Episode("gymnasium", level, total, frames)


def table(episodes: Sequence[Episode]) -> str:
    """Mean, spread and extremes by world, as Markdown."""
    lines = [
        "| world | tracks | mean | sd | min | max | frames, mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for world in dict.fromkeys(episode.world for episode in episodes):
        own = [episode for episode in episodes if episode.world == world]
        totals = np.array([episode.total for episode in own])
        frames = np.mean([episode.frames for episode in own])
        lines.append(
            f"| {world} | {own[0].track}-{own[-1].track} | {totals.mean():.1f} "
            f"| {totals.std():.1f} | {totals.min():.1f} | {totals.max():.1f} "
            f"| {frames:.0f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table and writes driver.csv."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=TEST[0], help="track's seed")
    parser.add_argument("--tracks", type=int, default=len(TEST), help="how many")
    parser.add_argument("--gymnasium", type=int, default=0, help="how many there too")
    parser.add_argument("--out", type=Path, default=Path("driver.csv"))
    arguments = parser.parse_args(argv)
    levels = range(arguments.first, arguments.first + arguments.tracks)
    episodes = in_ours(levels)
    episodes += [in_gymnasium(level) for level in levels[: arguments.gymnasium]]
    print(table(episodes))
    with open(arguments.out, "w", newline="") as file:
        csv.writer(file).writerows([Episode._fields, *episodes])


if __name__ == "__main__":
    main()
