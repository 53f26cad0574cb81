"""The red square that AttentionAgent's generalisation tests put beside the car.

Source: arXiv 2003.08165, section 4.2 ("background blob"), by its authors' release.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.car_racing import camera

SIDE = 8.0
"""World units along its sides."""
RIGHT, AHEAD = 20.0, 10.0
"""Its middle, in world units from the hull's origin, in the car's frame."""
COLOUR = (204, 0, 0)


def corners(zoom: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Its extent across and up in the window.

    Args:
      zoom: window pixels per world unit, a number or f32[].
    """
    half = SIDE / 2
    across = (
        camera.CAR_X + (RIGHT - half) * zoom,
        camera.CAR_X + (RIGHT + half) * zoom,
    )
    up = (camera.CAR_Y + (AHEAD - half) * zoom, camera.CAR_Y + (AHEAD + half) * zoom)
    return across, up


def window(size: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that it can cover while the camera zooms in."""
    (left, right), (low, high) = (
        (min(first), max(last))
        for first, last in zip(
            corners(camera.FIRST_ZOOM), corners(camera.ZOOM), strict=True
        )
    )
    top, bottom = camera.WINDOW_H - high, camera.WINDOW_H - low
    return (
        slice(*camera.span(top, bottom, size, camera.WINDOW_H)),
        slice(*camera.span(left, right, size, camera.WINDOW_W)),
    )


def shares(step: jax.Array, size: int) -> jax.Array:
    """f32[h, w], how much of each pixel of the window it covers.

    Args:
      step: i32[], `State.step`.
      size: pixels along a side of the picture.
    """
    (left, right), (low, high) = corners(camera.zoom_at(step))
    top, bottom = camera.WINDOW_H - high, camera.WINDOW_H - low

    def along(pixels: slice, first, last, length: int) -> jax.Array:
        scale = np.float32(length / size)
        edge = np.arange(pixels.start, pixels.stop, dtype="f4") * scale
        inside = jnp.minimum(last, edge + scale) - jnp.maximum(first, edge)
        return jnp.maximum(inside, 0.0) / scale

    rows, columns = window(size)
    down = along(rows, top, bottom, camera.WINDOW_H)
    return down[:, None] * along(columns, left, right, camera.WINDOW_W)[None]


def cover(image: jax.Array, share: jax.Array, colour: ArrayLike) -> jax.Array:
    """The window of a picture with the square in it.

    Args:
      image: u8[h, w, C].
      share: f32[h, w], `shares`.
      colour: u8[C], the square's.

    Returns:
      u8[h, w, C].
    """
    below = image.astype(jnp.float32)
    target = jnp.broadcast_to(jnp.asarray(colour, jnp.float32), below.shape)
    mixed = below + share[..., None] * (target - below)
    return jnp.round(mixed).astype(jnp.uint8)
