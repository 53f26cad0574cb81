"""The tint of the road: tiles that no wheel has touched are a little lighter.

A texel of road names its tile modulo a period only. Which tile that is follows from the
tile nearest to the car: the road in view is shorter than a period. Where a far part of
the lap comes into view, it may take a near tile's tint.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from envs.car_racing import palette
from envs.car_racing.track import MAX_TILES, PLAYFIELD, Track

CELLS = 32
"""Cells along a side of the field, for which the nearest tile is tabled."""


def _period(count: int) -> int:
    """The period for a track of `count` tiles.

    Across the start of the lap the codes jump, and the same code comes again after
    fewer tiles: the period is the one with which that takes longest.
    """

    def apart(period: int) -> int:
        return min(period, count % period or period)

    return max(range(palette.ROAD_CODES // 2, palette.ROAD_CODES + 1), key=apart)


PERIODS = np.array([_period(count) for count in range(MAX_TILES + 1)], "i4")
"""i32[MAX_TILES + 1], tiles after which codes repeat, by the number of tiles."""


def nearest_tiles(track: Track) -> np.ndarray:
    """u16[CELLS**2], the tile nearest to the middle of each cell, rows by rising y."""
    middle = ((np.arange(CELLS) + 0.5) / CELLS * 2 - 1).astype("f4") * PLAYFIELD
    x, y = track.tiles[: track.count].mean(1).T
    dx, dy = (middle[:, None] - x) ** 2, (middle[:, None] - y) ** 2
    return (dy[:, None] + dx[None]).argmin(-1).astype("u2").ravel()


def cell_of(x: jax.Array, y: jax.Array) -> jax.Array:
    """i32[], the cell that a point lies in, or the nearest one."""
    row, column = (
        jnp.clip((v + PLAYFIELD) * (CELLS / (2 * PLAYFIELD)), 0.0, CELLS - 1.0)
        for v in (y, x)
    )
    return row.astype(jnp.int32) * CELLS + column.astype(jnp.int32)


def tiles_of_codes(near: jax.Array, count: jax.Array) -> jax.Array:
    """The tile that each road code stands for around a tile.

    Args:
      near: i32[], a tile.
      count: i32[], tiles of the track.

    Returns:
      i32[ROAD_CODES], tiles at most half a period away along the lap; those of codes
      that the track does not use mean nothing.
    """
    period = jnp.asarray(PERIODS)[count]
    codes = jnp.arange(palette.ROAD_CODES)
    first = near - period // 2
    # Counted on across the start of the lap, tile i of the lap before is i - count
    # and tile i of the next lap is i + count.
    here, before, after = (
        first + (codes + shift - first) % period for shift in (0, -count, count)
    )
    other = jnp.where(before < 0, before + count, after - count)
    tile = jnp.where((here >= 0) & (here < count), here, other)
    return jnp.clip(tile, 0, count - 1)


def colours(
    table: ArrayLike, near: jax.Array, count: jax.Array, visited: jax.Array
) -> jax.Array:
    """The colour table as one car sees it.

    Args:
      table: u8[256, 3], with all tiles visited.
      near: i32[], the tile nearest to the car.
      count: i32[], tiles of the track.
      visited: u32[n], `State.visited`.

    Returns:
      u8[256, 3].
    """
    tile = tiles_of_codes(near, count)
    bits = visited.at[tile >> 5].get(mode="promise_in_bounds")
    known = (bits >> (tile & 31).astype(jnp.uint32) & 1) == 1
    light = jnp.asarray(palette.TINT, jnp.uint8)[tile % len(palette.TINT)]
    road = slice(palette.ROAD_CODE, palette.ROAD_CODE + palette.ROAD_CODES)
    return jnp.asarray(table).at[road].add(jnp.where(known, 0, light)[:, None])
