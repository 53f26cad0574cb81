"""What every form of attention asks of its queries, keys and values."""

import jax
import jax.numpy as jnp


def as_tokens(
    queries: jax.Array, keys: jax.Array, *values: jax.Array
) -> tuple[jax.Array, ...]:
    """Refuse tokens that attention cannot compare; take float16, bfloat16 to float32.

    Sums over many tokens and exponents of many digits need float32.

    Args:
      queries: floating [L, d].
      keys: floating [L, d].
      values: floating [L, n], or nothing.

    Returns:
      The same, f32 or wider.

    Raises:
      ValueError: where there are no tokens, or rank, dtype or length do not fit.
    """
    arrays = (queries, keys, *values)
    for name, array in zip(("queries", "keys", "values"), arrays, strict=False):
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"{name} have shape {array.shape}; expected [L, d] with at least one "
                "token and one number each (map batches and heads with jax.vmap)."
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"{name} have dtype {array.dtype}; expected floating point, as float32."
            )
        if len(array) != len(queries):
            raise ValueError(
                f"{name} are {len(array)} tokens, queries {len(queries)}; attention "
                "within one sequence needs as many of each."
            )
    if queries.shape != keys.shape:
        raise ValueError(
            f"queries {queries.shape} and keys {keys.shape} differ in length d; make "
            "the two equal."
        )
    return tuple(
        x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x for x in arrays
    )
