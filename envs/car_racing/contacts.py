"""Which tiles of the road the wheels touch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from envs.car_racing.car import WHEEL_HALF_WIDTH, WHEEL_RADIUS
from envs.car_racing.track import CELL, GRID, HALF_WIDTH, MAX_TILES, RUN, Roads

SKIN = 0.02
"""Two polygons touch within this distance: Box2D gives each a skin of 0.01."""
WORDS = MAX_TILES // 32
"""Words of the bit set of visited tiles."""
_OUTWARD = np.array([[[1, -1]]], np.float32)
"""Left and right edge of a tile, followed forwards, have it on opposite sides."""


class Contact(NamedTuple):
    """The tiles that each wheel touches.

    Attributes:
      tile: i32[RUN, 4], candidate tiles under each wheel.
      touch: bool[RUN, 4], whether the wheel touches them.
    """

    tile: jax.Array
    touch: jax.Array


def _candidates(
    roads: Roads, track: jax.Array, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """First candidate tile, i32[4], and the lines around all, f32[RUN + 1, 4, 4]."""
    column = jnp.clip((x * (1 / CELL) + GRID / 2).astype(jnp.int32), 0, GRID - 1)
    row = jnp.clip((y * (1 / CELL) + GRID / 2).astype(jnp.int32), 0, GRID - 1)
    cell = row * GRID + column
    first = roads.ids.at[track, cell].get(mode="promise_in_bounds").astype(jnp.int32)
    rows = first[None] + np.arange(RUN + 1, dtype=np.int32)[:, None]
    return first, roads.lines.at[track, rows].get(mode="promise_in_bounds")


def _separate(px: jax.Array, py: jax.Array) -> jax.Array:
    """bool[RUN, 4]: some axis parts the wheel at the origin from the tile.

    Args:
      px: f32[RUN + 1, 4, 2], left and right ends of the lines, to the wheel's right.
      py: the same, ahead of the wheel.
    """
    # Across the road: all lines are as long as it is wide.
    nx, ny = py[..., 0] - py[..., 1], px[..., 1] - px[..., 0]
    behind = px[..., 0] * nx + py[..., 0] * ny
    reach = WHEEL_HALF_WIDTH * jnp.abs(nx) + WHEEL_RADIUS * jnp.abs(ny)
    reach = reach + 2 * HALF_WIDTH * SKIN
    ends = (-behind > reach)[1:] | (behind > reach)[:-1]

    # Along the road.
    nx, ny = py[:-1] - py[1:], px[1:] - px[:-1]
    outside = -_OUTWARD * (px[:-1] * nx + py[:-1] * ny)
    gap = outside - WHEEL_HALF_WIDTH * jnp.abs(nx) - WHEEL_RADIUS * jnp.abs(ny)
    sides = (gap > 0) & (gap * gap > SKIN**2 * (nx * nx + ny * ny))

    def apart(p: jax.Array, half: float) -> jax.Array:
        low, high = p.min(axis=-1), p.max(axis=-1)
        low, high = jnp.minimum(low[:-1], low[1:]), jnp.maximum(high[:-1], high[1:])
        return (low > half + SKIN) | (high < -half - SKIN)

    box = apart(px, WHEEL_HALF_WIDTH) | apart(py, WHEEL_RADIUS)
    return ends | sides[..., 0] | sides[..., 1] | box


def contacts(
    roads: Roads, track: jax.Array, x: jax.Array, y: jax.Array, angle: jax.Array
) -> Contact:
    """Exact contacts of four wheels with the road: separating axes of box and quad.

    Where a lap's ends overlap, on about one track in 1,000, the lines of tile 0 cross;
    Box2D takes its convex hull, this only the part that lies between the lines.

    Args:
      roads: the pool.
      track: i32[], index in it.
      x: f32[4], wheel centres in world units.
      y: f32[4].
      angle: f32[4], their headings in radians.
    """
    first, lines = _candidates(roads, track, x, y)
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    dx = lines[..., 0::2] - x[None, :, None]
    dy = lines[..., 1::2] - y[None, :, None]
    touch = ~_separate(dx * cos + dy * sin, dy * cos - dx * sin)
    count = roads.tracks.count.at[track].get(mode="promise_in_bounds")
    tile = first[None] + np.arange(RUN, dtype=np.int32)[:, None]
    return Contact(tile=jnp.where(tile >= count, tile - count, tile), touch=touch)


def visit(visited: jax.Array, contact: Contact) -> tuple[jax.Array, jax.Array]:
    """Adds the touched tiles to those visited.

    Args:
      visited: u32[WORDS], bit set.
      contact: of four wheels.

    Returns:
      The bit set and its size, i32[].
    """
    word, bit = contact.tile // 32, contact.tile % 32
    flag = contact.touch.astype(jnp.uint32) << bit.astype(jnp.uint32)
    slot = np.arange(WORDS, dtype=np.int32)
    for i in range(RUN):
        for wheel in range(4):
            here = slot == word[i, wheel]
            visited = visited | jnp.where(here, flag[i, wheel], np.uint32(0))
    return visited, lax.population_count(visited).sum(dtype=jnp.uint32).astype("int32")
