"""Arrays on the devices of one process, or of several that compute as one.

Several processes run the same program and call the same functions in the same order:
what is marked as collective here waits until all have called it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding


def put(tree: Any, sharding: Sharding) -> Any:
    """Arrays placed as `sharding` says, a pytree.

    Args:
      tree: arrays of this process, the same in every process; or arrays that have been
        placed already.
      sharding: over the devices of all processes, or of this one.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])

    return jax.tree.map(one, tree)


def whole(tree: Any) -> Any:
    """Arrays that this process holds whole, a pytree; the others of its leaves stay.

    Collective where a leaf is divided between processes.
    """

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(one, tree)


def agreed(tree: Any) -> Any:
    """What process 0 holds, on all processes, bit for bit. Collective.

    Processes on different machines may round differently; what must be one is process
    0's. With one process the tree as it is.

    Args:
      tree: arrays of this process, of the same shapes in all of them.
    """
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    hosts = [np.ascontiguousarray(leaf) for leaf in jax.device_get(leaves)]
    sizes = np.cumsum([host.nbytes for host in hosts])
    mine = b"".join(host.tobytes() for host in hosts)
    # As bytes: a sum with the zeros of the others would lose the sign of -0.
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(mine, np.uint8))
    parts = np.split(np.asarray(sent, np.uint8), sizes[:-1])
    received = [
        np.frombuffer(part.tobytes(), host.dtype).reshape(np.shape(leaf))
        for part, host, leaf in zip(parts, hosts, leaves, strict=True)
    ]
    return structure.unflatten(received)
