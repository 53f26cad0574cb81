"""How T steps of B worlds are split into minibatches and evaluated again.

Without a memory a minibatch is some of the steps of every world; with one it is all the
steps of some of the worlds. Both splits are made within small groups of neighbouring
worlds, so that each device finds its share of every minibatch among its own worlds and
the number of devices does not change which samples a minibatch holds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents import keys as names
from agents.core import Carry, Params, Policy

BLOCK = 32
"""The most samples that are seen at once; anything from 4 to 64 was alike."""

FEWEST = 4
"""Where no block of at least so many divides a minibatch, it is not cut."""


class Batch(NamedTuple):
    """Experience as a loss needs it, [T, B] each.

    Attributes:
      observation: u8[T, B, H, W, C].
      first: bool[T, B], an episode begins.
      action: what was done.
      choice: which patches were drawn, or ().
      log_prob: f32[T, B], of both when they were decided.
      value: f32[T, B], what the value head said then.
      advantage: f32[T, B].
      target: f32[T, B], what it should say.
    """

    observation: Any
    first: jax.Array
    action: jax.Array
    choice: Any
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array


class Split(NamedTuple):
    """A way to split experience.

    Attributes:
      order: (key, numbers i32[B] of the worlds, steps T) -> i32[minibatches, ...], one
        epoch's draw; each row is one argument of `take`.
      take: (batch [T, B], carry [B], row) -> (batch, carry) of one minibatch, the only
        copy that is made of its experience.
      judge: (params, batch, carry) -> log_prob, entropy, value of one minibatch, shaped
        as its rewards.
      gradient: (loss, params, batch, carry) -> (gradient, notes) of a loss that is a
        mean over a minibatch, loss(params, batch, carry) -> (f32[], notes f32[]).
    """

    order: Callable[[jax.Array, jax.Array, int], jax.Array]
    take: Callable[[Batch, Carry, jax.Array], tuple[Batch, Carry]]
    judge: Callable[[Params, Batch, Carry], tuple[jax.Array, ...]]
    gradient: Callable[[Callable, Params, Batch, Carry], tuple[Params, Any]]


def split(policy: Policy, minibatches: int, in_blocks: bool = False) -> Split:
    """The split that suits a policy: by worlds if it remembers, else by steps.

    Args:
      policy: what judges the experience.
      minibatches: parts of an epoch.
      in_blocks: whether a gradient is summed over blocks of a minibatch's samples, one
        after another: on a CPU half the work, since a block's pictures and all that is
        made of them stay in the cache. A device that wants much work at once loses. It
        changes rounding only. Of a policy that remembers, what is seen is made in such
        blocks, and made again for their gradient.
    """
    kind = _sequences if recurrent(policy) else _samples
    return kind(policy, minibatches, in_blocks)


def recurrent(policy: Policy) -> bool:
    """Whether a policy has a memory."""
    return bool(jax.tree.leaves(jax.eval_shape(policy.start)))


def _samples(policy: Policy, minibatches: int, in_blocks: bool) -> Split:
    start, see, evaluate = _parts(policy)

    def order(key, numbers, steps):
        def shuffled(number):
            return jax.random.permutation(names.at(key, number), steps)

        each = jax.vmap(shuffled)(numbers).reshape(len(numbers), minibatches, -1)
        return each.transpose(1, 2, 0)

    def take(batch, carry, row):
        worlds = jnp.arange(row.shape[1])[None, :]
        return jax.tree.map(lambda x: x[row, worlds], batch), carry

    def judge(params, batch, carry):
        del carry
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        seen = jax.vmap(partial(see, params))(flat.observation, flat.choice)
        judged = evaluate(params, start(), seen, flat.first, flat.action)
        return jax.tree.map(lambda x: x.reshape(batch.value.shape), judged)

    return Split(order, take, judge, _blockwise if in_blocks else _at_once)


def _sequences(policy: Policy, minibatches: int, in_blocks: bool) -> Split:
    _, see, evaluate = _parts(policy)

    def order(key, numbers, steps):
        del steps

        def shuffled(number):
            return jax.random.permutation(names.at(key, number), minibatches)

        # One world of every group of neighbours goes to each minibatch.
        first = jnp.arange(0, len(numbers), minibatches)
        return (jax.vmap(shuffled)(numbers[first]) + first[:, None]).T

    def take(batch, carry, row):
        return (
            jax.tree.map(lambda x: x[:, row], batch),
            jax.tree.map(lambda x: x[row], carry),
        )

    def judge(params, batch, carry):
        # What is seen does not depend on what is remembered: only the rest waits.
        steps = (batch.observation, batch.choice)
        seen = _seen(partial(see, params), steps, in_blocks)
        each = jax.vmap(partial(evaluate, params), (0, 1, 1, 1), 1)
        return each(carry, seen, batch.first, batch.action)

    return Split(order, take, judge, _at_once)


def _parts(policy: Policy) -> tuple[Callable, Callable, Callable]:
    assert policy.see is not None, "the policy has a distribution"
    assert policy.evaluate is not None, "the policy has a distribution"
    return policy.start, policy.see, policy.evaluate


def _seen(look: Callable, steps: Any, in_blocks: bool) -> Any:
    """look(*one step) of steps [T, B]; in blocks, that are seen anew for a gradient."""
    many = jax.vmap(look)
    if not in_blocks:
        return jax.vmap(many)(*steps)
    T, B = jax.tree.leaves(steps)[0].shape[:2]
    parts = jax.tree.map(lambda x: x.reshape(-1, _block(T * B), *x.shape[2:]), steps)
    again = jax.checkpoint(lambda part: many(*part), prevent_cse=False)
    seen = jax.lax.map(again, parts)
    return jax.tree.map(lambda x: x.reshape(T, B, *x.shape[2:]), seen)


def _block(samples: int) -> int:
    """How many samples a block has."""
    sizes = (n for n in range(FEWEST, BLOCK + 1) if samples % n == 0)
    return max(sizes, default=samples)


def _at_once(loss: Callable, params: Params, batch: Batch, carry: Carry):
    return jax.grad(loss, has_aux=True)(params, batch, carry)


def _blockwise(loss: Callable, params: Params, batch: Batch, carry: Carry):
    """The mean of the gradients of equally large blocks of samples."""
    samples = batch.value.size
    block = _block(samples)

    def add(sums, part):
        return jax.tree.map(jnp.add, sums, _at_once(loss, params, part, carry)), None

    parts = jax.tree.map(lambda x: x.reshape(-1, 1, block, *x.shape[2:]), batch)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(lambda part: _at_once(loss, params, part, carry), first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    sums, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / np.float32(samples // block), sums)
