"""The ground of a track as a picture from above, coarse to fine, a byte per texel.

The picture is stored in blocks of 32 x 32 texels. Blocks of plain grass repeat and are
shared by all tracks, so a track only holds the blocks that its road runs through.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

from envs.car_racing import palette
from envs.car_racing.track import PLAYFIELD, Track

BLOCK = 32
"""Texels along a side of a block."""
GRASS_TEXELS = 64
"""Texels along a side of a square of grass at the finest level."""
SQUARES = 40
"""Squares of grass along a side of the field."""
TEXEL = 2 * PLAYFIELD / SQUARES / GRASS_TEXELS
"""World units along a side of a texel at the finest level."""
LEVELS = 5
"""Each level halves the one before; only the zoom of the first second needs many."""
SIDES = tuple((SQUARES * GRASS_TEXELS // BLOCK >> k) + 2 for k in range(LEVELS))
"""Blocks along a side of each level, with a rim of one black block around the field."""
OFFSETS = tuple(int(sum(s * s for s in SIDES[:k])) for k in range(LEVELS))
"""Where each level begins in the index of blocks."""
ENTRIES = sum(s * s for s in SIDES)

_HALF = 2
"""Label pixels along a side of a texel."""
_WINDOW = _HALF * BLOCK + 2
"""Label pixels that a block's texels average: two texels wide each, so one pixel more
than the block on either side."""
_MARGIN = 16
"""Label pixels around the field, for the windows of the outermost blocks."""
_SHIFT = 6
"""Fractional bits of OpenCV's polygon corners."""


class ColourMap(NamedTuple):
    """One track's picture.

    Attributes:
      blocks: u8[n, BLOCK**2], colour codes of the blocks that are the track's own.
      index: i32[ENTRIES], the block at each place of each level, rows by rising y: one
        of the shared blocks, or their number plus the row in `blocks`.
    """

    blocks: np.ndarray
    index: np.ndarray


def _to_codes(windows: np.ndarray) -> np.ndarray:
    """u8[n, BLOCK**2]: labels u8[n, _WINDOW, _WINDOW] averaged to colour codes."""
    weights = palette.sample_weights()[windows]
    for axis in (1, 2):
        pair = weights.take(range(0, _WINDOW, 2), axis) + weights.take(
            range(1, _WINDOW, 2), axis
        )
        low = pair.take(range(BLOCK), axis)
        weights = low + pair.take(range(1, BLOCK + 1), axis)
    codes = palette.code_of_counts()[weights]
    label = windows[:, 1:-1:2, 1:-1:2]
    first = len(palette.GROUND)
    is_road = (codes == palette.ROAD_CODE) & (label >= first)
    codes[is_road] = label[is_road] - first + palette.ROAD_CODE
    return codes.reshape(len(codes), BLOCK**2)


@functools.cache
def _grass() -> np.ndarray:
    """u8[side, side], labels of a field without a road."""
    square = _HALF * GRASS_TEXELS
    inside = np.arange(-_MARGIN, SQUARES * square + _MARGIN) // square % 2 == 0
    return np.where(inside[:, None] & inside, palette.LIGHT, palette.DARK).astype("u1")


def _blocks_of(labels: np.ndarray, level: int) -> np.ndarray:
    """A view u8[side, side, _WINDOW, _WINDOW] of the windows of a level's blocks."""
    step = 1 << level
    # The samples of a coarser level lie in the middle of the pixels that they stand
    # for; its margin is one of its own pixels, as at every level.
    first = _MARGIN - step + step // 2
    view = labels[first::step, first::step]
    windows = np.lib.stride_tricks.sliding_window_view(view, (_WINDOW, _WINDOW))
    return windows[:: _HALF * BLOCK, :: _HALF * BLOCK]


def _period(level: int) -> int:
    """Blocks after which the grass of a level repeats."""
    return max(1, 2 * GRASS_TEXELS // BLOCK >> level)


@functools.cache
def shared_blocks() -> np.ndarray:
    """u8[k, BLOCK**2], the blocks common to all tracks: black, then grass by level."""
    blocks = [np.zeros((1, BLOCK**2), "u1")]
    for level in range(LEVELS):
        n = _period(level)
        windows = _blocks_of(_grass(), level)[:n, :n]
        blocks.append(_to_codes(windows.reshape(n * n, _WINDOW, _WINDOW)))
    return np.concatenate(blocks)


@functools.cache
def _plain_index() -> tuple[np.ndarray, ...]:
    """Per level the shared blocks of a field without a road, i32[side, side]."""
    first, levels = 1, []
    for level, side in enumerate(SIDES):
        n = _period(level)
        row = np.arange(side - 2) % n
        index = np.zeros((side, side), "i4")
        index[1:-1, 1:-1] = first + n * row[:, None] + row
        levels.append(index)
        first += n * n
    return tuple(levels)


def _fill(labels: np.ndarray, corners: np.ndarray, label: int) -> None:
    # OpenCV puts pixel centres at whole numbers.
    cv2.fillConvexPoly(labels, corners, label, cv2.LINE_8, _SHIFT)


def _draw(labels: np.ndarray, track: Track) -> None:
    """Draws road and kerbs into `labels`, in Gymnasium's order."""
    pixel = TEXEL / _HALF
    tiles, kerbs = (
        np.rint(((q + PLAYFIELD) / pixel + _MARGIN - 0.5) * (1 << _SHIFT)).astype("i4")
        for q in (track.tiles[: track.count], track.borders[: track.count])
    )
    first = len(palette.GROUND)
    for i in range(int(track.count)):
        _fill(labels, tiles[i], first + i % palette.ROAD_CODES)
        if track.has_border[i]:
            _fill(labels, kerbs[i], palette.RED if i % 2 else palette.WHITE)


def _touched(track: Track, level: int) -> np.ndarray:
    """bool[side, side] without the rim: blocks that the road may reach."""
    n = int(track.count)
    side = SIDES[level] - 2
    unit = TEXEL * BLOCK * (1 << level)
    # A texel averages a little of its neighbours.
    reach = 2.0 * TEXEL * (1 << level)
    quads = np.concatenate([track.tiles[:n], track.borders[:n][track.has_border[:n]]])
    low = np.floor((quads.min(1) - reach + PLAYFIELD) / unit).astype(int)
    high = np.floor((quads.max(1) + reach + PLAYFIELD) / unit).astype(int)
    touched = np.zeros((side, side), bool)
    for (x0, y0), (x1, y1) in zip(
        low.clip(0, side - 1), high.clip(0, side - 1), strict=True
    ):
        touched[y0 : y1 + 1, x0 : x1 + 1] = True
    return touched


def rasterise(track: Track) -> ColourMap:
    """The picture of one track, on the host.

    Args:
      track: tiles and kerbs in world units.
    """
    labels = _grass().copy()
    _draw(labels, track)
    shared = len(shared_blocks())
    blocks, levels, taken = [], [], shared
    for level, plain in enumerate(_plain_index()):
        rows, columns = np.nonzero(_touched(track, level))
        windows = _blocks_of(labels, level)[rows, columns]
        own = windows.max((1, 2)) > palette.LIGHT
        index = plain.copy()
        count = int(own.sum())
        index[rows[own] + 1, columns[own] + 1] = taken + np.arange(count)
        taken += count
        blocks.append(_to_codes(windows[own]))
        levels.append(index.ravel())
    return ColourMap(np.concatenate(blocks), np.concatenate(levels))
