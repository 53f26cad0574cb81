"""What the car's driver sees: one world's picture, as gathers from the colour maps."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from envs.car_racing import (
    blob,
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
from envs.fence import fenced, gate

_SIDE = 5
"""Bits of a texel's row or column within its block."""
_LOCAL = 2 * _SIDE
"""Bits of its place."""
assert BLOCK == 1 << _SIDE
_FRACTION = 16
"""Fractional bits of fixed-point texels."""
_FARTHEST = 8000.0
"""Texels to which either part of a pixel's place is cut; the map has 2,624 a side."""


class Canvas(NamedTuple):
    """What is drawn from: constant arrays, passed in, never captured.

    Attributes:
      ground: the tracks' pictures.
      hull: f32[steps, h * w], `sprite.hull_table`.
      scores: u8[n, h, w], `score.table`.
      gate: bool[], always true, see `fence`.
    """

    ground: Ground
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
        hull=sprite.hull_table(size),
        scores=score.table(size),
        gate=gate(),
    )


def _take(table: ArrayLike, at: jax.Array) -> jax.Array:
    # Unsigned, because JAX would wrap negative indices at a third of a gather's cost.
    return jnp.asarray(table).at[at].get(mode="promise_in_bounds")


class _Axes(NamedTuple):
    """Where the pixels look, as fixed-point texels of one level of the colour map.

    Pixel (row, column) looks at u = u_row[row] + u_column[column], and so for v.

    Attributes:
      u_row, v_row: i32[rows], rows above the strip.
      u_column, v_column: i32[size].
      side: i32[], blocks along a side of the level.
      first: i32[], where the level begins in a track's index.
    """

    u_row: jax.Array
    v_row: jax.Array
    u_column: jax.Array
    v_column: jax.Array
    side: jax.Array
    first: jax.Array


def _axes(state: State, size: int) -> _Axes:
    zoom = camera.zoom_at(state.step)
    # The coarsest level whose texels, averaged two by two, are no larger than a pixel:
    # nearer to Gymnasium's frames than the level nearest in size.
    pixel = math.sqrt(camera.WINDOW_W * camera.WINDOW_H) / size / (2 * colour_map.TEXEL)
    level = jnp.floor(jnp.log2(pixel / zoom)).astype(jnp.int32)
    level = jnp.clip(level, 0, colour_map.LEVELS - 1)
    texel = colour_map.TEXEL * jnp.exp2(level.astype(jnp.float32))
    right = camera.centres(size, camera.WINDOW_W) - np.float32(camera.CAR_X)
    down = camera.centres(size, camera.WINDOW_H)[: camera.road_rows(size)]
    up = np.float32(camera.WINDOW_H - 1 - camera.CAR_Y) - down
    cos = jnp.cos(state.angle) / (zoom * texel)
    sin = jnp.sin(state.angle) / (zoom * texel)
    x = (state.x + PLAYFIELD) / texel + BLOCK
    y = (state.y + PLAYFIELD) / texel + BLOCK

    def fixed(texels: jax.Array) -> jax.Array:
        inside = jnp.clip(texels, -_FARTHEST, _FARTHEST)
        return (inside * (1 << _FRACTION)).astype(jnp.int32)

    return _Axes(
        u_row=fixed(-sin * up),
        v_row=fixed(cos * up),
        u_column=fixed(x + cos * right),
        v_column=fixed(y + sin * right),
        side=jnp.asarray(colour_map.SIDES)[level],
        first=jnp.asarray(colour_map.OFFSETS)[level],
    )


def _places(axes: _Axes) -> jax.Array:
    """u32[rows, size], the entry in a track's index << _LOCAL | texel in the block."""
    last = (axes.side * BLOCK << _FRACTION) - 1
    # The map has a black rim, so that what lies farther out is black too.
    u = jnp.clip(axes.u_row[:, None] + axes.u_column[None], 0, last) >> _FRACTION
    v = jnp.clip(axes.v_row[:, None] + axes.v_column[None], 0, last) >> _FRACTION
    entry = axes.first + (v >> _SIDE) * axes.side + (u >> _SIDE)
    texel = (v & BLOCK - 1) << _SIDE | u & BLOCK - 1
    return (entry << _LOCAL | texel).astype(jnp.uint32)


def _ground(canvas: Canvas, state: State, size: int) -> jax.Array:
    """u8[size * size], the colour code under every pixel, black in the strip."""

    def texels(place: jax.Array, track: jax.Array) -> jax.Array:
        entry = (place >> _LOCAL) + track * np.uint32(colour_map.ENTRIES)
        block = _take(canvas.ground.index, entry)
        return (block << _LOCAL) + (place & np.uint32((1 << _LOCAL) - 1))

    def codes(texel: jax.Array) -> jax.Array:
        black = jnp.zeros((size * size,), jnp.uint8)
        road = _take(canvas.ground.blocks, texel)
        return lax.dynamic_update_slice(black, road, (0,))

    # Four loops over all pixels, each of them simple enough to be fast: XLA would make
    # one of them, and compute all that leads to a pixel for each byte of its colour.
    axes = fenced(canvas.gate, lambda s: _axes(s, size), state)
    place = fenced(canvas.gate, _places, axes).reshape(-1)
    track = state.track.astype(jnp.uint32)
    return fenced(canvas.gate, codes, fenced(canvas.gate, texels, place, track))


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
        colours=tint.colours(palette.colours(state.ground), near, count, state.visited),
        car=sprite.shares(state, hull, size),
        bars=instruments.shares(state, size),
    )


def _luma(rgb: jax.Array) -> jax.Array:
    """u8[..., 1] from u8[..., 3], as OpenCV's COLOR_RGB2GRAY."""
    r, g, b = (rgb[..., i : i + 1].astype(jnp.int32) for i in range(3))
    return (r * 4899 + g * 9617 + b * 1868 + 8192 >> 14).astype(jnp.uint8)


_SHADES = {"rgb": lambda rgb: rgb, "gray": _luma}


def observe(
    canvas: Canvas,
    state: State,
    size: int = 96,
    color: str = "rgb",
    with_blob: bool = False,
) -> jax.Array:
    """One world's picture as its driver sees it.

    Args:
      canvas: the pool's pictures, made for this size.
      state: one world's state.
      size: pixels along a side.
      color: "rgb" or "gray".
      with_blob: whether a red square, `blob`, stands beside the car.

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

    def with_square(image, step):
        rows, columns = blob.window(size)
        colour = shade(jnp.asarray(camera.darkened(blob.COLOUR), jnp.uint8))
        part = blob.cover(image[rows, columns], blob.shares(step, size), colour)
        return lax.dynamic_update_slice(image, part, (rows.start, columns.start, 0))

    codes = _ground(canvas, state, size)
    text = _take(canvas.scores, score.row(state.score))
    details = fenced(canvas.gate, lambda s: _details(canvas, s, size), state)
    image = fenced(canvas.gate, compose, codes, text, details)
    return with_square(image, state.step) if with_blob else image


def background(
    canvas: Canvas, state: State, size: int = 96, with_blob: bool = False
) -> jax.Array:
    """The pixels that show grass, or what lies beyond the field, and nothing else.

    Args:
      canvas: the pool's pictures, made for this size.
      state: one world's state.
      size: pixels along a side.
      with_blob: as in `observe`.

    Returns:
      bool[size, size]; at the edge of the road, where half of a pixel or more is grass.
    """
    kinds = [palette.BLACK, palette.DARK, palette.LIGHT]
    is_open = palette.mixtures()[:, kinds].sum(1) >= 0.5
    mask = _take(is_open, _ground(canvas, state, size)).reshape(size, size)
    mask &= (np.arange(size) < camera.road_rows(size))[:, None]
    hull = _take(canvas.hull, jnp.minimum(state.step, len(camera.ZOOMS) - 1))
    covers = [(sprite.window(size), 1.0 - sprite.shares(state, hull, size).ground)]
    if with_blob:
        covers.append((blob.window(size), blob.shares(state.step, size)))
    for (rows, columns), share in covers:
        part = mask[rows, columns]
        part &= share.reshape(part.shape) <= 0.5
        mask = lax.dynamic_update_slice(mask, part, (rows.start, columns.start))
    return mask
