"""Gradient steps: Adam behind a bound, and no step along what is not finite."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from agents.core import Params


class Trained(NamedTuple):
    """Parameters and what a gradient method remembers of them.

    Attributes:
      params: the policy's.
      memory: optax's state.
      updates: i32[], steps taken.
      skipped: i32[], steps not taken, loss or gradient not being finite.
      in_a_row: i32[], how many of those were the last ones.
    """

    params: Params
    memory: Any
    updates: jax.Array
    skipped: jax.Array
    in_a_row: jax.Array


class Optimiser(NamedTuple):
    """A gradient method.

    Attributes:
      init: params -> Trained.
      step: (Trained, gradient, loss f32[], learning rate f32[]) -> (Trained, the
        gradient's norm f32[]).
    """

    init: Callable[[Params], Trained]
    step: Callable[[Trained, Params, jax.Array, jax.Array], tuple[Trained, jax.Array]]


def falling(start: float, decay: int, iteration: jax.Array) -> jax.Array:
    """A learning rate that falls to 0 in a straight line, f32[].

    Args:
      start: of iteration 0.
      decay: iterations until it is 0; 0 keeps it.
      iteration: i32[], how many are done.
    """
    if not decay:
        return jnp.float32(start)
    return start * jnp.maximum(1 - iteration.astype(jnp.float32) / decay, 0)


def adam(bound: float) -> Optimiser:
    """Adam, arXiv 1412.6980.

    Args:
      bound: longer gradients are cut to this length.
    """
    method = optax.chain(
        optax.clip_by_global_norm(bound), optax.scale_by_adam(eps=1e-5)
    )

    def init(params: Params) -> Trained:
        return Trained(params, method.init(params), *[jnp.int32(0)] * 3)

    def step(trained: Trained, gradient: Params, loss: jax.Array, rate: jax.Array):
        norm = optax.tree.norm(gradient)
        sound = jnp.isfinite(norm) & jnp.isfinite(loss)
        with _lenient():
            change, memory = method.update(gradient, trained.memory, trained.params)
        moved = jax.tree.map(lambda x, by: x - rate * by, trained.params, change)
        params, memory = jax.tree.map(
            lambda new, old: jnp.where(sound, new, old),
            (moved, memory),
            (trained.params, trained.memory),
        )
        stepped = Trained(
            params=params,
            memory=memory,
            updates=trained.updates + jnp.where(sound, 1, 0),
            skipped=trained.skipped + jnp.where(sound, 0, 1),
            in_a_row=jnp.where(sound, 0, trained.in_a_row + 1),
        )
        return stepped, norm

    return Optimiser(init, step)


def _lenient():
    """Optax mixes integers and floats, which this project refuses elsewhere."""
    return jax.numpy_dtype_promotion("standard")
