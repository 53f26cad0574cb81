"""The strip of instruments below the road: speed, wheels, steering and gyroscope."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.car_racing import camera
from envs.car_racing.state import State

UNIT_X, UNIT_Y = camera.WINDOW_W / 40, camera.WINDOW_H / 40
"""Gymnasium's grid of the strip, in window pixels."""


class Bar(NamedTuple):
    """A bar that grows from a fixed line.

    Attributes:
      place: grid column that it stands in, or grows sideways from.
      gain: its length in grid units per unit of what it shows.
      colour: RGB.
    """

    place: int
    gain: float
    colour: tuple[int, int, int]


UPRIGHT = (
    Bar(5, 0.02, (255, 255, 255)),
    Bar(7, 0.01, (0, 0, 255)),
    Bar(8, 0.01, (0, 0, 255)),
    Bar(9, 0.01, (51, 0, 255)),
    Bar(10, 0.01, (51, 0, 255)),
)
"""Speed, and the spin of each wheel."""
SIDEWAYS = (Bar(20, -10.0, (0, 255, 0)), Bar(30, -0.8, (255, 0, 0)))
"""Steering angle, and angular velocity of the hull."""
FOOT = camera.WINDOW_H - UNIT_Y
"""Window row, counted down, that the upright bars stand on."""
TOP, BOTTOM = camera.WINDOW_H - 4 * UNIT_Y, camera.WINDOW_H - 2 * UNIT_Y
"""Window rows of the sideways bars, counted down."""
SMALLEST = 1e-4
"""What shows less than this is not drawn."""
_REACH = 10.0
"""Grid units that a sideways bar may grow to; the gyroscope ends at the right edge."""


def readings(state: State) -> tuple[jax.Array, jax.Array]:
    """What the upright bars, f32[5], and the sideways bars, f32[2], show."""
    speed = jnp.hypot(state.vx, state.vy)
    upright = jnp.concatenate([speed[None], state.omega])
    return upright, jnp.stack([state.joint[0], state.w])


def _overlap(low: jax.Array, high: jax.Array, first: int, last: int, scale: float):
    """f32[last - first], the share of each pixel between window coordinates."""
    edge = np.arange(first, last, dtype="f4") * np.float32(scale)
    inside = jnp.minimum(high, edge + np.float32(scale)) - jnp.maximum(low, edge)
    return jnp.maximum(inside, 0.0) * np.float32(1 / scale)


def _extent(start: float, reading: jax.Array, unit: float):
    """Window coordinates of a bar's ends; polygons include their last pixel.

    Args:
      start: where it grows from.
      reading: f32[], what it shows.
      unit: window pixels per unit of that.
    """
    end = jnp.floor(start + unit * reading)
    low, high = jnp.minimum(start, end), jnp.maximum(start, end) + 1
    return low, jnp.where(jnp.abs(reading) > SMALLEST, high, low)


def _darkened(colour: tuple[int, int, int]) -> np.ndarray:
    return np.maximum(np.array(colour, "f4") - 2, 0)


def upright(readings: jax.Array, size: int) -> tuple[jax.Array, int, int]:
    """The upright bars in a picture of a given size.

    Args:
      readings: f32[5].
      size: pixels along a side of the picture.

    Returns:
      f32[h, 3 * w] with the channels side by side, row and column of its corner.
    """
    scale_y = camera.WINDOW_H / size
    row = camera.span(camera.WINDOW_H - camera.STRIP_H, 800, size, 800)[0]
    column, end = camera.span(
        UPRIGHT[0].place * UNIT_X, (UPRIGHT[-1].place + 1) * UNIT_X + 1, size, 1000
    )
    across = camera.averaging(size, camera.WINDOW_W)[column:end]
    image = jnp.zeros((size - row, 3 * (end - column)), jnp.float32)
    for i, bar in enumerate(UPRIGHT):
        alone = i in (0, len(UPRIGHT) - 1)
        x = int(bar.place * UNIT_X)
        share = across[:, x : x + int(UNIT_X) + alone].sum(1)
        low, high = _extent(FOOT, readings[i], -UNIT_Y * bar.gain)
        down = _overlap(low, high, row, size, scale_y)
        image += down[:, None] * np.outer(share, _darkened(bar.colour)).ravel()[None]
    return image, row, column


def sideways(readings: jax.Array, size: int) -> tuple[jax.Array, int, int]:
    """The sideways bars; arguments and result as in `upright`, readings f32[2]."""
    scale_x = camera.WINDOW_W / size
    row, last = camera.span(TOP, BOTTOM + 1, size, camera.WINDOW_H)
    left = (SIDEWAYS[0].place - 5) * UNIT_X
    column, end = camera.span(left, camera.WINDOW_W, size, camera.WINDOW_W)
    down = camera.averaging(size, camera.WINDOW_H)[row:last, int(TOP) : int(BOTTOM) + 1]
    image = jnp.zeros((last - row, 3 * (end - column)), jnp.float32)
    for i, bar in enumerate(SIDEWAYS):
        low, high = _extent(bar.place * UNIT_X, readings[i], UNIT_X * bar.gain)
        across = _overlap(low, high, column, end, scale_x)
        colour = _darkened(bar.colour)
        line = (across[:, None] * colour[None]).reshape(-1)
        image += down.sum(1)[:, None] * line[None]
    return jnp.minimum(image, 253.0), row, column
