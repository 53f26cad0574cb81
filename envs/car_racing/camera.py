"""Gymnasium's window and camera: where the world lies in the picture.

Gymnasium draws into a window of 1000 x 800 pixels with y up, turns it over and shrinks
it to the observation. All positions here are in window pixels, y up, unless said.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WINDOW_W, WINDOW_H = 1000, 800
CAR_X, CAR_Y = WINDOW_W // 2, WINDOW_H // 4
"""Where the hull's origin stays; the car always drives up."""
STRIP_H = WINDOW_H // 8
"""Height of the strip of instruments at the bottom."""
FPS = 50
ZOOM = 2.7 * 6.0
"""Window pixels per world unit once the first second's zoom is over."""
FIRST_ZOOM = 0.1 * 6.0
ZOOMS = FIRST_ZOOM + (ZOOM - FIRST_ZOOM) * (np.arange(FPS) + 1) / FPS
"""The zoom at each `State.step` of the first second; the last one stays."""


def zoom_at(step: jax.Array) -> jax.Array:
    """Window pixels per world unit, f32[], when the frame of a state is drawn.

    Args:
      step: i32[], `State.step`.
    """
    t = jnp.minimum((step + 1).astype(jnp.float32) / FPS, 1.0)
    return FIRST_ZOOM + (ZOOM - FIRST_ZOOM) * t


def road_rows(size: int) -> int:
    """Rows of the picture above the strip of instruments."""
    return size - round(size * STRIP_H / WINDOW_H)


def centres(size: int, length: int) -> np.ndarray:
    """f32[size], window coordinates of pixel centres along an axis of the picture.

    Half a window pixel is missing because window pixels have their centres at whole
    numbers.
    """
    return ((np.arange(size) + 0.5) * (length / size) - 0.5).astype("f4")


def averaging(size: int, length: int) -> np.ndarray:
    """f32[size, length], the share of each window pixel in each pixel of the picture.

    The box filter that pygame's `smoothscale` applies along each axis.
    """
    scale = length / size
    low = np.arange(size)[:, None] * scale
    at = np.arange(length)
    overlap = np.minimum(low + scale, at + 1) - np.maximum(low, at)
    return (np.maximum(overlap, 0) / scale).astype("f4")


def darkened(colour: Any) -> Any:
    """A colour after `smoothscale`, which takes 2 off what is not black.

    Args:
      colour: f32 in [0, 255], an array of JAX, or anything that numpy takes.

    Returns:
      f32 of the same shape and kind.
    """
    if isinstance(colour, jax.Array):
        return jnp.maximum(colour - 2.0, 0.0)
    return np.maximum(np.asarray(colour, "f4") - 2, 0)


def span(low: float, high: float, size: int, length: int) -> tuple[int, int]:
    """First and one past the last pixel that window coordinates [low, high) touch."""
    scale = size / length
    first, last = np.floor(low * scale + 1e-6), np.ceil(high * scale - 1e-6)
    return int(np.clip(first, 0, size)), int(np.clip(last, 0, size))
