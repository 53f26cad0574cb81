"""Pictures to put behind a world: noise, drifting waves of colour, frames of a video.

Each is a function of what was drawn for the episode and of the number of steps, and
cheap enough to be made anew at every step of thousands of worlds.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

FRAMES = 1000
"""Frames of a video file that are used at most, the first ones: an episode's worth."""
WAVES = 4
"""How many."""
PERIODS = 3.0
"""Most periods of a wave from one side of the picture to the other."""
RATE = 0.5
"""Most periods of a wave that pass a pixel in a second."""


def noise_frame(seed: jax.Array, step: jax.Array, height: int, width: int) -> jax.Array:
    """One frame of noise, each channel of each pixel uniform in 0 ... 255.

    Args:
      seed: u32[], names the sequence.
      step: i32[], names the frame.
      height: of the frame in pixels.
      width: of the frame in pixels.

    Returns:
      u8[height, width, 3].
    """
    start = _hashed(seed + _hashed(jnp.asarray(step).astype(jnp.uint32)))
    index = jnp.arange(height * width * 3, dtype=jnp.uint32)
    # An odd factor spreads the index over all bits, so that two frames whose starts are
    # near each other do not run through the same hashes.
    values = _hashed(index * np.uint32(0x9E3779B1) ^ start) >> 24
    return values.astype(jnp.uint8).reshape(height, width, 3)


def _hashed(x: jax.Array) -> jax.Array:
    """A bijection of u32 in which each bit of x turns half of the bits.

    Two rounds of xor-shift and multiplication, with the constants that C. Wellons found
    to be least biased (github.com/skeeto/hash-prospector, "lowbias32"). Noise need only
    look random, and so need not cost what JAX's own generator does.
    """
    x = (x ^ x >> 16) * np.uint32(0x7FEB352D)
    x = (x ^ x >> 15) * np.uint32(0x846CA68B)
    return x ^ x >> 16


class Waves(NamedTuple):
    """K plane waves that travel over a picture of unit sides.

    Attributes:
      down: f32[K], periods from the picture's top to its bottom.
      across: f32[K], periods from its left to its right.
      speed: f32[K], periods that pass a point in a step.
      phase: f32[K, 3], of each colour at the top left corner and step 0, in periods.
    """

    down: jax.Array
    across: jax.Array
    speed: jax.Array
    phase: jax.Array


def draw_waves(key: jax.Array, rate: float) -> Waves:
    """The waves of one episode.

    Args:
      key: of the draw.
      rate: steps a second.
    """
    unit = jax.random.uniform(key, (6, WAVES), minval=-1.0, maxval=1.0)
    down, across = PERIODS * unit[:2]
    return Waves(down, across, RATE / rate * unit[2], unit[3:].T)


def wave_frame(waves: Waves, step: jax.Array, height: int, width: int) -> jax.Array:
    """One frame of the waves, each colour their mean at its own phases.

    Args:
      waves: of the episode.
      step: i32[], the time.
      height: of the frame in pixels.
      width: of the frame in pixels.

    Returns:
      u8[height, width, 3].
    """
    down, across, speed, phase = (jnp.asarray(x) for x in waves)
    y = ((np.arange(height) + 0.5) / height).astype("f4")
    x = ((np.arange(width) + 0.5) / width).astype("f4")
    start = phase + (speed * jnp.asarray(step, jnp.float32))[:, None]
    a = down[:, None] * y[None]
    b = (across[:, None] * x[None])[..., None] + start[:, None]
    b = b.reshape(len(b), width * 3)
    # sin(a + b) = sin a cos b + cos a sin b: sines of rows and columns, not of pixels.
    rows = jnp.concatenate([_sine(a), _sine(a + 0.25)])
    columns = jnp.concatenate([_sine(b + 0.25), _sine(b)])
    mean = rows.T @ columns / WAVES
    return jnp.round(127.5 + 127.5 * mean).astype(jnp.uint8).reshape(height, width, 3)


def _sine(periods: jax.Array) -> jax.Array:
    """sin(2 pi x) to 0.0012, at half of its cost: two parabolas, bent."""
    x = periods - jnp.round(periods)
    y = x * (8.0 - 16.0 * jnp.abs(x))
    return y * (0.775 + 0.225 * jnp.abs(y))


@functools.lru_cache(maxsize=2)
def read_video(file: str, height: int, width: int) -> np.ndarray:
    """The first `FRAMES` frames of a video file; read once in a process.

    Args:
      file: its path.
      height: that the frames are resized to, in pixels.
      width: that the frames are resized to, in pixels.

    Returns:
      u8[N, height, width, 3], RGB.

    Raises:
      ValueError: it is not there, or OpenCV finds no frame in it.
    """
    if not Path(file).is_file():
        raise ValueError(f"the video {file} is no file; give the path of one")
    capture = cv2.VideoCapture(file)
    frames = []
    try:
        while len(frames) < FRAMES:
            found, frame = capture.read()
            if not found:
                break
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            frames.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    if not frames:
        raise ValueError(
            f"OpenCV finds no frame in the video {file}; give one that it reads, for "
            "example H.264 in mp4"
        )
    return np.stack(frames)
