"""Environment -> Environment: the usual wrappers, as functions of pure functions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Environment

LUMA = np.array([0.299, 0.587, 0.114], "f4")
"""Shares of red, green and blue in luma, ITU-R BT.601."""


def action_repeat(env: Environment, repeat: int) -> Environment:
    """Plays every action for `repeat` game frames and sums their rewards.

    What follows an episode's end inside a decision is not played: the state stays, no
    reward counts. `metrics["frames"]` says how many frames were played, i32[].

    Raises:
      ValueError: `repeat` is less than 1.
    """
    if repeat < 1:
        raise ValueError(f"action_repeat is {repeat}; it must be at least 1")
    if repeat == 1:
        return env

    def step(world, state, action, key):
        def frame(carry, index):
            state, last, reward, frames = carry
            moved, outcome = env.step(
                world, state, action, jax.random.fold_in(key, index)
            )
            over = last.terminated | last.truncated
            keep = lambda old, new: jnp.where(over, old, new)  # noqa: E731
            state = jax.tree.map(keep, state, moved)
            reward = reward + jnp.where(over, 0.0, outcome.reward)
            outcome = jax.tree.map(keep, last, outcome)
            return (state, outcome, reward, frames + jnp.where(over, 0, 1)), None

        state, first = env.step(world, state, action, jax.random.fold_in(key, 0))
        carry = (state, first, first.reward, jnp.int32(1))
        (state, last, reward, frames), _ = jax.lax.scan(
            frame, carry, jnp.arange(1, repeat)
        )
        metrics = {**last.metrics, "frames": frames}
        return state, last._replace(reward=reward, metrics=metrics)

    spec = env.spec._replace(
        max_steps=-(-env.spec.max_steps // repeat),
        action_repeat=env.spec.action_repeat * repeat,
    )
    return env._replace(spec=spec, step=step)


class _Timed(NamedTuple):
    inner: Any
    steps: jax.Array  # i32[]


def time_limit(env: Environment, max_steps: int) -> Environment:
    """Truncates an episode after `max_steps` steps.

    Raises:
      ValueError: `max_steps` is less than 1.
    """
    if max_steps < 1:
        raise ValueError(f"time_limit is {max_steps}; it must be at least 1 step")

    def reset(world, episode, key):
        return _Timed(env.reset(world, episode, key), jnp.int32(0))

    def step(world, state, action, key):
        inner, outcome = env.step(world, state.inner, action, key)
        steps = state.steps + 1
        over = (steps >= max_steps) & ~outcome.terminated
        return _Timed(inner, steps), outcome._replace(
            truncated=outcome.truncated | over
        )

    return on_inner(env)._replace(
        spec=env.spec._replace(max_steps=min(max_steps, env.spec.max_steps)),
        reset=reset,
        step=step,
    )


class _Stacked(NamedTuple):
    inner: Any
    frames: jax.Array  # u8[H, W, C * count], oldest first


def frame_stack(env: Environment, count: int) -> Environment:
    """Observes the last `count` pictures, oldest first along the channels.

    The outermost transform, and the one whose step draws: a picture of the past cannot
    be drawn from the present state. The first picture fills the stack.

    Raises:
      ValueError: `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"frame_stack is {count}; it must be at least 1")
    if count == 1:
        return env
    H, W, C = env.spec.image.shape

    def reset(world, episode, key):
        inner = env.reset(world, episode, key)
        return _Stacked(inner, jnp.tile(env.observe(world, inner), (1, 1, count)))

    def step(world, state, action, key):
        inner, outcome = env.step(world, state.inner, action, key)
        newest = env.observe(world, inner)
        frames = jnp.concatenate([state.frames[..., C:], newest], axis=-1)
        return _Stacked(inner, frames), outcome

    return on_inner(env)._replace(
        spec=_observing(env, (H, W, C * count)),
        reset=reset,
        step=step,
        observe=lambda world, state: state.frames,
    )


def grayscale(env: Environment) -> Environment:
    """Observes luma, one channel.

    Raises:
      ValueError: the world's picture does not have three channels.
    """
    H, W, C = env.spec.image.shape
    if C != 3:
        raise ValueError(f"grayscale needs 3 channels; this picture has {C}")

    def observe(world, state):
        return luma(env.observe(world, state))

    return env._replace(spec=_observing(env, (H, W, 1)), observe=observe)


def luma(rgb: jax.Array) -> jax.Array:
    """u8[..., 1] from u8[..., 3]: the grey of a colour, rounded."""
    r, g, b = jnp.moveaxis(rgb.astype(jnp.float32), -1, 0)
    shade = LUMA[0] * r + LUMA[1] * g + LUMA[2] * b
    return jnp.round(shade).astype(jnp.uint8)[..., None]


def resize(env: Environment, height: int, width: int) -> Environment:
    """Observes the picture at another size, antialiased and linear (`jax.image`).

    Raises:
      ValueError: `height` or `width` is less than 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"resize is {height}x{width}; both must be at least 1 pixel")
    H, W, C = env.spec.image.shape
    if (height, width) == (H, W):
        return env

    def observe(world, state):
        picture = env.observe(world, state).astype(jnp.float32)
        picture = jax.image.resize(picture, (height, width, C), "linear")
        return jnp.clip(jnp.round(picture), 0, 255).astype(jnp.uint8)

    def background(world, state):
        assert env.background is not None
        mask = env.background(world, state)
        return jax.image.resize(mask, (height, width), "nearest")

    return env._replace(
        spec=_observing(env, (height, width, C)),
        observe=observe,
        background=background if env.background else None,
    )


def _observing(env: Environment, shape: tuple[int, int, int]):
    box = env.spec.image
    return env.spec._replace(observation=box._replace(shape=shape))


def on_inner(env: Environment) -> Environment:
    """The same world with its views taken from `state.inner`.

    For transforms whose state holds the world's own and something more.
    """

    def inner(view):
        return lambda world, state, *rest: view(world, state.inner, *rest)

    return env._replace(
        observe=inner(env.observe),
        paint=inner(env.paint),
        background=inner(env.background) if env.background else None,
    )
