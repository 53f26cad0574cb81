"""A loop over blocks of rows: memory for one block at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def scan_chunks(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    rows: Any,
    chunk: int,
    *,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`lax.scan` over blocks of `chunk` rows; the last block may be shorter.

    The shorter block is a program of its own, not a padded one: what is summed stays
    exactly what was given.

    Args:
      step: (carry, block of rows) -> (carry, out with as many rows, or None).
      carry: the first carry, a pytree.
      rows: arrays [L, ...], a pytree.
      chunk: rows of a block, at least 1.
      reverse: from the last block to the first.

    Returns:
      The last carry, and the outs put together, [L, ...].

    Raises:
      ValueError: where chunk is below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1 row.")
    length = len(jax.tree.leaves(rows)[0])
    whole = length - length % chunk
    blocks = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), rows)
    rest = jax.tree.map(lambda x: x[whole:], rows)

    outs = []
    if reverse and whole < length:
        carry, out = step(carry, rest)
        outs.append(out)
    if whole:
        carry, out = lax.scan(step, carry, blocks, reverse=reverse)
        outs.insert(0, jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), out))
    if not reverse and whole < length:
        carry, out = step(carry, rest)
        outs.append(out)
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *outs)
