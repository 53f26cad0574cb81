"""Proximal policy optimisation, arXiv 1707.06347: a policy gradient in few frames.

An iteration plays every world for some steps and then improves the policy on what it
has seen, in several epochs of minibatches: one compiled program, on as many devices as
the worlds are split over. Simulators on the host are played by `host_rollout`; what
improves the policy is the same. With one epoch, one minibatch and a wide clip it is
A2C.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from agents import host_rollout, minibatches
from agents import keys as names
from agents.core import Carry, Learner, Params, Policy
from agents.placing import put, whole
from agents.ppo_settings import PPOConfig, check
from agents.ppo_update import AXIS, Learned, Update, updating, world_numbers
from agents.rollout import Games, Trajectory, episode_keys, unroll
from envs.core import HostVectorEnv, VectorEnv
from iap import Attention


class Playing(NamedTuple):
    """Where the worlds stand; split over the devices.

    Attributes:
      games: states, memories, what is over, [B].
      total: f32[B], rewards of the episodes under way.
    """

    games: Games
    total: jax.Array


class PPOState(NamedTuple):
    """All that a run remembers between iterations.

    Attributes:
      learned: what learning has come to.
      playing: `Playing`; () where simulators on the host begin anew each time.
    """

    learned: Learned
    playing: Any


def make(
    config: PPOConfig,
    policy: Policy,
    env: VectorEnv | HostVectorEnv,
    levels: int,
    devices: Sequence[Any],
) -> Learner:
    """PPO on a policy with a distribution and a value.

    Args:
      config: its settings.
      policy: what is improved (`make_actor_critic`).
      env: `config.worlds` worlds; or simulators on the host, any number of them, which
        play as many streams of episodes.
      levels: how many levels the world's pool holds.
      devices: worlds are split evenly over as many of them as their number and that of
        the minibatches allow.

    Returns:
      A learner whose metrics are those of `ppo_update.Notes`, means over the
      iteration's gradient steps; return_mean and return_best of the episodes that ended
      last; episodes that ended in this iteration, decisions and frames;
      explained_variance of the values before the update; attention_entropy in nats;
      learning_rate; the totals updates and skipped; skipped_in_a_row, and failed, 1
      where that has reached `config.skips`.

    Raises:
      ValueError: settings that do not go together, or with the world or the policy.
    """
    check(config, policy, env, devices)
    mesh = _mesh(config, policy, devices)
    everywhere = NamedSharding(mesh, PartitionSpec())
    update_ = updating(config, policy, mesh.devices.flat[0].platform == "cpu")
    if isinstance(env, HostVectorEnv):
        first = tuple
        iteration = _host_iteration(config, policy, env, update_, mesh)
    else:
        first = partial(_first, policy, env)
        iteration = _iteration(config, policy, env, levels, update_, mesh)

    @jax.jit
    def init(key: jax.Array) -> PPOState:
        return PPOState(update_.init(policy.init(key)), first())

    def update(state: PPOState, world, key):
        learned = put(state.learned, everywhere)
        learned, playing, metrics = iteration(learned, state.playing, world, key)
        return PPOState(learned, playing), metrics

    return Learner(
        init=init,
        update=update,
        acting=lambda state: whole(state.learned.trained.params),
        place=lambda world: put(world, everywhere),
    )


def _first(policy: Policy, env: VectorEnv) -> Playing:
    """Worlds whose first episodes have yet to begin."""
    B = env.size
    keys = jax.random.split(jax.random.key(0), B)
    shapes = jax.eval_shape(env.reset, env.world, jnp.zeros(B, jnp.int32), keys)
    states = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    carry = _everyone(policy.start(), B)
    games = Games(states, carry, jnp.ones(B, bool), jnp.zeros(B, jnp.int32))
    return Playing(games, jnp.zeros(B))


def _everyone(carry: Carry, B: int) -> Carry:
    """The same memory for B worlds."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape)), carry)


def _iteration(
    config: PPOConfig,
    policy: Policy,
    env: VectorEnv,
    levels: int,
    update: Update,
    mesh: Mesh,
):
    """(learned, playing, world, key) -> (learned, playing, metrics)."""
    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    shared, divided = (NamedSharding(mesh, spec) for spec in (everywhere, split))

    def on_device(learned: Learned, playing: Playing, world, key):
        numbers = world_numbers(playing.total.shape[0])
        keys = jax.vmap(names.at, (None, 0))(names.stream(key, "episodes"), numbers)
        act = jax.vmap(partial(_act, policy, learned.trained.params))
        games, trajectory = unroll(
            *(env, world, act, policy.start()),
            *(playing.games, keys, levels, config.steps, config.patience or None),
        )
        learned, total, metrics = update.learn(
            learned, playing.games.carry, playing.total, trajectory, key
        )
        return learned, Playing(games, total), metrics

    program = jax.jit(
        jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(everywhere, split, everywhere, everywhere),
            out_specs=(everywhere, split, everywhere),
            check_vma=False,
        )
    )

    def iteration(learned: Learned, playing: Playing, world, key):
        if not shared.is_fully_addressable:
            key = put(key, shared)
        return program(learned, put(playing, divided), world, key)

    return iteration


def _host_iteration(
    config: PPOConfig, policy: Policy, env: HostVectorEnv, update: Update, mesh: Mesh
):
    """As `_iteration`, of simulators; their `world` are the training seeds."""
    everywhere, columns = PartitionSpec(), PartitionSpec(None, AXIS)
    divided, home = NamedSharding(mesh, columns), mesh.devices.flat[0]
    draw = host_rollout.drawing(partial(_act, policy))

    def on_device(learned: Learned, trajectory: Trajectory, key):
        B = trajectory.reward.shape[1]
        carry = _everyone(policy.start(), B)
        learned, _, metrics = update.learn(
            learned, carry, jnp.zeros(B), trajectory, key
        )
        return learned, metrics

    program = jax.jit(
        jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(everywhere, columns, everywhere),
            out_specs=everywhere,
            check_vma=False,
        )
    )

    def iteration(learned: Learned, playing: tuple[()], world, key):
        trajectory = host_rollout.unroll(
            env,
            draw,
            policy.start(),
            jax.device_put(learned.trained.params, home),
            np.asarray(world).tolist(),
            episode_keys(names.stream(key, "episodes"), config.worlds),
            config.steps,
            config.patience or None,
        )
        learned, metrics = program(learned, put(trajectory, divided), key)
        return learned, playing, metrics

    return iteration


def _act(policy: Policy, params: Params, carry: Carry, observation: Any, key):
    carry, decision = policy.act(params, carry, observation, key)
    # All that is kept of the attention: it may be larger than the picture.
    return carry, decision._replace(attention=_entropy(decision.attention))


def _entropy(attention: Attention) -> jax.Array:
    """Of the distribution of attention over the patches, in nats: at most log L."""
    scores = jnp.maximum(attention.scores, 0)  # some kernels estimate less than 0
    share = scores / jnp.sum(scores)
    return jnp.sum(jax.scipy.special.entr(share))


def _mesh(config: PPOConfig, policy: Policy, devices: Sequence[Any]) -> Mesh:
    """As many devices as have equally many worlds, and whole groups of them."""
    group = config.minibatches if minibatches.recurrent(policy) else 1
    count = max(
        n for n in range(1, len(devices) + 1) if config.worlds % (n * group) == 0
    )
    if count < len(devices) and len({d.process_index for d in devices}) > 1:
        # One would be left without a part in the program.
        raise ValueError(
            f"agent.worlds={config.worlds} cannot be split over {len(devices)} devices "
            f"of several processes; choose a multiple of {len(devices) * group}"
        )
    return Mesh(np.asarray(devices[:count]), (AXIS,))
