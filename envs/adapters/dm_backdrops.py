"""Films for the sky of a simulator: drifting waves of colour, or frames on the disk.

Runs in worker processes and loads no JAX, so that the waves of `envs.backdrops` are
made here once more, in numpy.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from envs.adapters.host_simulator import Refused

SIDE = 256
"""Height and width of a frame in pixels; the sky shows about a half of it."""
WAVY = 60
"""Films of waves: as many as DAVIS has for training."""
FRAMES = 256
"""Frames of a video file that are used at most, the first ones."""
_LENGTH = 1000
_PERIODS, _RATE, _WAVES = 3.0, 0.5 / 24, 4
"""As in `envs.backdrops`, at 24 frames a second."""
_STREAM = 0x77617665
_IMAGES = (".jpg", ".jpeg", ".png")
_DAVIS = "JPEGImages/480p", "ImageSets/2017/train.txt"


class Film(NamedTuple):
    """Frames in their order.

    Attributes:
      length: how many.
      frame: number -> u8[SIDE, SIDE, 3], RGB.
    """

    length: int
    frame: Callable[[int], np.ndarray]


def films(where: str) -> list[Film]:
    """All films at a place, by their names.

    Args:
      where: a video file, a folder of images, a folder of such folders, or DAVIS 2017
        as it is unpacked, of which the films for training are taken. "" for waves.

    Raises:
      Refused: there is nothing of the kind.
    """
    if not where:
        return [Film(_LENGTH, functools.partial(_waves, i)) for i in range(WAVY)]
    path = Path(where).expanduser()
    images, names = (path / part for part in _DAVIS)
    if names.is_file():
        found = [images / name for name in names.read_text().split()]
    elif path.is_dir() and not _images(path):
        found = sorted(each for each in path.iterdir() if each.is_dir())
    else:
        found = [path]
    made = [film for each in found if (film := _film(each)) is not None]
    if not made:
        raise Refused(
            f"env.frames is {where}, where there are no frames; it must be a video "
            f"file, a folder of images ({', '.join(_IMAGES)}), a folder of such "
            "folders, or the folder of DAVIS 2017"
        )
    return made


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _IMAGES)


def _film(path: Path) -> Film | None:
    if path.is_dir() and (images := _images(path)):
        return Film(len(images), lambda i: _image(images[i]))
    if path.is_file() and (frames := _video(path)):
        return Film(len(frames), frames.__getitem__)
    return None


@functools.lru_cache(maxsize=FRAMES)
def _image(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"OpenCV cannot read {path}; take it away, or give another")
    return _fitted(image)


def _video(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    try:
        while len(frames) < FRAMES:
            found, frame = capture.read()
            if not found:
                break
            frames.append(_fitted(frame))
    finally:
        capture.release()
    return frames


def _fitted(image: np.ndarray) -> np.ndarray:
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


class Waves(NamedTuple):
    """As `envs.backdrops.Waves`, in numpy."""

    down: np.ndarray
    across: np.ndarray
    speed: np.ndarray
    phase: np.ndarray


@functools.lru_cache(maxsize=WAVY)
def draw_waves(number: int) -> Waves:
    """The waves of a film."""
    generator = np.random.default_rng([_STREAM, number])
    unit = generator.uniform(-1.0, 1.0, (6, _WAVES))
    return Waves(_PERIODS * unit[0], _PERIODS * unit[1], _RATE * unit[2], unit[3:].T)


def wave_frame(waves: Waves, step: int) -> np.ndarray:
    """As `envs.backdrops.wave_frame`: u8[SIDE, SIDE, 3], by sin(a + b)."""
    at = (np.arange(SIDE) + 0.5) / SIDE
    start = waves.phase + step * waves.speed[:, None]
    a = 2 * np.pi * waves.down[:, None] * at
    b = 2 * np.pi * ((waves.across[:, None] * at)[..., None] + start[:, None])
    b = b.reshape(_WAVES, -1)
    rows = np.concatenate([np.sin(a), np.cos(a)]).T
    mean = rows @ np.concatenate([np.cos(b), np.sin(b)]) / _WAVES
    return np.round(127.5 + 127.5 * mean).astype(np.uint8).reshape(SIDE, SIDE, 3)


def _waves(number: int, step: int) -> np.ndarray:
    return wave_frame(draw_waves(number), step)
