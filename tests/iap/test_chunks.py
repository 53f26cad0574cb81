import jax.numpy as jnp
import numpy as np
import pytest

from iap.chunks import scan_chunks


def step(carry, rows):
    x, y = rows
    return carry + jnp.sum(x), jnp.full(len(x), carry) + y


@pytest.mark.parametrize("chunk", [1, 3, 4, 8, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_a_loop_over_blocks(chunk, reverse):
    x, y = np.arange(8.0, dtype=np.float32), np.arange(8.0, dtype=np.float32)[::-1]
    starts = range(0, 8, chunk)
    carry, expected = 0.0, np.zeros(8)
    for start in reversed(starts) if reverse else starts:
        block = slice(start, start + chunk)
        expected[block] = carry + y[block]
        carry += x[block].sum()
    actual = scan_chunks(
        step, jnp.float32(0), (jnp.asarray(x), jnp.asarray(y)), chunk, reverse=reverse
    )
    np.testing.assert_array_equal(actual[0], carry)
    np.testing.assert_array_equal(actual[1], expected)


@pytest.mark.parametrize("chunk", [0, -1])
def test_refuses_blocks_of_nothing(chunk):
    with pytest.raises(ValueError, match=f"chunk={chunk} must be at least 1 row"):
        scan_chunks(step, 0, (jnp.zeros(3), jnp.zeros(3)), chunk)
