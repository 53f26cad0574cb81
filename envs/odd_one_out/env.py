"""OddOneOut: one cell has other hues than all the rest; point at it.

Which hues are the odd ones is drawn anew for every scene, so that no fixed filter knows
them; every cell holds as much of a colour as of its complement, so that the mean patch
is grey in all scenes and a mean query knows nothing either. What tells the odd patch is
how all others relate to it: it takes second moments, which attention has and no filter.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Box, Environment, Outcome, Spec
from envs.odd_one_out.settings import SCENES

CELLS = 8
"""Cells along a side."""
FIELD = 2
"""Side of a field in pixels; a cell is 2x2 fields, a colour and its complement."""
SIZE = CELLS * 2 * FIELD
FPS = 2
GREY = 128
SATURATION = 120.0
"""Distance of a colour from grey, in grey levels."""
PALE = 0.5
"""Saturation of the odd one, as a share of that of the others."""
REACH = 1 / CELLS
"""Half a cell, where the picture's half is 1."""
HUES = np.array([[2, -1, -1], [0, 3**0.5, -(3**0.5)]], "f4") / 6**0.5
"""Two orthonormal colours that are orthogonal to grey."""


class State(NamedTuple):
    """A scene of an episode.

    Attributes:
      level: u32[], names the episode.
      step: i32[], scenes that were answered.
      hue: f32[], angle of the colours on the circle of hues.
      odd: i32[], the odd cell, row-major.
      first: bool[CELLS, CELLS], whether a cell begins with the colour or with its
        complement.
    """

    level: jax.Array
    step: jax.Array
    hue: jax.Array
    odd: jax.Array
    first: jax.Array


def make(levels: Sequence[int]) -> Environment:
    """A picture of 8x8 cells, one of which is odd.

    Every cell is a small checkerboard of 2x2 fields of 2x2 pixels, of a colour and its
    complement. All cells share both, but for one of perpendicular hues and half the
    saturation. Which hues, which cell and which field comes first is drawn anew for
    each scene, and a scene is shown for one step.

    Action: a point (row, column) in [-1, 1]^2, from the upper left to the lower right.
    Observation: u8[32, 32, 3]. Reward: 1 within half a cell of the odd one's middle,
    beyond that less by as much as the point is farther off (the picture is 2 wide), but
    never below 0. Start: the first scene of the level. End: an episode is truncated
    after 16 scenes; nothing terminates it.

    A mean return of 16 is the best; the middle, always, gets 5.9, a point drawn
    anywhere 4.0. The patch that one fixed filter, whichever, likes best is the odd one
    in 30 % of the scenes: for atan(1/2) of every quarter of the circle of hues.

    Args:
      levels: level i of the episodes is drawn from `jax.random.key(levels[i])`; the
        keys of `reset` and `step` are not used.

    Raises:
      ValueError: there are no levels.

    Source: this project's own; version 0.
    """
    if len(levels) == 0:
        raise ValueError("levels is empty; OddOneOut needs at least one")
    spec = Spec(
        observation=Box((SIZE, SIZE, 3), (0.0,), (255.0,), "uint8"),
        action=Box((2,), (-1.0,), (1.0,)),
        max_steps=SCENES,
        fps=FPS,
    )

    def reset(world: jax.Array, episode: jax.Array, key: jax.Array) -> State:
        del key
        return _scene(world[episode], jnp.int32(0))

    def step(
        world: jax.Array, state: State, action: jax.Array, key: jax.Array
    ) -> tuple[State, Outcome]:
        del world, key
        row, column = state.odd // CELLS, state.odd % CELLS
        target = REACH * (2 * jnp.stack([row, column]).astype(jnp.float32) + 1) - 1
        beyond = jnp.linalg.norm(jnp.clip(action, -1.0, 1.0) - target) - REACH
        moved = _scene(state.level, state.step + 1)
        return moved, Outcome(
            reward=jnp.clip(1 - beyond, 0.0, 1.0),
            terminated=jnp.bool_(False),
            truncated=moved.step >= SCENES,
            metrics={"found": (beyond <= 0).astype(jnp.float32)},
        )

    def observe(world: jax.Array, state: State) -> jax.Array:
        del world
        return _enlarged(_fields(state, jnp), SIZE, SIZE)

    def paint(world: Any, state: State, height: int, width: int) -> np.ndarray:
        del world
        return _enlarged(_fields(jax.tree.map(np.asarray, state), np), height, width)

    return Environment(
        spec=spec,
        world=jnp.asarray(levels, jnp.uint32),
        reset=reset,
        step=step,
        observe=observe,
        paint=paint,
    )


def _scene(level: jax.Array, step: jax.Array) -> State:
    key = jax.random.fold_in(jax.random.key(level), step)
    hue, odd, first = jax.random.split(key, 3)
    return State(
        level=level,
        step=step,
        hue=jax.random.uniform(hue, maxval=2 * np.pi),
        odd=jax.random.randint(odd, (), 0, CELLS**2),
        first=jax.random.bernoulli(first, shape=(CELLS, CELLS)),
    )


def _fields(state: State, numpy: Any) -> Any:
    """The colours of all fields, u8[2 CELLS, 2 CELLS, 3], in jax.numpy or in numpy.

    Colours are whole numbers of grey levels from grey, so that their complements are
    exact, and the mean of a cell is grey to the last bit.
    """
    cosine, sine = numpy.cos(state.hue), numpy.sin(state.hue)
    usual = SATURATION * (cosine * HUES[0] + sine * HUES[1])
    other = PALE * SATURATION * (cosine * HUES[1] - sine * HUES[0])
    odd = numpy.arange(CELLS**2).reshape(CELLS, CELLS, 1) == state.odd
    colour = numpy.where(odd, other[None, None], usual[None, None])
    sign = numpy.where(state.first[:, :, None], 1.0, -1.0)
    cell = numpy.round(colour) * sign
    checks = np.array([[1.0, -1.0], [-1.0, 1.0]], "f4")[None, :, None, :, None]
    fields = (cell[:, None, :, None, :] * checks).reshape(2 * CELLS, 2 * CELLS, 3)
    return (GREY + fields).astype(numpy.uint8)


def _enlarged(fields: Any, height: int, width: int) -> Any:
    """Every field as a rectangle, of the nearest whole number of pixels."""
    rows, columns = (np.arange(n) * 2 * CELLS // n for n in (height, width))
    return fields[rows][:, columns]
