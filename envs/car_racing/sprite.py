"""The car: a hull that always looks the same, and four wheels that do not."""

import functools

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
_HALF_W = 1.7
"""World units that a car reaches to either side, steering wheels included."""


def patch_extent(phase: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where along the wheel its light patch begins and ends, in wheel radii.

    Args:
      phase: f32[...], the wheel's spin, radians.

    Returns:
      Two f32[...] in [-1, 1]; equal where the patch is on the far side.
    """
    end = phase + PATCH
    sin1, sin2 = jnp.sin(phase), jnp.sin(end)
    a = jnp.where(sin1 > 0, jnp.sign(jnp.cos(phase)), jnp.cos(phase))
    b = jnp.where(sin2 > 0, jnp.sign(jnp.cos(end)), jnp.cos(end))
    hidden = (sin1 > 0) & (sin2 > 0)
    return jnp.minimum(a, b), jnp.where(hidden, jnp.minimum(a, b), jnp.maximum(a, b))


def window_of(size: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that the car can cover."""
    reach = _HALF_W * camera.ZOOM
    top, bottom = (camera.WINDOW_H - camera.CAR_Y - y * camera.ZOOM for y in (2.7, -2.5))
    return (
        slice(*camera.span(top, bottom, size, camera.WINDOW_H)),
        slice(
            *camera.span(
                camera.CAR_X - reach, camera.CAR_X + reach, size, camera.WINDOW_W
            )
        ),
    )


@functools.cache
def hull_table(size: int) -> np.ndarray:
    """f32[ZOOM_STEPS, h, w], the share of each pixel that the hull covers."""
    rows, columns = window_of(size)
    down = camera.averaging(size, camera.WINDOW_H)[rows]
    across = camera.averaging(size, camera.WINDOW_W)[columns]
    table = []
    for step in range(camera.ZOOM_STEPS):
        zoom = float(camera.FIRST_ZOOM + (camera.ZOOM - camera.FIRST_ZOOM) * (step + 1) / camera.FPS)
        window = np.zeros((camera.WINDOW_H, camera.WINDOW_W), "u1")
        for polygon in HULL:
            corners = np.array(polygon) * (UNIT * zoom) + (camera.CAR_X, camera.CAR_Y)
            cv2.fillPoly(window, [corners.astype("i4")], 1)
        table.append(down @ window[::-1].astype("f4") @ across.T)
    return np.stack(table)


def _overlap(centre: jax.Array, width: jax.Array, low, high) -> jax.Array:
    """The share of intervals [centre +- width / 2] between low and high."""
    inside = jnp.minimum(centre + width / 2, high) - jnp.maximum(centre - width / 2, low)
    return jnp.clip(inside / width, 0.0, 1.0)


def wheels(state: State, size: int) -> tuple[jax.Array, jax.Array]:
    """The share of each pixel in the car's window that wheels and patches cover.

    A pixel is taken for a box that turns with the wheel, which is exact for wheels
    that look ahead.

    Args:
      state: one world's state.
      size: pixels along a side of the picture.

    Returns:
      Two f32[h, w].
    """
    rows, columns = window_of(size)
    zoom = camera.zoom_at(state.step)
    x = camera.centres(size, camera.WINDOW_W)[columns] + np.float32(0.5 - camera.CAR_X)
    y = (
        np.float32(camera.WINDOW_H - 0.5 - camera.CAR_Y)
        - camera.centres(size, camera.WINDOW_H)[rows]
    )
    width, height = camera.WINDOW_W / size / zoom, camera.WINDOW_H / size / zoom
    low, high = patch_extent(state.phase)
    covered = patched = jnp.zeros((len(y), len(x)), jnp.float32)
    for i, (wheel_x, wheel_y) in enumerate(WHEELS):
        cos, sin = jnp.cos(state.joint[i]), jnp.sin(state.joint[i])
        dx, dy = x / zoom - wheel_x * UNIT, y / zoom - wheel_y * UNIT
        across = (dx * cos)[None, :] + (dy * sin)[:, None]
        along = (dy * cos)[:, None] - (dx * sin)[None, :]
        half_w, half_l = WHEEL_W * UNIT, WHEEL_R * UNIT
        side = _overlap(across, width, -half_w, half_w)
        covered += side * _overlap(along, height, -half_l, half_l)
        patched += side * _overlap(along, height, half_l * low[i], half_l * high[i])
    return covered, patched


def blend(ground: jax.Array, state: State, hull: jax.Array, size: int) -> jax.Array:
    """The car on the ground that it stands on.

    Args:
      ground: f32[h, w, 3], the picture where the car will be.
      state: one world's state.
      hull: f32[h, w], the row of `hull_table`.
      size: pixels along a side of the picture.
    """
    covered, patched = wheels(state, size)
    wheel = patched[:, :, None] * (np.array(PATCH_COLOUR, "f4") - 2)
    below = ground * (1.0 - covered)[:, :, None] + wheel
    red = np.maximum(np.array(HULL_COLOUR, "f4") - 2, 0)
    return below * (1.0 - hull)[:, :, None] + hull[:, :, None] * red
