"""The ground of a track as a picture from above, coarse to fine, a byte per texel.

The picture is stored in blocks of 32 x 32 texels. Blocks of plain grass repeat and are
shared by all tracks, so a track only holds the blocks that its road runs through.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from envs.car_racing import palette, tint
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

_POOL_BLOCKS, _POOL_STEP = 768, 128
"""Blocks per track that a pool has room for; tracks have 450 to 700, 550 on average."""
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
      nearest: u16[tint.CELLS**2], see there.
      count: i32[], number of tiles.
    """

    blocks: np.ndarray
    index: np.ndarray
    nearest: np.ndarray
    count: np.ndarray


def _to_codes(windows: np.ndarray) -> np.ndarray:
    """u8[n, BLOCK**2]: labels u8[n, _WINDOW, _WINDOW] averaged to colour codes."""
    sums = palette.sample_weights()[windows]
    # Texel k averages label pixels 2 k to 2 k + 3 of its window: two pairs a side.
    sums = sums[:, 0::2] + sums[:, 1::2]
    sums = sums[:, :-1] + sums[:, 1:]
    sums = sums[:, :, 0::2] + sums[:, :, 1::2]
    sums = sums[:, :, :-1] + sums[:, :, 1:]
    codes = palette.code_of_counts()[sums]
    labels = windows[:, 1:-1:2, 1:-1:2]
    first = len(palette.GROUND)
    of_tile = labels - np.uint8(first - palette.ROAD_CODE)
    is_road = (codes == palette.ROAD_CODE) & (labels >= first)
    return np.where(is_road, of_tile, codes).reshape(len(codes), BLOCK**2)


@functools.cache
def _grass() -> np.ndarray:
    """u8[side, side], labels of a field without a road."""
    square = _HALF * GRASS_TEXELS
    light = np.arange(SQUARES * square) // square % 2 == 0
    kinds = np.array([palette.DARK, palette.LIGHT], "u1")
    grass = np.where(light[:, None] & light, kinds[1], kinds[0])
    return np.pad(grass, _MARGIN, constant_values=palette.BLACK)


def _blocks_of(labels: np.ndarray, level: int) -> np.ndarray:
    """A view u8[side, side, _WINDOW, _WINDOW] of the windows of a level's blocks."""
    step = 1 << level
    # The samples of a coarser level lie in the middle of the pixels that they stand
    # for; its margin is one of its own pixels, as at every level.
    first = _MARGIN - step + step // 2
    view = labels[first::step, first::step]
    windows = np.lib.stride_tricks.sliding_window_view(view, (_WINDOW, _WINDOW))
    return windows[:: _HALF * BLOCK, :: _HALF * BLOCK]


def _plain(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of blocks that differ on a field without a road, and the kind of each row.

    Grass repeats, but for the outermost blocks, which blend with the black around.
    """
    side = SIDES[level] - 2
    period = max(1, 2 * GRASS_TEXELS // BLOCK >> level)
    kind = 1 + np.arange(side) % period
    kind[0], kind[-1] = 0, period + 1
    _, first = np.unique(kind, return_index=True)
    return first, np.searchsorted(np.unique(kind), kind)


@functools.cache
def shared_blocks() -> np.ndarray:
    """u8[k, BLOCK**2], the blocks common to all tracks: black, then grass by level."""
    blocks = [np.zeros((1, BLOCK**2), "u1")]
    for level in range(LEVELS):
        rows, _ = _plain(level)
        windows = _blocks_of(_grass(), level)[np.ix_(rows, rows)]
        blocks.append(_to_codes(windows.reshape(-1, _WINDOW, _WINDOW)))
    return np.concatenate(blocks)


@functools.cache
def _plain_index() -> tuple[np.ndarray, ...]:
    """Per level the shared blocks of a field without a road, i32[side, side]."""
    first, levels = 1, []
    for level, side in enumerate(SIDES):
        rows, kind = _plain(level)
        index = np.zeros((side, side), "i4")
        index[1:-1, 1:-1] = first + len(rows) * kind[:, None] + kind
        levels.append(index)
        first += len(rows) ** 2
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
    first, period = len(palette.GROUND), tint.PERIODS[track.count]
    for i in range(int(track.count)):
        _fill(labels, tiles[i], int(first + i % period))
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
    (x0, y0), (x1, y1) = (
        np.floor((corner + PLAYFIELD) / unit).astype("i4").clip(0, side - 1).T
        for corner in (quads.min(1) - reach, quads.max(1) + reach)
    )
    # Boxes are counted by their corners; running sums fill them.
    count = np.zeros((side + 1, side + 1), "i4")
    np.add.at(count, (y0, x0), 1)
    np.add.at(count, (y1 + 1, x1 + 1), 1)
    np.add.at(count, (y0, x1 + 1), -1)
    np.add.at(count, (y1 + 1, x0), -1)
    return count.cumsum(0).cumsum(1)[:-1, :-1] > 0


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
    return ColourMap(
        blocks=np.concatenate(blocks),
        index=np.concatenate(levels),
        nearest=tint.nearest_tiles(track),
        count=track.count,
    )


class Ground(NamedTuple):
    """The pictures of a pool of tracks.

    Attributes:
      blocks: u8[n * BLOCK**2], the shared blocks, then those of each track.
      index: u32[tracks * ENTRIES], the block at each place of each level of each track.
      nearest: u16[tracks * tint.CELLS**2], the tile nearest to each cell of each track.
      counts: i32[tracks], tiles of each track.
    """

    blocks: np.ndarray
    index: np.ndarray
    nearest: np.ndarray
    counts: np.ndarray


def stack(maps: Sequence[ColourMap]) -> Ground:
    """A pool of tracks' pictures as one.

    The blocks are padded so that pools of the same number of tracks have the same
    shapes, and a function that is compiled for one serves the other.

    Args:
      maps: one per track.

    Raises:
      ValueError: more tracks than 32 bits can address the texels of.
    """
    shared = shared_blocks()
    first = np.cumsum([0, *(len(m.blocks) for m in maps[:-1])], dtype="i4")
    index = np.stack([m.index for m in maps])
    index += np.where(index < len(shared), 0, first[:, None])
    blocks = np.concatenate([shared, *(m.blocks for m in maps)])
    room = _POOL_BLOCKS * len(maps)
    while room < len(blocks):
        room += _POOL_STEP * len(maps)
    if room * BLOCK**2 > 1 << 32:
        raise ValueError(
            f"a pool of {len(maps)} tracks is too large to be drawn from; at most "
            f"{(1 << 32) // BLOCK**2 // _POOL_BLOCKS} fit"
        )
    padding = np.zeros((room - len(blocks), BLOCK**2), "u1")
    return Ground(
        blocks=np.concatenate([blocks, padding]).ravel(),
        index=index.astype("u4").ravel(),
        nearest=np.concatenate([m.nearest for m in maps]),
        counts=np.stack([m.count for m in maps]),
    )
