"""Frames of Gymnasium's CarRacing-v3, each with the state that it shows."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from envs.car_racing import track
from envs.car_racing.reference import careless, record
from envs.car_racing.state import State

SEEDS = (3, 8, 21)
ZOOM = (0, 1, 2, 4, 9, 15, 22, 30, 40, 48)
"""Frames within the first second's zoom."""
DRIVE = (49, 70, 95, 120, 150, 190, 230)


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


@functools.cache
def recorded(domain_randomize: bool = False) -> Frames:
    """A driver who follows the road, and now and then steers hard without looking."""
    drives = [
        record(
            seed,
            max(DRIVE),
            careless,
            frames=(*ZOOM, *DRIVE),
            track=i,
            domain_randomize=domain_randomize,
        )
        for i, seed in enumerate(SEEDS)
    ]
    states = [state for drive in drives for state in drive.states]
    return Frames(
        [track.generate(seed, domain_randomize) for seed in SEEDS],
        jax.tree.map(lambda *leaves: np.stack(leaves), *states),
        np.concatenate([drive.images for drive in drives]),
    )


def state_at(frames: Frames, i: int) -> State:
    return State(*(leaf[i] for leaf in frames.states))


def apart(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference per value, and share of pixels within 16 levels, per image."""
    difference = np.abs(a.astype(int) - b)
    return difference.mean((1, 2, 3)), (difference.max(-1) <= 16).mean((1, 2))
