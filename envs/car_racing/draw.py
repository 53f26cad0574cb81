"""What the car's driver sees: one world's picture, as gathers from the colour maps."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from envs.car_racing import camera, colour_map, instruments, palette, score, sprite
from envs.car_racing.colour_map import BLOCK, ColourMap
from envs.car_racing.state import State
from envs.car_racing.track import PLAYFIELD

_LOCAL_BITS = 10
"""Bits of a texel's place within its block."""
assert BLOCK**2 == 1 << _LOCAL_BITS


class Canvas(NamedTuple):
    """What is drawn from: constant arrays, passed in, never captured.

    Attributes:
      blocks: u8[n * BLOCK**2], colour codes of the shared blocks and of all tracks'.
      index: u32[tracks * colour_map.ENTRIES], the block at each place of each level of
        each track.
      colours: u8[256, 3], the colour of each code.
      hull: f32[camera.ZOOM_STEPS, h, w], share of the pixels that the hull covers.
      scores: u8[n, h, w], the written scores.
      gate: bool[], always true, see `_fenced`.
    """

    blocks: np.ndarray | jax.Array
    index: np.ndarray | jax.Array
    colours: np.ndarray | jax.Array
    hull: np.ndarray | jax.Array
    scores: np.ndarray | jax.Array
    gate: np.ndarray | jax.Array


def stack(maps: Sequence[ColourMap], size: int = 96) -> Canvas:
    """The canvas of a pool of tracks, in numpy.

    Args:
      maps: the tracks' pictures.
      size: pixels along a side of the pictures that will be drawn.
    """
    shared = colour_map.shared_blocks()
    first = np.cumsum([0, *(len(m.blocks) for m in maps[:-1])])
    index = np.stack([m.index for m in maps])
    index += np.where(index < len(shared), 0, first[:, None]).astype("i4")
    return Canvas(
        blocks=np.concatenate([shared, *(m.blocks for m in maps)]).ravel(),
        index=index.ravel().astype("u4"),
        colours=palette.colours(),
        hull=sprite.hull_table(size),
        scores=score.table(size)[0],
        gate=np.array(True),
    )


def _fenced(gate: jax.Array, function: Callable[..., jax.Array], *args: Any):
    """`function(*args)`, which XLA may not fuse with what comes before or after.

    XLA's CPU backend otherwise computes a gather's indices anew, one by one, for every
    byte that it reads. A condition on a value that it cannot know stops it, where an
    optimisation barrier does not.
    """
    result = jax.eval_shape(function, *args)
    return lax.cond(
        gate, function, lambda *_: jnp.zeros(result.shape, result.dtype), *args
    )


def _take(table: jax.Array, at: jax.Array) -> jax.Array:
    # Unsigned, because JAX would wrap negative indices at a third of a gather's cost.
    return table.at[at].get(mode="promise_in_bounds")


def _places(state: State, size: int, rows: int) -> jax.Array:
    """u32[rows * size]: entry in the track's index << 10 | texel within the block."""
    zoom = camera.zoom_at(state.step)
    # The level whose texels, averaged two by two, are nearest to a pixel's size.
    pixel = math.sqrt(camera.WINDOW_W * camera.WINDOW_H) / size / (2 * colour_map.TEXEL)
    level = jnp.round(jnp.log2(pixel / zoom)).astype(jnp.int32)
    level = jnp.clip(level, 0, colour_map.LEVELS - 1)
    side = jnp.asarray(colour_map.SIDES)[level]
    texel = colour_map.TEXEL * jnp.exp2(level.astype(jnp.float32))
    right = camera.centres(size, camera.WINDOW_W) - np.float32(camera.CAR_X)
    up = np.float32(camera.WINDOW_H - 1 - camera.CAR_Y) - camera.centres(
        size, camera.WINDOW_H
    )[:rows]
    cos = jnp.cos(state.angle) / (zoom * texel)
    sin = jnp.sin(state.angle) / (zoom * texel)
    x = (state.x + PLAYFIELD) / texel + BLOCK
    y = (state.y + PLAYFIELD) / texel + BLOCK
    last = (side * BLOCK - 1).astype(jnp.float32)
    u = (x + cos * right)[None, :] - (sin * up)[:, None]
    v = (y + sin * right)[None, :] + (cos * up)[:, None]
    u = jnp.clip(u, 0.0, last).astype(jnp.int32)
    v = jnp.clip(v, 0.0, last).astype(jnp.int32)
    entry = jnp.asarray(colour_map.OFFSETS)[level] + (v >> 5) * side + (u >> 5)
    place = entry << _LOCAL_BITS | (v & 31) << 5 | u & 31
    return place.astype(jnp.uint32).reshape(-1)


def _ground(canvas: Canvas, state: State, size: int) -> jax.Array:
    """u8[size * size], the colour code under every pixel, black in the strip."""
    rows = size - size // 8
    mask = np.uint32((1 << _LOCAL_BITS) - 1)

    def texels(place, track):
        entry = (place >> _LOCAL_BITS) + track * np.uint32(colour_map.ENTRIES)
        return (_take(canvas.index, entry) << _LOCAL_BITS) + (place & mask)

    def codes(texel):
        road = _take(canvas.blocks, texel)
        black = jnp.zeros((size * size,), jnp.uint8)
        return lax.dynamic_update_slice(black, road, (0,))

    place = _fenced(canvas.gate, lambda s: _places(s, size, rows), state)
    track = state.track.astype(jnp.uint32)
    return _fenced(canvas.gate, codes, _fenced(canvas.gate, texels, place, track))


def observe(
    canvas: Canvas, state: State, size: int = 96, color: str = "rgb"
) -> jax.Array:
    """One world's picture as its driver sees it.

    Args:
      canvas: the pool's pictures.
      state: one world's state.
      size: pixels along a side.
      color: "rgb" or "gray".

    Returns:
      u8[size, size, 3], or u8[size, size, 1] for gray.
    """
    codes = _ground(canvas, state, size)
    image = _take(canvas.colours, codes).reshape(size, 3 * size)
    rows, columns = sprite.window_of(size)
    below = _take(canvas.colours, codes.reshape(size, size)[rows, columns])
    hull = canvas.hull[jnp.minimum(state.step, camera.ZOOM_STEPS - 1)]
    car = sprite.blend(below.astype(jnp.float32), state, hull, size)
    parts = [(car.reshape(car.shape[0], -1), rows.start, columns.start)]
    upright, sideways = instruments.readings(state)
    parts.append(instruments.upright(upright, size))
    parts.append(instruments.sideways(sideways, size))
    shown = jnp.clip(jnp.round(state.score), score.LOWEST, score.HIGHEST)
    text = canvas.scores[shown.astype(jnp.int32) - score.LOWEST]
    _, row, column = score.table(size)
    parts.append((jnp.repeat(text, 3, axis=1), row, column))
    for part, row, column in parts:
        part = part if part.dtype == jnp.uint8 else jnp.round(part).astype(jnp.uint8)
        image = lax.dynamic_update_slice(image, part, (row, 3 * column))
    return image.reshape(size, size, 3)
