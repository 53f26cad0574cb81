"""Worlds whose behaviour is known in closed form."""

from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Box, Environment, Outcome, Spec

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
