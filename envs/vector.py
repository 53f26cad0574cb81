"""One world, many times: `vectorise`."""

import jax
import jax.numpy as jnp

from envs.core import LAX, Environment, VectorEnv


def vectorise(env: Environment, size: int) -> VectorEnv:
    """B = `size` copies of a JAX world in lockstep, sharing its constant data.

    Raises:
      ValueError: `size` is less than 1.
    """
    if size < 1:
        raise ValueError(f"the number of worlds is {size}; it must be at least 1")
    reset = jax.vmap(env.reset, (None, 0, 0))

    def restart(world, states, done, episodes, keys):
        def pick(new, old):
            mask = done.reshape(done.shape + (1,) * (old.ndim - 1))
            return jnp.where(mask, new, old)

        def some():
            return jax.tree.map(pick, reset(world, episodes, keys), states)

        # Episodes rarely end: most steps of an unroll need no new world at all.
        return jax.lax.cond(done.any(), some, lambda: states)

    return VectorEnv(
        spec=env.spec,
        world=env.world,
        size=size,
        loop=LAX,
        reset=reset,
        step=jax.vmap(env.step, (None, 0, 0, 0)),
        observe=jax.vmap(env.observe, (None, 0)),
        restart=restart,
    )
