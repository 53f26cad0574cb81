"""What the car's driver sees: one world's picture, as gathers from the colour maps."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from envs.car_racing import (
    camera,
    colour_map,
    instruments,
    palette,
    score,
    sprite,
    tint,
)
from envs.car_racing.colour_map import BLOCK, Ground
from envs.car_racing.state import State
from envs.car_racing.track import PLAYFIELD

_LOCAL_BITS = 10
"""Bits of a texel's place within its block."""
assert BLOCK**2 == 1 << _LOCAL_BITS


class Canvas(NamedTuple):
    """What is drawn from: constant arrays, passed in, never captured.

    Attributes:
      ground: the tracks' pictures.
      colours: u8[256, 3], the colour of each code, all tiles visited.
      hull: f32[steps, h * w], `sprite.hull_table`.
      scores: u8[n, h, w], `score.table`.
      gate: bool[], always true, see `_fenced`.
    """

    ground: Ground
    colours: ArrayLike
    hull: ArrayLike
    scores: ArrayLike
    gate: ArrayLike


def canvas(ground: Ground, size: int = 96) -> Canvas:
    """All that pictures of one size are drawn from, in numpy.

    Args:
      ground: the tracks' pictures.
      size: pixels along a side of the pictures that will be drawn.
    """
    return Canvas(
        ground=ground,
        colours=palette.colours(),
        hull=sprite.hull_table(size),
        scores=score.table(size),
        gate=np.array(True),
    )


def _fenced(gate: ArrayLike, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, which XLA may not fuse with what comes before or after.

    XLA's CPU backend otherwise computes a gather's indices anew, one by one, for every
    byte that it reads. A condition on a value that it cannot know stops it, where an
    optimisation barrier does not.
    """
    result = jax.eval_shape(function, *args)

    def never(*_):
        return jax.tree.map(lambda r: jnp.zeros(r.shape, r.dtype), result)

    return lax.cond(gate, function, never, *args)


def _take(table: ArrayLike, at: jax.Array) -> jax.Array:
    # Unsigned, because JAX would wrap negative indices at a third of a gather's cost.
    return jnp.asarray(table).at[at].get(mode="promise_in_bounds")


def _places(state: State, size: int) -> jax.Array:
    """u32[rows * size], where each pixel above the strip looks.

    The entry in its track's index in the high bits, the texel in the block in the low.
    """
    zoom = camera.zoom_at(state.step)
    # The level whose texels, averaged two by two, are nearest to a pixel's size.
    pixel = math.sqrt(camera.WINDOW_W * camera.WINDOW_H) / size / (2 * colour_map.TEXEL)
    level = jnp.round(jnp.log2(pixel / zoom)).astype(jnp.int32)
    level = jnp.clip(level, 0, colour_map.LEVELS - 1)
    side = jnp.asarray(colour_map.SIDES)[level]
    texel = colour_map.TEXEL * jnp.exp2(level.astype(jnp.float32))
    right = camera.centres(size, camera.WINDOW_W) - np.float32(camera.CAR_X)
    up = (
        np.float32(camera.WINDOW_H - 1 - camera.CAR_Y)
        - camera.centres(size, camera.WINDOW_H)[: camera.road_rows(size)]
    )
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
    mask = np.uint32((1 << _LOCAL_BITS) - 1)

    def texels(place, track):
        entry = (place >> _LOCAL_BITS) + track * np.uint32(colour_map.ENTRIES)
        return (_take(canvas.ground.index, entry) << _LOCAL_BITS) + (place & mask)

    def codes(texel):
        road = _take(canvas.ground.blocks, texel)
        black = jnp.zeros((size * size,), jnp.uint8)
        return lax.dynamic_update_slice(black, road, (0,))

    place = _fenced(canvas.gate, lambda s: _places(s, size), state)
    track = state.track.astype(jnp.uint32)
    return _fenced(canvas.gate, codes, _fenced(canvas.gate, texels, place, track))


class _Details(NamedTuple):
    """The small things of one frame, made apart so that they are made once."""

    colours: jax.Array
    car: sprite.Shares
    bars: instruments.Shares


def _details(canvas: Canvas, state: State, size: int) -> _Details:
    cell = state.track * tint.CELLS**2 + tint.cell_of(state.x, state.y)
    near = _take(canvas.ground.nearest, cell.astype(jnp.uint32)).astype(jnp.int32)
    count = _take(canvas.ground.counts, state.track)
    hull = _take(canvas.hull, jnp.minimum(state.step, len(camera.ZOOMS) - 1))
    return _Details(
        colours=tint.colours(canvas.colours, near, count, state.visited),
        car=sprite.shares(state, hull, size),
        bars=instruments.shares(state, size),
    )


def _luma(rgb: jax.Array) -> jax.Array:
    """u8[..., 1] from u8[..., 3], as OpenCV's COLOR_RGB2GRAY."""
    r, g, b = (rgb[..., i : i + 1].astype(jnp.int32) for i in range(3))
    return (r * 4899 + g * 9617 + b * 1868 + 8192 >> 14).astype(jnp.uint8)


_SHADES = {"rgb": lambda rgb: rgb, "gray": _luma}


def observe(
    canvas: Canvas, state: State, size: int = 96, color: str = "rgb"
) -> jax.Array:
    """One world's picture as its driver sees it.

    Args:
      canvas: the pool's pictures, made for this size.
      state: one world's state.
      size: pixels along a side.
      color: "rgb" or "gray".

    Returns:
      u8[size, size, 3], or u8[size, size, 1] for gray.

    Raises:
      ValueError: `color` is neither, or the canvas was made for another size.
    """
    if color not in _SHADES:
        raise ValueError(f"color is {color!r}; it must be one of {list(_SHADES)}")
    if jnp.shape(canvas.scores) != score.shape(size):
        raise ValueError(
            f"size is {size}, but this canvas was made for another; make it with "
            f"draw.canvas(ground, {size})"
        )
    shade = _SHADES[color]
    windows = (
        sprite.window(size),
        instruments.upright_window(size),
        instruments.sideways_window(size),
        score.window(size),
    )

    def compose(codes, text, details):
        colours, car, bars = details
        below = _take(colours, codes.reshape(size, size)[windows[0]].reshape(-1))
        parts = (
            sprite.blend(below.astype(jnp.float32), car),
            instruments.upright(bars.upright, size),
            instruments.sideways(bars.sideways, size),
            jnp.repeat(text[:, :, None], 3, axis=2),
        )
        image = _take(shade(colours), codes).reshape(size, size, -1)
        for part, (rows, columns) in zip(parts, windows, strict=True):
            part = jnp.round(part).astype(jnp.uint8)
            part = part.reshape(rows.stop - rows.start, columns.stop - columns.start, 3)
            at = (rows.start, columns.start, 0)
            image = lax.dynamic_update_slice(image, shade(part), at)
        return image

    codes = _ground(canvas, state, size)
    shown = jnp.clip(jnp.round(state.score), score.LOWEST, score.HIGHEST)
    text = _take(canvas.scores, (shown - score.LOWEST).astype(jnp.uint32))
    details = _fenced(canvas.gate, lambda s: _details(canvas, s, size), state)
    return _fenced(canvas.gate, compose, codes, text, details)
