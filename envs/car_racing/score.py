"""The score as Gymnasium writes it, drawn by the same font engine."""

import functools
import os

import numpy as np

from envs.car_racing import camera

LOWEST, HIGHEST = -250, 1100
"""Scores beyond these are shown as these."""
FONT_SIZE = 42
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
CENTRE_X, CENTRE_Y = 60, 750
"""Middle of the text in the window, y down."""


@functools.cache
def _font(size: int):
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    # Gymnasium's own dependency for this world, and slow to load: only for those who
    # draw.
    import pygame.font

    pygame.font.init()
    return pygame.font.Font(pygame.font.get_default_font(), size)


def text(score: int, font_size: int = FONT_SIZE) -> np.ndarray:
    """u8[h, w], white on black.

    Args:
      score: the number, written with at least four characters.
      font_size: in pixels.
    """
    surface = _font(font_size).render(f"{score:04d}", True, WHITE, BLACK)
    import pygame.surfarray  # after `_font`, which silences pygame's greeting

    return pygame.surfarray.array3d(surface)[:, :, 0].T


_BOX_H, _BOX_W = 48, 104
"""Window pixels around `CENTRE_X` and `CENTRE_Y` that every text fits into."""


def window(size: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that the text can cover."""
    top, left = CENTRE_Y - _BOX_H // 2, CENTRE_X - _BOX_W // 2
    return (
        slice(*camera.span(top, top + _BOX_H, size, camera.WINDOW_H)),
        slice(*camera.span(left, left + _BOX_W, size, camera.WINDOW_W)),
    )


def shape(size: int) -> tuple[int, int, int]:
    """Of `table`."""
    rows, columns = window(size)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return HIGHEST - LOWEST + 1, height, width


@functools.cache
def table(size: int) -> np.ndarray:
    """u8[HIGHEST - LOWEST + 1, h, w], all scores in their `window`.

    Args:
      size: pixels along a side of the picture.
    """
    top, left = CENTRE_Y - _BOX_H // 2, CENTRE_X - _BOX_W // 2
    boxes = np.zeros((HIGHEST - LOWEST + 1, _BOX_H, _BOX_W), "f4")
    for box, number in zip(boxes, range(LOWEST, HIGHEST + 1), strict=True):
        drawn = text(number)
        h, w = drawn.shape
        y, x = CENTRE_Y - h // 2 - top, CENTRE_X - w // 2 - left
        box[y : y + h, x : x + w] = drawn
    rows, columns = window(size)
    down = camera.averaging(size, camera.WINDOW_H)[rows, top : top + _BOX_H]
    across = camera.averaging(size, camera.WINDOW_W)[columns, left : left + _BOX_W]
    shrunk = down @ boxes @ across.T * (camera.darkened(WHITE)[0] / WHITE[0])
    return np.rint(shrunk).astype("u1")
