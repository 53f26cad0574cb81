"""Worlds whose behaviour is known in closed form."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Box, Discrete, Environment, Outcome, Spec

SIZE = 12


class Dot(NamedTuple):
    place: jax.Array  # f32[2], row and column in pixels
    step: jax.Array  # i32[]


def dot_world(max_steps: int = 20, noise: float = 0.1) -> Environment:
    """A bright dot that the action pushes about; reward is its nearness to the middle.

    `episode` chooses the start, the reset key a small displacement, and every step's
    key a push: a rollout comes out again only with the same keys. The world ends when
    the dot leaves the picture.
    """
    starts = np.linspace(3.0, 8.0, 6, dtype=np.float32)

    def reset(world, episode, key):
        start = jnp.stack([world[episode % 6], world[(episode + 2) % 6]])
        return Dot(start + noise * jax.random.normal(key, (2,)), jnp.int32(0))

    def step(world, state, action, key):
        push = noise * jax.random.normal(key, (2,))
        place = state.place + 0.5 * action + push
        steps = state.step + 1
        gone = jnp.any((place < 0) | (place > SIZE - 1))
        distance = jnp.max(jnp.abs(place - (SIZE - 1) / 2))
        outcome = Outcome(
            reward=1 - distance / SIZE,
            terminated=gone,
            truncated=(steps >= max_steps) & ~gone,
            metrics={},
        )
        return Dot(place, steps), outcome

    def observe(world, state):
        axis = np.arange(SIZE, dtype=np.float32)
        rows, columns = (jnp.exp(-((axis - p) ** 2)) for p in state.place)
        light = jnp.round(235 * rows[:, None] * columns[None, :]).astype(jnp.uint8)
        return jnp.stack([light + 20, light + 10, light], axis=-1)

    def paint(world, state, height, width):
        scale = np.array([height, width]) / SIZE
        row, column = (np.asarray(state.place) + 0.5) * scale
        image = np.full((height, width, 3), (20, 10, 0), np.uint8)
        centre = (round(float(column) * 16), round(float(row) * 16))
        radius = round(float(scale.min()) * 16)
        cv2.circle(image, centre, radius, (255, 245, 235), -1, cv2.LINE_AA, shift=4)
        return image

    spec = Spec(
        observation=Box((SIZE, SIZE, 3), (0,), (255,), "uint8"),
        action=Box((2,), (-1.0,), (1.0,)),
        max_steps=max_steps,
        fps=10,
    )
    return Environment(spec, jnp.asarray(starts), reset, step, observe, paint)


def far(world, state):
    """bool[SIZE, SIZE], what is more than three rows or columns away from the dot.

    A `background` for `dot_world`, which has none.
    """
    axis = np.arange(SIZE, dtype=np.float32)
    rows, columns = (jnp.abs(axis - p) > 3 for p in state.place)
    return rows[:, None] | columns[None, :]


# --- worlds whose values and best actions are known ----------------------------------


TWO = Discrete(2)


class Signal(NamedTuple):
    cue: jax.Array  # i32[], 0 or 1, drawn at reset
    step: jax.Array  # i32[]


def signal_world(
    reward: Callable[[jax.Array, jax.Array, jax.Array], jax.Array | float],
    show: Callable[[jax.Array, jax.Array], jax.Array | int] = lambda cue, step: 0,
    length: int = 1,
    clock: bool = False,
    action: Box | Discrete = TWO,
) -> Environment:
    """A picture of one brightness, 0, 1 or 2; an episode of `length` steps.

    `reward` is told cue, step and action, `show` cue and step. The world ends its
    episodes, or where `clock` is set the clock does.
    """

    def reset(world, episode, key):
        cue = jax.random.bernoulli(key).astype(jnp.int32)
        return Signal(cue, jnp.int32(0))

    def step(world, state, action, key):
        earned = jnp.asarray(reward(*state, action), jnp.float32)
        steps = state.step + 1
        over = steps >= length
        no = jnp.zeros_like(over)
        outcome = Outcome(earned, no if clock else over, over if clock else no, {})
        return state._replace(step=steps), outcome

    def observe(world, state):
        light = jnp.asarray(127 * show(*state), jnp.uint8)
        return jnp.broadcast_to(light, (4, 4, 3))

    def paint(world, state, height, width):
        light = np.asarray(observe(world, state))[0, 0]
        return np.broadcast_to(light, (height, width, 3)).copy()

    spec = Spec(
        observation=Box((4, 4, 3), (0,), (255,), "uint8"),
        action=action,
        max_steps=length if clock else 64,
        fps=10,
    )
    return Environment(spec, (), reset, step, observe, paint)


def constant_reward() -> Environment:
    """One step, reward 1: the value is 1."""
    return signal_world(lambda cue, step, action: 1.0)


def seen_reward() -> Environment:
    """One step, reward -1 in the dark and 1 in the light: so are the values."""
    return signal_world(
        lambda cue, step, action: 2 * cue - 1, lambda cue, step: 2 * cue
    )


def delayed_reward() -> Environment:
    """Two steps, dark and light; reward 1 at the end: values discount and 1."""
    return signal_world(
        lambda cue, step, action: step, lambda cue, step: 2 * step, length=2
    )


def endless_reward() -> Environment:
    """Reward 1 a step, cut off by the clock: the value is 1 / (1 - discount)."""
    return signal_world(lambda cue, step, action: 1.0, length=8, clock=True)


def acted_reward() -> Environment:
    """One step, reward 1 for action 1 and -1 for action 0."""
    return signal_world(lambda cue, step, action: 2 * action - 1)


def steered_reward() -> Environment:
    """One step, reward 1 less the distance of two strengths in [-1, 1] to 0.5, -0.5."""
    goal = np.array([0.5, -0.5], np.float32)
    return signal_world(
        lambda cue, step, action: 1 - jnp.max(jnp.abs(action - goal)),
        action=Box((2,), (-1.0,), (1.0,)),
    )


def matched_reward() -> Environment:
    """One step, reward 1 if the action is 1 in the light or 0 in the dark, else -1."""
    return signal_world(
        lambda cue, step, action: 1 - 2 * jnp.abs(action - cue),
        lambda cue, step: 2 * cue,
    )


def remembered_reward(length: int = 4) -> Environment:
    """The cue is seen in the first step only; the last action has to match it."""
    return signal_world(
        lambda cue, step, action: jnp.where(
            step == length - 1, 1 - 2 * jnp.abs(action - cue), 0
        ),
        lambda cue, step: jnp.where(step == 0, 2 * cue, 1),
        length=length,
    )
