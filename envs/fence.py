"""`fenced`: keeps XLA from fusing a computation with its neighbours."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike


def gate() -> np.ndarray:
    """bool[], always true; to be an argument of the compiled program, in `world`."""
    return np.array(True)


def fenced(gate: ArrayLike, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, made once and in one piece, whoever reads it how often.

    XLA's CPU backend otherwise computes what leads to an element anew, one by one, for
    every reader of it. A condition on a value that it cannot know stops it, where an
    optimisation barrier does not.

    Args:
      gate: bool[], true, an argument of the compiled program and the same for a batch.
      function: of arrays, returns a pytree of arrays.
      args: its arguments, each of which is made in one piece too.
    """
    result = jax.eval_shape(function, *args)

    def never(*_):
        return jax.tree.map(lambda r: jnp.zeros(r.shape, r.dtype), result)

    return lax.cond(gate, function, never, *args)
