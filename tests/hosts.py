"""Worlds of `envs.core.Environment` played as simulators on the host, in this process.

What agents do with a `HostVectorEnv` can be tested without starting one.
"""

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import Environment, HostVectorEnv, Moment


def in_process(env: Environment, repeats: int = 0) -> HostVectorEnv:
    """A world whose episodes come from their seed alone, as `episode` of its reset.

    `repeats` times an episode is broken off in its second step and begun again.
    """
    key = jax.random.key(0)
    reset = jax.jit(
        lambda seed: env.reset(env.world, seed, jax.random.fold_in(key, seed))
    )
    step = jax.jit(lambda state, action: env.step(env.world, state, action, key))
    observe = jax.jit(lambda state: env.observe(env.world, state))

    def seen(state):
        return jax.tree.map(np.asarray, observe(state))

    left = {"repeats": repeats}

    def play_one(index, seed, begin, painted):
        state = reset(jnp.int32(seed))

        def paintings():
            host = jax.device_get(state)
            return [env.paint(env.world, host, *painted)] if painted[0] else []

        episode = begin(index, Moment(seen(state), 0.0, False, False, 0, paintings()))
        try:
            action, steps = next(episode), 0
            while True:
                if steps == 1 and left["repeats"]:
                    left["repeats"] -= 1
                    episode.close()
                    return play_one(index, seed, begin, painted)
                state, outcome = step(state, action)
                steps += 1
                moment = Moment(
                    seen(state),
                    float(outcome.reward),
                    bool(outcome.terminated),
                    bool(outcome.truncated),
                    int(outcome.metrics.get("frames", 1)),
                    paintings(),
                )
                action = episode.send(moment)
        except StopIteration as over:
            return over.value

    def play(seeds, begin, painted):
        return [play_one(i, s, begin, painted) for i, s in enumerate(seeds)]

    return HostVectorEnv(env.spec, 1, play, lambda: None)
