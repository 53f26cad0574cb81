"""Frames of Gymnasium's CarRacing-v3, each with the state that it shows."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from envs.car_racing import palette, track
from envs.car_racing.contacts import WORDS
from envs.car_racing.state import State
from tests.envs.car_racing.driver import CarRacing, Pose, centre_line, follow_road

SEEDS = (3, 8, 21)
ZOOM = (0, 1, 4, 9, 15, 22, 30, 40, 48)
"""Steps within the first second's zoom."""
DRIVE = (49, 70, 95, 120, 150, 190, 230)


class Recorder(CarRacing):
    """CarRacing-v3 that draws chosen steps only."""

    wanted = frozenset((*ZOOM, *DRIVE))

    def reset(self, **arguments):
        self.steps_drawn = -1
        return super().reset(**arguments)

    def _render(self, mode):
        self.steps_drawn += 1
        self.shown = self.reward
        return super()._render(mode) if self.steps_drawn in self.wanted else None


class Frames(NamedTuple):
    """N frames.

    Attributes:
      tracks: of `SEEDS`.
      states: State of [N, ...].
      images: u8[N, 96, 96, 3].
    """

    tracks: list[track.Track]
    states: State
    images: np.ndarray


def state_of(env: Recorder, index: int) -> State:
    """The state of a Gymnasium car: what pictures show of it, and zeros."""
    hull, wheels = env.car.hull, env.car.wheels
    visited = np.zeros(WORDS, "u4")
    for tile in env.road:
        visited[tile.idx // 32] |= np.uint32(tile.road_visited << tile.idx % 32)
    ground = palette.GROUND.astype("f4")
    kinds = [palette.ROAD, palette.DARK, palette.LIGHT]
    ground[kinds] = env.road_color, env.bg_color, env.grass_color
    known = {
        "track": np.int32(index),
        "step": np.int32(env.steps_drawn),
        "x": np.float32(hull.position[0]),
        "y": np.float32(hull.position[1]),
        "angle": np.float32(hull.angle),
        "vx": np.float32(hull.linearVelocity[0]),
        "vy": np.float32(hull.linearVelocity[1]),
        "w": np.float32(hull.angularVelocity),
        "joint": np.array([wheel.joint.angle for wheel in wheels], "f4"),
        "omega": np.array([wheel.omega for wheel in wheels], "f4"),
        "phase": np.array([wheel.phase for wheel in wheels], "f4"),
        "visited": visited,
        "ground": np.floor(ground),
        "score": np.float32(env.shown),
    }
    return State(**{field: known.get(field, np.float32(0)) for field in State._fields})


@functools.cache
def recorded(domain_randomize: bool = False) -> Frames:
    """A driver who follows the road, and now and then steers hard without looking."""
    states, images = [], []
    for index, seed in enumerate(SEEDS):
        env = Recorder(domain_randomize=domain_randomize)
        image, _ = env.reset(seed=seed)
        line = centre_line(env)
        for step in range(max(DRIVE) + 1):
            if image is not None:
                states.append(state_of(env, index))
                images.append(image)
            hull = env.car.hull
            speed = float(np.hypot(*hull.linearVelocity))
            action = follow_road(line, Pose(*hull.position, hull.angle, speed))
            if step % 60 > 45:
                action[0] = 1 - 2 * (step // 60 % 2)
            image = env.step(action)[0]
        env.close()
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    tracks = [track.generate(seed, domain_randomize) for seed in SEEDS]
    return Frames(tracks, stacked, np.stack(images))


def state_at(frames: Frames, i: int) -> State:
    return State(*(leaf[i] for leaf in frames.states))


def apart(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference per value, and share of pixels within 16 levels, per image."""
    difference = np.abs(a.astype(int) - b)
    return difference.mean((1, 2, 3)), (difference.max(-1) <= 16).mean((1, 2))
