"""`check_env`: the conformance suite that every world of the registry passes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Discrete, Environment
from envs.transforms import luma

CAPTURED_BYTES = 1 << 20
"""Constants beyond this belong in `world`: captured, they would be compiled in."""


def check_env(
    env: Environment, steps: int = 20, painted_difference: float = 16.0
) -> None:
    """Checks a world against the contract of `envs.core`.

    Args:
      env: the world; its level 0 is played.
      steps: how many random actions to play.
      painted_difference: bound of the mean absolute difference between `paint` and
        `observe` at the agent's own size, in grey levels; where the agent sees one
        channel, of the painting's luma; not checked for stacked pictures.

    Raises:
      AssertionError: naming the clause that does not hold.
    """
    key = jax.random.key(0)
    episode = jnp.int32(0)
    state = jax.jit(env.reset)(env.world, episode, key)
    traces = []

    def traced(*arguments):
        traces.append(1)
        return env.step(*arguments)

    step = jax.jit(traced)
    _check_pure(env, episode, key, state)
    _check_picture(env, state, painted_difference)

    shapes = jax.eval_shape(lambda s: s, state)
    last = None
    for index in range(min(steps, env.spec.max_steps)):
        action = _random_action(env, np.random.default_rng(index))
        state, outcome = step(env.world, state, action, jax.random.fold_in(key, index))
        _check_outcome(outcome)
        assert jax.eval_shape(lambda s: s, state) == shapes, (
            "step changed the state's structure, shapes or dtypes"
        )
        last = outcome
        if outcome.terminated or outcome.truncated:
            break
    assert last is not None, "max_steps is 0"
    assert len(traces) == 1, "step was traced more than once"
    _check_picture(env, state, painted_difference)


def _check_pure(env: Environment, episode, key, state) -> None:
    again = jax.jit(env.reset)(env.world, episode, key)
    jax.tree.map(np.testing.assert_array_equal, _data(state), _data(again))
    action = _random_action(env, np.random.default_rng(0))
    for name, function, rest in (
        ("reset", env.reset, (episode, key)),
        ("step", env.step, (state, action, key)),
        ("observe", env.observe, (state,)),
    ):
        jaxpr = jax.make_jaxpr(function)(env.world, *rest)
        captured = sum(np.asarray(c).nbytes for c in jaxpr.consts if _is_array(c))
        assert captured <= CAPTURED_BYTES, (
            f"{name} captures {captured} bytes of constants; pass them in `world`"
        )


def _check_picture(env: Environment, state, painted_difference: float) -> None:
    H, W, C = env.spec.image.shape
    picture = np.asarray(jax.jit(env.observe)(env.world, state))
    assert picture.shape == (H, W, C), f"observed {picture.shape}, not {(H, W, C)}"
    assert picture.dtype == np.uint8, f"observed {picture.dtype}, not uint8"
    host = jax.device_get(state)
    large = env.paint(env.world, host, 2 * H, 3 * W)
    assert large.shape == (2 * H, 3 * W, 3), f"painted {large.shape}"
    assert large.dtype == np.uint8, f"painted {large.dtype}, not uint8"
    if C in (1, 3):
        same = env.paint(env.world, host, H, W)
        same = same if C == 3 else np.asarray(luma(jnp.asarray(same)))
        difference = np.abs(same.astype(np.float64) - picture).mean()
        assert difference <= painted_difference, (
            f"paint and observe differ by {difference:.1f} grey levels"
        )
    if env.background is not None:
        mask = np.asarray(jax.jit(env.background)(env.world, state))
        assert mask.shape == (H, W) and mask.dtype == bool, "background is no mask"


def _check_outcome(outcome) -> None:
    for name, dtype in (
        ("reward", np.float32),
        ("terminated", bool),
        ("truncated", bool),
    ):
        value = np.asarray(getattr(outcome, name))
        assert value.shape == () and value.dtype == dtype, (
            f"{name} is {value.dtype}{value.shape}, not {np.dtype(dtype)}()"
        )
    assert np.isfinite(outcome.reward), "the reward is not finite"


def _random_action(env: Environment, generator: np.random.Generator) -> jax.Array:
    action = env.spec.action
    if isinstance(action, Discrete):
        return jnp.int32(generator.integers(action.n))
    value = generator.uniform(action.low, action.high, action.shape)
    return jnp.asarray(value, action.dtype)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _data(tree: Any) -> Any:
    """Typed keys as plain numbers."""

    def plain(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key_data(leaf)
        return leaf

    return jax.tree.map(plain, tree)
