"""Random keys by name: root -> stream -> iteration -> member, world -> step.

Every random draw of a run is a function of the run's seed and of the names on the way
to it. No key is stored: a resumed run and a re-filmed episode derive the same ones, and
neither chunking nor sharding can change them.
"""

import jax

STREAMS = {
    "init": 0,  # the first parameters
    "train": 1,  # iterations of learning
    "evaluate": 2,  # episodes on the validation and test levels
    "ask": 3,  # a strategy's draw of its population
    "tell": 4,  # a strategy's update
    "levels": 5,  # which levels an iteration is played on
    "episodes": 6,  # the randomness inside those episodes
    "reset": 7,  # the start of one episode
    "world": 8,  # the steps of one episode, in the world
    "policy": 9,  # the steps of one episode, in the policy
    "patches": 10,  # which patches a policy attends to, where it draws them
    "action": 11,  # which action it draws
    "shuffle": 12,  # how experience is split into minibatches
}
"""The one table of stream names. Numbers are never reused: they are the seeds of past
results."""


def stream(key: jax.Array, name: str) -> jax.Array:
    """The key of a named stream below `key`; raises KeyError for an unknown name."""
    return jax.random.fold_in(key, STREAMS[name])


def at(key: jax.Array, index: jax.Array | int) -> jax.Array:
    """The key of one iteration, member, world or step below `key`."""
    return jax.random.fold_in(key, index)
