"""The score as Gymnasium writes it, drawn by the same font engine."""

import functools
import os

import jax
import jax.numpy as jnp
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


def text(score: str, font_size: int = FONT_SIZE) -> np.ndarray:
    """u8[h, w], white on black.

    Args:
      score: as Gymnasium writes it, `written`.
      font_size: in pixels.
    """
    surface = _font(font_size).render(score, True, WHITE, BLACK)
    import pygame.surfarray  # after `_font`, which silences pygame's greeting

    return pygame.surfarray.array3d(surface)[:, :, 0].T


def written(score: float) -> str:
    """A score as Gymnasium writes it: "-000" if it is a little below 0."""
    return f"{min(max(score, LOWEST), HIGHEST):04.0f}"


def row(score: jax.Array) -> jax.Array:
    """u32[], the row of `table` that shows a score, f32[]."""
    shown = jnp.clip(jnp.round(score), LOWEST, HIGHEST)
    minus_zero = (shown == 0) & (score < 0)
    at = jnp.where(minus_zero, HIGHEST + 1, shown) - LOWEST
    return at.astype(jnp.uint32)


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
    return HIGHEST - LOWEST + 2, height, width


@functools.cache
def table(size: int) -> np.ndarray:
    """u8[HIGHEST - LOWEST + 2, h, w], all scores in their `window`, "-000" last.

    Args:
      size: pixels along a side of the picture.
    """
    top, left = CENTRE_Y - _BOX_H // 2, CENTRE_X - _BOX_W // 2
    scores = [*map(written, range(LOWEST, HIGHEST + 1)), written(-0.1)]
    boxes = np.zeros((len(scores), _BOX_H, _BOX_W), "f4")
    for box, score in zip(boxes, scores, strict=True):
        drawn = text(score)
        h, w = drawn.shape
        y, x = CENTRE_Y - h // 2 - top, CENTRE_X - w // 2 - left
        box[y : y + h, x : x + w] = drawn
    rows, columns = window(size)
    down = camera.averaging(size, camera.WINDOW_H)[rows, top : top + _BOX_H]
    across = camera.averaging(size, camera.WINDOW_W)[columns, left : left + _BOX_W]
    shrunk = down @ boxes @ across.T * (camera.darkened(WHITE)[0] / WHITE[0])
    return np.rint(shrunk).astype("u1")
