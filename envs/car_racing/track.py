"""Race tracks as Gymnasium's CarRacing-v3 draws them from a seed, in numpy."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from envs.car_racing import palette
from envs.car_racing.car import settled

SCALE = 6.0
TRACK_RADIUS = 900 / SCALE
PLAYFIELD = 2000 / SCALE
"""Half the side of the field; beyond it the car is lost."""
DETAIL = 21 / SCALE
"""Distance of two consecutive points of the centre line."""
TURN_RATE = 0.31
HALF_WIDTH = 40 / SCALE
"""Half the width of the road."""
BORDER = 8 / SCALE
"""Width of the red and white kerbs."""
BORDER_RUN = 4
"""Kerbs stand where so many consecutive steps turn hard to the same side."""
CHECKPOINTS = 12
MAX_POINTS = 2500
MAX_TILES = 416
"""Room for the tiles of one track; 1,000 seeds had at most 389."""
FAR = 1e4
"""Coordinate of unused tiles."""

CELL, GRID = 1.5, 332
"""Side of a cell, and cells along the side, of the map from places to tiles: the road
lies within 248 units."""
REACH = 0.63
"""A wheel touches nothing further away from its centre."""
WINDOW = 16
"""Cells along a side that one tile's surroundings fit into."""
RUN = 4
"""Consecutive tiles that a wheel in one cell may touch."""
ROWS = MAX_TILES + 2 * RUN + 2
NOWHERE = MAX_TILES + RUN + 1
"""First candidate where there is no road: its rows are unused."""

Array: TypeAlias = Any
"""An array of numpy where tracks are made, of JAX where they are driven on."""


class Track(NamedTuple):
    """One track; rows from `count` on are unused and lie at `FAR`.

    Attributes:
      tiles: f32[MAX_TILES, 4, 2], corners of each road tile in world units, in
        Gymnasium's order: near left, near right, far right, far left, where far is
        the previous point of the centre line. Its grey tint follows from index % 3.
      count: i32[], number of tiles.
      borders: f32[MAX_TILES, 4, 2], the kerb beside each tile.
      has_border: bool[MAX_TILES], where there is one: white for even tiles, else red.
      start: f32[3], angle, x and y with which the car is created.
      ground: f32[6, 3], RGB in [0, 255] of each kind of ground, as `palette.GROUND`.
      attempts: i32[], tries that the generator needed.
    """

    tiles: Array
    count: Array
    borders: Array
    has_border: Array
    start: Array
    ground: Array
    attempts: Array


def _checkpoints(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(angle, x, y) of the points that the track is drawn towards."""
    points = []
    for c in range(CHECKPOINTS):
        noise = rng.uniform(0, 2 * math.pi * 1 / CHECKPOINTS)
        alpha = 2 * math.pi * c / CHECKPOINTS + noise
        radius = rng.uniform(TRACK_RADIUS / 3, TRACK_RADIUS)
        if c == 0:
            alpha, radius = 0, 1.5 * TRACK_RADIUS
        if c == CHECKPOINTS - 1:
            alpha, radius = 2 * math.pi * c / CHECKPOINTS, 1.5 * TRACK_RADIUS
        points.append((alpha, radius * math.cos(alpha), radius * math.sin(alpha)))
    return points


def _target(points: list, first: int, alpha: float) -> tuple[int, float]:
    """Index of the checkpoint ahead of `alpha`, and `alpha` in that lap's angles."""
    while True:
        while True:
            if alpha <= points[first % CHECKPOINTS][0]:
                return first, alpha
            first += 1
            if first % CHECKPOINTS == 0:
                break
        alpha -= 2 * math.pi


def _laps(points: list) -> list[tuple[float, float, float, float]]:
    """(angle about the origin, heading, x, y) along five laps of steering."""
    x, y, beta = 1.5 * TRACK_RADIUS, 0.0, 0.0
    target, laps, other_side = 0, 0, False
    line = []
    while laps <= 4 and len(line) < MAX_POINTS:
        alpha = math.atan2(y, x)
        if other_side and alpha > 0:
            laps += 1
            other_side = False
        if alpha < 0:
            other_side = True
            alpha += 2 * math.pi
        target, alpha = _target(points, target, alpha)
        _, target_x, target_y = points[target % CHECKPOINTS]
        side_x, side_y = math.cos(beta), math.sin(beta)
        offset = SCALE * (side_x * (target_x - x) + side_y * (target_y - y))
        while beta - alpha > 1.5 * math.pi:
            beta -= 2 * math.pi
        while beta - alpha < -1.5 * math.pi:
            beta += 2 * math.pi
        before = beta
        turn = min(TURN_RATE, abs(0.001 * offset))
        if offset > 0.3:
            beta -= turn
        if offset < -0.3:
            beta += turn
        x -= side_y * DETAIL
        y += side_x * DETAIL
        line.append((alpha, before * 0.5 + beta * 0.5, x, y))
    return line


def _closed_lap(line: list) -> list | None:
    """The last whole lap of `line` if its ends meet, else None."""
    start_alpha = 2 * math.pi * (-0.5) / CHECKPOINTS
    crossings = []
    for i in range(len(line) - 1, 0, -1):
        if line[i][0] > start_alpha and line[i - 1][0] <= start_alpha:
            crossings.append(i)
        if len(crossings) == 2:
            break
    else:
        return None
    last, first = crossings
    lap = line[first : last - 1]
    (_, beta, x, y), (_, _, end_x, end_y) = lap[0], lap[-1]
    gap_x, gap_y = math.cos(beta) * (x - end_x), math.sin(beta) * (y - end_y)
    return None if math.sqrt(gap_x**2 + gap_y**2) > DETAIL else lap


def _has_border(beta: np.ndarray) -> np.ndarray:
    """bool[n]: a hard turn to one side ends within the next few tiles."""
    turn = beta - np.roll(beta, 1)
    runs = np.stack([np.roll(turn, k) for k in range(BORDER_RUN)])
    hard = (np.abs(runs) > TURN_RATE * 0.2).all(axis=0)
    one_sided = np.abs(np.sign(runs).sum(axis=0)) == BORDER_RUN
    border = hard & one_sided
    # In place and in order, as in Gymnasium: from the first tiles it reaches back
    # around the lap, where the loop then spreads it on.
    for i in range(len(border)):
        for k in range(BORDER_RUN):
            border[i - k] |= border[i]
    return border


def _strips(
    x: np.ndarray, y: np.ndarray, beta: np.ndarray, left: float, right: float
) -> np.ndarray:
    """f64[n, 4, 2]: the strip of each segment between two offsets across the line."""
    cos, sin = np.cos(beta), np.sin(beta)
    a = np.stack([x + left * cos, y + left * sin], axis=1)
    b = np.stack([x + right * cos, y + right * sin], axis=1)
    return np.stack([a, b, np.roll(b, 1, axis=0), np.roll(a, 1, axis=0)], axis=1)


def _kerbs(x: np.ndarray, y: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """f64[n, 4, 2]: the strip outside the road, on the side the segment turns from."""
    side = np.sign(np.roll(beta, 1) - beta)
    cos, sin = np.cos(beta), np.sin(beta)
    corners = []
    for offset in (side * HALF_WIDTH, side * (HALF_WIDTH + BORDER)):
        near = np.stack([x + offset * cos, y + offset * sin], axis=1)
        far_x = np.roll(x, 1) + offset * np.roll(cos, 1)
        far_y = np.roll(y, 1) + offset * np.roll(sin, 1)
        corners.append((near, np.stack([far_x, far_y], axis=1)))
    (near_in, far_in), (near_out, far_out) = corners
    return np.stack([near_in, near_out, far_out, far_in], axis=1)


def _padded(rows: np.ndarray, fill: float, dtype: str) -> np.ndarray:
    out = np.full((MAX_TILES, *rows.shape[1:]), fill, dtype)
    out[: len(rows)] = rows
    return out


def generate(seed: int, domain_randomize: bool = False) -> Track:
    """The track of `CarRacing-v3` after `reset(seed=seed)`.

    Args:
      seed: any seed that Gymnasium takes, a non-negative integer.
      domain_randomize: as in Gymnasium: the colours of road and grass are drawn too,
        and before the track, which is therefore another one.

    Raises:
      ValueError: the track has more than `MAX_TILES` tiles.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    ground = palette.randomized(rng) if domain_randomize else palette.GROUND
    lap, attempts = None, 0
    while lap is None:
        lap = _closed_lap(_laps(_checkpoints(rng)))
        attempts += 1
    if len(lap) > MAX_TILES:
        raise ValueError(
            f"seed {seed} gives a track of {len(lap)} tiles, at most {MAX_TILES} "
            "have room; leave this seed out"
        )
    _, beta, x, y = np.array(lap).T
    return Track(
        tiles=_padded(_strips(x, y, beta, -HALF_WIDTH, HALF_WIDTH), FAR, "f4"),
        count=np.int32(len(lap)),
        borders=_padded(_kerbs(x, y, beta), FAR, "f4"),
        has_border=_padded(_has_border(beta), False, "?"),
        start=np.array(lap[0][1:], "f4"),
        ground=ground.astype("f4"),
        attempts=np.int32(attempts),
    )


class Roads(NamedTuple):
    """A pool of P tracks.

    Attributes:
      tracks: the tracks, stacked along the first axis.
      parked: f32[P, 3], angle, x and y of the car once its joints have closed.
      lines: f32[P, ROWS, 4], left x, left y, right x, right y of the lines across the
        road: row j is the line at the far end of tile j, row j + 1 at its near end.
        After the last tile the first ones follow again.
      ids: u16[P, GRID**2], for each cell of the field, row by row in y, the first of
        at most `RUN` consecutive tiles that a wheel in that cell may touch.
    """

    tracks: Track
    parked: Array
    lines: Array
    ids: Array


def _reachable(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tile, cell) pairs where a wheel centred in the cell may touch the tile."""
    window = np.arange(WINDOW)
    low = np.floor((tiles.min(axis=1) - REACH) / CELL).astype(int)
    column = (low[:, 0, None] + window)[:, None, :]
    row = (low[:, 1, None] + window)[:, :, None]
    x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
    hit = np.ones((len(tiles), WINDOW, WINDOW), bool)
    for a, b in zip(range(4), (1, 2, 3, 0), strict=True):
        start, edge = tiles[:, a], tiles[:, b] - tiles[:, a]
        normal = np.stack([-edge[:, 1], edge[:, 0]]) / np.hypot(*edge.T)
        nx, ny = normal[..., None, None]
        ahead = nx * (x - start[:, 0, None, None]) + ny * (y - start[:, 1, None, None])
        hit &= ahead - CELL / 2 * (abs(nx) + abs(ny)) <= REACH
    tile, i, j = np.nonzero(hit)
    cell = (row[tile, i, 0] + GRID // 2) * GRID + column[tile, 0, j] + GRID // 2
    return tile, cell


def _ids(track: Track) -> np.ndarray:
    """u16[GRID**2]: the first candidate tile of every cell, `NOWHERE` if none."""
    count = int(track.count)
    tile, cell = _reachable(track.tiles[:count].astype("f8"))
    pair = cell * count + tile
    before = cell * count + (tile - 1) % count
    first = ~np.isin(before, pair)
    ids = np.full(GRID**2, NOWHERE, "u2")
    # In reverse, so that the lowest wins where a hairpin leaves a gap in the run.
    ids[cell[first][::-1]] = tile[first][::-1]
    return ids


def stack(seeds: Sequence[int], domain_randomize: bool = False) -> Roads:
    """The pool of the tracks of `seeds`, in numpy; arguments as of `generate`."""
    tracks = [generate(seed, domain_randomize) for seed in seeds]
    lines = np.full((len(tracks), ROWS, 4), FAR, "f4")
    for out, track in zip(lines, tracks, strict=True):
        count = int(track.count)
        rows = np.arange(count + RUN) % count
        out[: count + RUN] = track.tiles[rows][:, [3, 2]].reshape(-1, 4)
    return Roads(
        tracks=Track(*map(np.stack, zip(*tracks, strict=True))),
        parked=np.array([settled(*map(float, t.start)) for t in tracks], "f4"),
        lines=lines,
        ids=np.stack([_ids(track) for track in tracks]),
    )
