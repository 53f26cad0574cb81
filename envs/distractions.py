"""Visual distractions that any world can wear: Environment -> Environment.

They change what is seen, by the agent and by people alike, and nothing of the game: the
inner world gets the very keys that it would get alone. What an episode needs, a colour
or a seed, is drawn as it begins, from a stream of its own below the key of its reset.

A world that says which pixels are its `background` has those distracted apart from the
rest. They go on before `frame_stack`, whose pictures are of the past.

Source: the generalisation tests of AttentionAgent (arXiv 2003.08165), and video from
the Distracting Control Suite (arXiv 2101.02722).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from envs import backdrops
from envs.core import Environment, State, World
from envs.fence import fenced, gate
from envs.transforms import LUMA, luma, on_inner

BAR = 3 / 40
"""Share of the picture's width that each of two bars takes."""
_STREAM = 0x64697374
"""Names our draws among all that are derived from the key of a reset."""
_STREAMS = {"color": 0, "noise": 1, "video": 2}


class _Worn(NamedTuple):
    """State of a distracted world.

    Attributes:
      inner: the world's own state.
      kept: what was drawn for the episode.
      steps: i32[], steps of the game so far.
    """

    inner: Any
    kept: Any
    steps: jax.Array


# --- bars ---------------------------------------------------------------------------


def bars(env: Environment, rows: int | None = None) -> Environment:
    """Covers the left and the right edge with a black bar, 3/40 of the width each.

    Covered pixels are no background, so that noise and video leave the bars black.

    Args:
      env: the world.
      rows: how many rows of the agent's picture the bars cover from its top; None for
        all.

    Raises:
      ValueError: the picture has no such number of rows.
    """
    H, W, _ = env.spec.image.shape
    rows = H if rows is None else rows
    if not 1 <= rows <= H:
        raise ValueError(f"rows is {rows}; bars cover 1 to {H} rows of this picture")

    def areas(height: int, width: int) -> tuple[tuple[slice, slice], ...]:
        top, bar = slice(round(rows * height / H)), round(BAR * width)
        return (top, slice(bar)), (top, slice(width - bar, width))

    bare = _fencing(env)

    def blackened(picture):
        for area in areas(H, W):
            picture = picture.at[area].set(jnp.zeros((), picture.dtype))
        return picture

    def observe(world, state):
        return fenced(world.gate, blackened, bare.observe(world, state))

    def paint(world, state, height, width):
        picture = bare.paint(world, state, height, width).copy()
        for area in areas(height, width):
            picture[area] = 0
        return picture

    def background(world, state):
        assert bare.background is not None
        return blackened(bare.background(world, state))

    return bare._replace(
        observe=observe,
        paint=paint,
        background=background if env.background else None,
    )


# --- color --------------------------------------------------------------------------


def color(env: Environment, channels: bool = False, delta: float = 0.2) -> Environment:
    """Shifts all colours by amounts drawn at reset, the background apart from the rest.

    For worlds without a palette of their own: what stands in front of the background is
    shifted as one. A world without a background is shifted as a whole.

    Args:
      env: the world.
      channels: whether red, green and blue are shifted apart; else by one amount.
      delta: bound of the amounts, uniform in [-delta, delta] of full scale.

    Raises:
      ValueError: the picture has neither 1 nor 3 channels, or delta is not in (0, 1].
    """
    C = _channels(env, "color")
    if not 0 < delta <= 1:
        raise ValueError(f"delta is {delta}; it must be greater than 0 and at most 1")

    def draw(key):
        amounts = jax.random.uniform(
            key, (2, 3 if channels else 1), minval=-255 * delta, maxval=255 * delta
        )
        return jnp.broadcast_to(amounts, (2, 3))

    worn = _wearing(_fencing(env), "color", draw)
    mask = _replaceable(worn)

    def shifted(xp, picture, shift, mask):
        """`shift` is f32[2, C], of the background and of the rest."""
        behind, before = xp.round(shift).astype("int16")[:, None, None]
        moved = picture.astype("int16") + xp.where(mask, behind, before)
        return xp.clip(moved, 0, 255).astype("uint8")

    def observe(world, state):
        # A grey picture is the luma of the colours, and so is its shift.
        shift = state.kept if C == 3 else state.kept @ LUMA[:, None]
        parts = worn.observe(world, state), shift, mask(world, state)
        return fenced(world.gate, functools.partial(shifted, jnp), *parts)

    on_host = jax.jit(mask)

    def paint(world, state, height, width):
        picture = worn.paint(world, state, height, width)
        large = _enlarged(on_host(world, state), height, width)
        return shifted(np, picture, np.asarray(state.kept), large)

    return worn._replace(observe=observe, paint=paint)


# --- noise --------------------------------------------------------------------------


def noise(env: Environment, alpha: float = 1.0) -> Environment:
    """Shows uniform RGB noise in the background, another at every step.

    A frame is a hash of a seed, drawn at reset, and of the number of steps. Paintings
    at other sizes keep the agent's grid.

    Args:
      env: the world.
      alpha: share of the noise in what it covers: the background, or the whole picture
        where the world cannot tell.

    Raises:
      ValueError: alpha is not in (0, 1], or is 1 without a background; or the picture
        has neither 1 nor 3 channels.
    """
    H, W, _ = env.spec.image.shape

    def picture(world, state):
        return backdrops.noise_frame(state.kept, state.steps, H, W)

    def painting(world, state, height, width):
        cells = picture(world, state)
        rows = np.arange(height) * H // height
        return cells[rows[:, None], np.arange(width) * W // width]

    return _covered(env, "noise", jax.random.bits, picture, painting, alpha)


# --- video --------------------------------------------------------------------------


def video(
    env: Environment, file: str | Path | None = None, alpha: float = 1.0
) -> Environment:
    """Shows a moving picture in the background: drifting waves of colour, or a file.

    The waves are another at every episode. A file's frames follow each other step by
    step, to and fro, from a place that is drawn at reset.

    Args:
      env: the world.
      file: a video that OpenCV reads; None for the waves. The first `backdrops.FRAMES`
        are held in `world`, in the agent's size, and enlarged in paintings.
      alpha: as of `noise`.

    Raises:
      ValueError: as `noise`; or the file cannot be read.
    """
    H, W, _ = env.spec.image.shape
    if file is None:
        rate = env.spec.fps / env.spec.action_repeat

        def draw(key):
            return backdrops.draw_waves(key, rate)

        def waves(world, state, height=H, width=W):
            return backdrops.wave_frame(state.kept, state.steps, height, width)

        return _covered(env, "video", draw, waves, waves, alpha)

    frames = backdrops.read_video(str(file), H, W)
    last = len(frames) - 1

    def frame(world, state):
        place = (state.kept + state.steps) % _cycle(last)
        return world.frames[last - abs(last - place)]

    def painted_frame(world, state, height, width):
        small = np.asarray(frame(world, state))
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)

    def start(key):
        return jax.random.randint(key, (), 0, _cycle(last))

    screen = jnp.asarray(frames)
    return _covered(env, "video", start, frame, painted_frame, alpha, screen)


def _cycle(last: int) -> int:
    """Steps after which frames 0 ... last, played to and fro, come again."""
    return max(2 * last, 1)


# --- what they share ----------------------------------------------------------------


def _wearing(
    env: Environment, name: str, draw: Callable[[jax.Array], Any]
) -> Environment:
    """The same world, which also keeps what is drawn for an episode, and counts."""

    def reset(world, episode, key):
        own = jax.random.fold_in(jax.random.fold_in(key, _STREAM), _STREAMS[name])
        return _Worn(env.reset(world, episode, key), draw(own), jnp.int32(0))

    def step(world, state, action, key):
        inner, outcome = env.step(world, state.inner, action, key)
        return state._replace(inner=inner, steps=state.steps + 1), outcome

    return on_inner(env)._replace(reset=reset, step=step)


class _Fenced(NamedTuple):
    """Constant data of a distracted world.

    Attributes:
      inner: the world's own.
      frames: u8[N, H, W, 3] of a video file, or ().
      gate: bool[], see `fenced`: a policy reads each pixel of what it sees often.
    """

    inner: World
    frames: Any
    gate: ArrayLike


def _fencing(env: Environment, frames: Any = ()) -> Environment:
    """The same world with constant data of ours beside its own."""

    def inner(function):
        return lambda world, *rest: function(world.inner, *rest)

    return env._replace(
        world=_Fenced(env.world, frames, jnp.asarray(gate())),
        reset=inner(env.reset),
        step=inner(env.step),
        observe=inner(env.observe),
        paint=inner(env.paint),
        background=inner(env.background) if env.background else None,
    )


def _covered(
    env: Environment,
    name: str,
    draw: Callable[[jax.Array], Any],
    picture: Callable[[World, State], ArrayLike],
    painting: Callable[[World, State, int, int], ArrayLike],
    alpha: float,
    frames: Any = (),
) -> Environment:
    """A world whose background shows another picture.

    Args:
      env: the world.
      name: of the distraction.
      draw: key -> what it keeps for an episode.
      picture: (`_Fenced` world, `_Worn` state) -> u8[H, W, 3].
      painting: (world, state, height, width) -> u8[height, width, 3].
      alpha: share of that picture.
      frames: that the world holds for it.
    """
    C = _channels(env, name)
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be greater than 0 and at most 1")
    if env.background is None and alpha == 1:
        raise ValueError(
            f"this world has no background, so that {name} with an alpha of 1 would "
            "hide all of it; choose an alpha below 1"
        )
    worn = _wearing(_fencing(env, frames), name, draw)
    mask = _replaceable(worn)

    def compose(seen, shown, mask):
        shown = shown if C == 3 else luma(shown)
        return jnp.where(mask, _mixed(seen, shown, alpha), seen)

    def observe(world, state):
        seen, shown = worn.observe(world, state), picture(world, state)
        return fenced(world.gate, compose, seen, shown, mask(world, state))

    on_host = jax.jit(mask)

    def paint(world, state, height, width):
        shown = np.asarray(painting(world, state, height, width))
        seen = worn.paint(world, state, height, width)
        large = _enlarged(on_host(world, state), height, width)
        return np.where(large, _mixed(seen, shown, alpha), seen)

    return worn._replace(observe=observe, paint=paint)


def _mixed(seen: Any, shown: Any, alpha: float) -> Any:
    """u8, `seen` with the share `alpha` of `shown` in it, counted in 256ths."""
    share = round(256 * alpha)
    both = seen.astype("uint16") * (256 - share) + shown.astype("uint16") * share
    return (both + 128 >> 8).astype("uint8")


def _replaceable(env: Environment) -> Callable[[World, State], jax.Array]:
    """(world, state) -> bool[H, W, 1], the background, or all where there is none."""
    background = env.background
    if background is None:
        return lambda world, state: jnp.ones((*env.spec.image.shape[:2], 1), bool)
    return lambda world, state: background(world, state)[..., None]


def _enlarged(mask: ArrayLike, height: int, width: int) -> np.ndarray:
    """bool[height, width, 1], the same mask at another size, its edges smoothed."""
    shares = np.asarray(mask, np.float32)[..., 0]
    large = cv2.resize(shares, (width, height), interpolation=cv2.INTER_LINEAR)
    return large[..., None] > 0.5


def _channels(env: Environment, name: str) -> int:
    C = env.spec.image.shape[-1]
    if C not in (1, 3):
        raise ValueError(
            f"{name} needs a picture of 1 or 3 channels; this one has {C}; put "
            "distractions on before frame_stack"
        )
    return C
