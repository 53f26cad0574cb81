"""What people see: the driver's view of a state, large and smooth, on the host."""

import cv2
import jax
import numpy as np
from numpy.typing import ArrayLike

from envs.car_racing import blob, camera, instruments, palette, score, sprite
from envs.car_racing.colour_map import SQUARES
from envs.car_racing.state import State
from envs.car_racing.track import PLAYFIELD, Track

_SHIFT = 6
"""Fractional bits of OpenCV's polygon corners."""
_FINE = 1600
"""Pixels that the longer side is drawn with at least, before it shrinks."""


class _View:
    """An image that is drawn on in window coordinates, y up, and shrunk at the end."""

    def __init__(self, height: int, width: int):
        self._size = width, height
        factor = max(2, round(_FINE / max(height, width)))
        self._image = np.zeros((factor * height, factor * width, 3), "u1")
        self._scale = np.array(
            [factor * width / camera.WINDOW_W, factor * height / camera.WINDOW_H]
        )

    def polygons(self, corners: np.ndarray, colour: ArrayLike) -> None:
        """Fills convex polygons, f[n, corners, 2]."""
        flipped = corners * [1, -1] + [0, camera.WINDOW_H]
        # OpenCV puts pixel centres at whole numbers.
        pixels = flipped * self._scale - 0.5
        shade = camera.darkened(colour).tolist()
        for polygon in np.rint(pixels * (1 << _SHIFT)).astype("i4"):
            cv2.fillConvexPoly(self._image, polygon, shade, cv2.LINE_8, _SHIFT)

    def box(self, x: tuple[float, float], y: tuple[float, float], colour: ArrayLike):
        """Fills the box between two x and two y."""
        corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]
        self.polygons(np.array([corners], "f8"), colour)

    def text(self, words: str) -> None:
        """Writes the score."""
        h, w = score.text(words).shape
        scale_x, scale_y = self._scale
        fine = score.text(words, round(score.FONT_SIZE * scale_y))
        size = round(w * scale_x), round(h * scale_y)
        fine = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
        top = round((score.CENTRE_Y - h // 2) * scale_y)
        left = round((score.CENTRE_X - w // 2) * scale_x)
        part = self._image[top : top + size[1], left : left + size[0]]
        part[:] = fine[: part.shape[0], : part.shape[1], None]

    def shrunk(self) -> np.ndarray:
        return cv2.resize(self._image, self._size, interpolation=cv2.INTER_AREA)


def _grass() -> np.ndarray:
    """f64[n, 4, 2], the squares of lighter grass, world units."""
    side = 2 * PLAYFIELD / SQUARES
    low = np.arange(-PLAYFIELD, PLAYFIELD - side / 2, 2 * side)
    corner = np.stack(np.meshgrid(low, low), -1).reshape(-1, 1, 2)
    return corner + side * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


def _road(view: _View, track: Track, state: State, to_window) -> None:
    count = int(track.count)
    index = np.arange(count)
    visited = state.visited[index // 32] >> (index % 32).astype("u4") & 1
    tiles, kerbs = to_window(track.tiles[:count]), to_window(track.borders[:count])
    # One at a time in Gymnasium's order, but only those in view.
    for i in np.flatnonzero(_in_view(tiles) | _in_view(kerbs)):
        tint = 0 if visited[i] else palette.TINT[i % len(palette.TINT)]
        view.polygons(tiles[i : i + 1], state.ground[palette.ROAD] + tint)
        if track.has_border[i]:
            kind = palette.RED if i % 2 else palette.WHITE
            view.polygons(kerbs[i : i + 1], state.ground[kind])


def _in_view(corners: np.ndarray) -> np.ndarray:
    """bool[n], whether polygons f[n, corners, 2] may reach into the window."""
    low, high = corners.min(1), corners.max(1)
    window = camera.WINDOW_W, camera.WINDOW_H
    return (high >= 0).all(1) & (low <= window).all(1)


def _car(view: _View, state: State) -> None:
    zoom = sprite.UNIT * camera.ZOOMS[min(int(state.step), len(camera.ZOOMS) - 1)]
    origin = np.array([camera.CAR_X, camera.CAR_Y])
    width, radius = sprite.WHEEL_W, sprite.WHEEL_R
    low, high = (radius * np.asarray(v, "f8") for v in sprite.patches(state.phase))
    for i, middle in enumerate(sprite.WHEELS):
        cos, sin = np.cos(state.joint[i]), np.sin(state.joint[i])
        turn = np.array([(cos, sin), (-sin, cos)])
        tyre = -radius, radius, (0, 0, 0)
        for back, front, colour in (tyre, (low[i], high[i], sprite.PATCH_COLOUR)):
            x, y = [-width, width, width, -width], [back, back, front, front]
            if back < front:
                corners = np.stack([x, y], 1) @ turn + middle
                view.polygons(corners[None] * zoom + origin, colour)
    for polygon in sprite.HULL:
        view.polygons(np.array([polygon]) * zoom + origin, sprite.HULL_COLOUR)


def _strip(view: _View, state: State) -> None:
    height, unit_x, unit_y = camera.WINDOW_H, instruments.UNIT_X, instruments.UNIT_Y
    view.box((0, camera.WINDOW_W), (0, camera.STRIP_H), (0, 0, 0))
    shown = np.asarray(instruments.readings(state), "f8")
    shown[np.abs(shown) <= instruments.SMALLEST] = 0.0
    n = len(instruments.UPRIGHT)
    for bar, reading in zip(instruments.UPRIGHT, shown[:n], strict=True):
        if reading:
            foot = height - instruments.FOOT
            across = bar.place * unit_x, (bar.place + 1) * unit_x
            view.box(across, (foot, foot + unit_y * bar.gain * reading), bar.colour)
    for bar, reading in zip(instruments.SIDEWAYS, shown[n:], strict=True):
        if reading:
            start = bar.place * unit_x
            down = height - instruments.BOTTOM, height - instruments.TOP
            view.box((start, start + unit_x * bar.gain * reading), down, bar.colour)
    view.text(score.written(float(state.score)))


def paint(
    track: Track, state: State, height: int, width: int, with_blob: bool = False
) -> np.ndarray:
    """A state as `draw.observe` shows it, at any size.

    Args:
      track: the state's track.
      state: one world's state.
      height: pixels of the picture.
      width: pixels of the picture. Like the driver's, it holds a view of 5 : 4,
        squeezed where the picture has another shape.
      with_blob: as in `draw.observe`.

    Returns:
      u8[height, width, 3].
    """
    state = jax.device_get(state)
    zoom = camera.ZOOMS[min(int(state.step), len(camera.ZOOMS) - 1)]
    cos, sin = np.cos(float(state.angle)), np.sin(float(state.angle))
    turn = np.array([(cos, -sin), (sin, cos)])

    def to_window(points: np.ndarray) -> np.ndarray:
        offset = points.astype("f8") - [float(state.x), float(state.y)]
        return zoom * offset @ turn + [camera.CAR_X, camera.CAR_Y]

    view = _View(height, width)
    edge = PLAYFIELD
    field = np.array([[(-edge, -edge), (edge, -edge), (edge, edge), (-edge, edge)]])
    view.polygons(to_window(field), state.ground[palette.DARK])
    grass = to_window(_grass())
    view.polygons(grass[_in_view(grass)], state.ground[palette.LIGHT])
    _road(view, track, state, to_window)
    _car(view, state)
    if with_blob:
        view.box(*blob.corners(zoom), blob.COLOUR)
    _strip(view, state)
    return view.shrunk()
