"""The car: a hull that always looks the same, and four wheels that do not."""

import functools
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from envs.car_racing import camera
from envs.car_racing.state import State

UNIT = 0.02
"""World units per unit of the car's own drawings, below."""
HULL = (
    ((-60, 130), (60, 130), (60, 110), (-60, 110)),
    ((-15, 120), (15, 120), (20, 20), (-20, 20)),
    (
        *((25, 20), (50, -10), (50, -40), (20, -90)),
        *((-20, -90), (-50, -40), (-50, -10), (-25, 20)),
    ),
    ((-50, -120), (50, -120), (50, -90), (-50, -90)),
)
WHEELS = ((-55, 80), (55, 80), (-55, -82), (55, -82))
"""Middles of the wheels: front left, front right, rear left, rear right."""
WHEEL_R, WHEEL_W = 27, 14
"""Half the length and half the width of a wheel."""
PATCH = 1.2
"""Angle that the light patch on a tyre spans, radians."""
HULL_COLOUR = (204, 0, 0)
PATCH_COLOUR = (77, 77, 77)
"""Of the patch; the rest of a wheel is black."""
_REACH = (1.7, 2.7, 2.5)
"""World units that a car reaches to the sides, wheels turned, ahead and behind."""


class Shares(NamedTuple):
    """What the pixels in the car's window show, each f32[h * w].

    Attributes:
      ground: share of the ground that the car leaves visible.
      grey: light that the patches on the tyres add to all channels.
      red: light that the hull adds to the red one.
    """

    ground: jax.Array
    grey: jax.Array
    red: jax.Array


def patches(phase: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where along the wheels their light patches begin and end, in wheel radii.

    Args:
      phase: f32[4], the wheels' spin, radians.

    Returns:
      Two f32[4] in [-1, 1]; equal where the patch is on the far side.
    """
    end = phase + PATCH
    behind, end_behind = jnp.sin(phase) > 0, jnp.sin(end) > 0
    a, b = jnp.cos(phase), jnp.cos(end)
    a, b = jnp.where(behind, jnp.sign(a), a), jnp.where(end_behind, jnp.sign(b), b)
    low = jnp.minimum(a, b)
    return low, jnp.where(behind & end_behind, low, jnp.maximum(a, b))


def window(size: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that the car can cover."""
    side, ahead, behind = (camera.ZOOM * reach for reach in _REACH)
    middle = camera.WINDOW_H - camera.CAR_Y
    rows = camera.span(middle - ahead, middle + behind, size, camera.WINDOW_H)
    columns = camera.span(
        camera.CAR_X - side, camera.CAR_X + side, size, camera.WINDOW_W
    )
    return slice(*rows), slice(*columns)


def _extent(weights: np.ndarray) -> slice:
    """The columns from the first to the last that are not all 0."""
    used = np.flatnonzero(weights.any(axis=0))
    return slice(used[0], used[-1] + 1)


@functools.cache
def hull_table(size: int) -> np.ndarray:
    """f32[ZOOM_STEPS, h * w], the share of each pixel that the hull covers."""
    rows, columns = window(size)
    down = camera.averaging(size, camera.WINDOW_H)[rows]
    across = camera.averaging(size, camera.WINDOW_W)[columns]
    seen_y, seen_x = _extent(down), _extent(across)  # the rest adds nothing
    down, across = down[:, seen_y], across[:, seen_x]
    table = []
    for zoom in camera.ZOOMS:
        drawing = np.zeros((camera.WINDOW_H, camera.WINDOW_W), "u1")
        for polygon in HULL:
            corners = np.array(polygon) * (UNIT * zoom) + (camera.CAR_X, camera.CAR_Y)
            cv2.fillPoly(drawing, [corners.astype("i4")], 1)
        seen = drawing[::-1][seen_y, seen_x]
        table.append(down @ seen.astype("f4") @ across.T)
    return np.stack(table).reshape(len(table), -1)


def _inside(centre: jax.Array, half: jax.Array, low, high) -> jax.Array:
    """The length of centre +- half that lies between low and high."""
    length = jnp.minimum(centre + half, high) - jnp.maximum(centre - half, low)
    return jnp.maximum(length, 0.0)


def shares(state: State, hull: jax.Array, size: int) -> Shares:
    """The car's window of the picture.

    A pixel is taken for a box that turns with the wheel, which is exact for wheels
    that look ahead.

    Args:
      state: one world's state.
      hull: f32[h * w], the row of `hull_table`.
      size: pixels along a side of the picture.
    """
    rows, columns = window(size)
    zoom = camera.zoom_at(state.step)
    up = camera.WINDOW_H - 1 - camera.CAR_Y - camera.centres(size, camera.WINDOW_H)
    right = camera.centres(size, camera.WINDOW_W) - camera.CAR_X
    y, x = np.meshgrid(up[rows], right[columns], indexing="ij")
    # pygame cuts a polygon's corners to whole pixels and includes the last ones: on
    # average half a pixel more on all sides, all half a pixel down.
    grown = 0.5 / zoom
    x, y = (jnp.asarray(v.ravel(), jnp.float32) / zoom + grown for v in (x, y))
    half_x = camera.WINDOW_W / size / 2 / zoom
    half_y = camera.WINDOW_H / size / 2 / zoom
    cos, sin = jnp.cos(state.joint), jnp.sin(state.joint)
    low, high = patches(state.phase)
    shown = jnp.where(low < high, 1.0, 0.0)
    width, radius = WHEEL_W * UNIT + grown, WHEEL_R * UNIT + grown
    low, high = WHEEL_R * UNIT * low - grown, WHEEL_R * UNIT * high + grown
    covered = patched = jnp.zeros_like(x)
    for i, (wheel_x, wheel_y) in enumerate(WHEELS):
        dx, dy = x - wheel_x * UNIT, y - wheel_y * UNIT
        across, along = dx * cos[i] + dy * sin[i], dy * cos[i] - dx * sin[i]
        side = _inside(across, half_x, -width, width)
        covered += side * _inside(along, half_y, -radius, radius)
        patched += side * _inside(along, half_y, low[i], high[i]) * shown[i]
    beside = (1.0 - hull) / (4.0 * half_x * half_y)
    bright, red = (camera.darkened(c)[0] for c in (PATCH_COLOUR, HULL_COLOUR))
    return Shares(
        ground=1.0 - hull - covered * beside,
        grey=patched * beside * bright,
        red=hull * red,
    )


def blend(below: jax.Array, car: Shares) -> jax.Array:
    """The car on the ground that it stands on.

    Args:
      below: f32[h * w, 3], the ground in the car's window.
      car: what covers it.

    Returns:
      f32[h * w, 3].
    """
    light = car.grey[:, None] + car.red[:, None] * np.array([[1, 0, 0]], "f4")
    return below * car.ground[:, None] + light
