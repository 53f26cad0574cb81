"""The strip of instruments below the road: speed, wheels, steering and gyroscope."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.car_racing import camera
from envs.car_racing.state import State

UNIT_X, UNIT_Y = camera.WINDOW_W // 40, camera.WINDOW_H // 40
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
_LEFT = (SIDEWAYS[0].place - 5) * UNIT_X
"""Window column that no sideways bar crosses: steering ends at 0.44 radians, and the
gyroscope reads less than 18 radians per second."""


def readings(state: State) -> jax.Array:
    """f32[7], what the upright and then the sideways bars show."""
    speed = jnp.hypot(state.vx, state.vy)
    return jnp.stack([speed, *state.omega, state.joint[0], state.w])


def extents(readings: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Window coordinates, f32[7] and f32[7], between which the bars reach.

    Rows, counted down, for the upright bars, columns for the others. pygame's polygons
    have whole corners and include their last pixel.

    Args:
      readings: f32[7].
    """
    bars = [(FOOT, -UNIT_Y * b.gain) for b in UPRIGHT]
    bars += [(b.place * UNIT_X, UNIT_X * b.gain) for b in SIDEWAYS]
    start, gain = np.array(bars, "f4").T
    end = jnp.trunc(start + gain * readings)
    low, high = jnp.minimum(start, end), jnp.maximum(start, end) + 1
    return low, jnp.where(jnp.abs(readings) > SMALLEST, high, low)


def upright_window(size: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that the upright bars can cover."""
    left, right = UPRIGHT[0].place * UNIT_X, (UPRIGHT[-1].place + 1) * UNIT_X + 1
    columns = camera.span(left, right, size, camera.WINDOW_W)
    return slice(camera.road_rows(size), size), slice(*columns)


def sideways_window(size: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that the sideways bars can cover."""
    rows = camera.span(TOP, BOTTOM + 1, size, camera.WINDOW_H)
    return slice(*rows), slice(
        *camera.span(_LEFT, camera.WINDOW_W, size, camera.WINDOW_W)
    )


def _covered(low: jax.Array, high: jax.Array, pixels: slice, scale: float) -> jax.Array:
    """f32[bars, pixels], the share of each pixel between window coordinates."""
    edge = np.arange(pixels.start, pixels.stop, dtype="f4")[None] * np.float32(scale)
    last = edge + np.float32(scale)
    inside = jnp.minimum(high[:, None], last) - jnp.maximum(low[:, None], edge)
    return jnp.maximum(inside, 0.0) * np.float32(1 / scale)


class Shares(NamedTuple):
    """How far the bars reach, as the share of each pixel along a line.

    Attributes:
      upright: f32[5, h], along the rows of `upright_window`.
      sideways: f32[2, w], along the columns of `sideways_window`.
    """

    upright: jax.Array
    sideways: jax.Array


def shares(state: State, size: int) -> Shares:
    """What the bars cover.

    Args:
      state: one world's state.
      size: pixels along a side of the picture.
    """
    low, high = extents(readings(state))
    n = len(UPRIGHT)
    return Shares(
        _covered(low[:n], high[:n], upright_window(size)[0], camera.WINDOW_H / size),
        _covered(low[n:], high[n:], sideways_window(size)[1], camera.WINDOW_W / size),
    )


def upright(covered: jax.Array, size: int) -> jax.Array:
    """The upright bars' window of the picture.

    Args:
      covered: f32[5, h], `Shares.upright`.
      size: pixels along a side of the picture.

    Returns:
      f32[h, 3 * w], the channels side by side.
    """
    across = camera.averaging(size, camera.WINDOW_W)[upright_window(size)[1]]
    image = jnp.zeros((covered.shape[1], 3 * len(across)), jnp.float32)
    for i, bar in enumerate(UPRIGHT):
        # A bar's last column is painted over by its right neighbour.
        neighbour = any(b.place == bar.place + 1 for b in UPRIGHT)
        x = bar.place * UNIT_X
        share = across[:, x : x + UNIT_X + (not neighbour)].sum(1)
        line = np.outer(share, camera.darkened(bar.colour)).reshape(1, -1)
        image += covered[i][:, None] * line
    return image


def sideways(covered: jax.Array, size: int) -> jax.Array:
    """The sideways bars' window of the picture.

    Args:
      covered: f32[2, w], `Shares.sideways`.
      size: pixels along a side of the picture.

    Returns:
      f32[h, 3 * w], the channels side by side.
    """
    down = camera.averaging(size, camera.WINDOW_H)[sideways_window(size)[0]]
    down = down[:, TOP : BOTTOM + 1].sum(1)[:, None]
    image = jnp.zeros((len(down), 3 * covered.shape[1]), jnp.float32)
    for i, bar in enumerate(SIDEWAYS):
        line = covered[i][:, None] * camera.darkened(bar.colour)[None]
        image += down * line.reshape(1, -1)
    return image
