"""The score as Gymnasium writes it, drawn by the same font engine."""

import functools
import os

import numpy as np

from envs.car_racing import camera

LOWEST, HIGHEST = -250, 1100
"""Scores beyond these are shown as these."""
FONT_SIZE = 42
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
    import pygame.surfarray

    white, black = (255,) * 3, (0,) * 3
    surface = _font(font_size).render(f"{score:04d}", True, white, black)
    return pygame.surfarray.array3d(surface)[:, :, 0].T


@functools.cache
def table(size: int) -> tuple[np.ndarray, int, int]:
    """All scores in a picture of a given size, and where they go.

    Args:
      size: pixels along a side of the picture.

    Returns:
      u8[HIGHEST - LOWEST + 1, h, w], row and column of the upper left corner.
    """
    texts = [text(score) for score in range(LOWEST, HIGHEST + 1)]
    height = max(t.shape[0] for t in texts)
    width = max(t.shape[1] for t in texts) + 1
    top, left = CENTRE_Y - height // 2, CENTRE_X - width // 2
    boxes = np.zeros((len(texts), height, width), "f4")
    for box, t in zip(boxes, texts, strict=True):
        x = CENTRE_X - t.shape[1] // 2 - left
        box[: t.shape[0], x : x + t.shape[1]] = t
    row, last_row = camera.span(top, top + height, size, camera.WINDOW_H)
    column, last_column = camera.span(left, left + width, size, camera.WINDOW_W)
    down = camera.averaging(size, camera.WINDOW_H)[row:last_row, top : top + height]
    across = camera.averaging(size, camera.WINDOW_W)
    across = across[column:last_column, left : left + width]
    shrunk = down @ boxes @ across.T * (253 / 255)
    return np.rint(shrunk).astype("u1"), row, column
