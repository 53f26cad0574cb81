"""Proximal policy optimisation, arXiv 1707.06347: a policy gradient in few frames.

An iteration plays every world for some steps and then improves the policy on what it
has seen, in several epochs of minibatches: one compiled program, on as many devices as
the worlds are split over. With one epoch, one minibatch and a wide clip it is A2C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from agents import keys as names
from agents import losses, minibatches, moments
from agents.core import Learner, Params, Policy
from agents.minibatches import Batch
from agents.moments import Moments
from agents.optimiser import Optimiser, Trained, adam, falling
from agents.placing import put, whole
from agents.rollout import Games, Trajectory, finished, unroll
from envs.core import LAX, VectorEnv
from iap import Attention

AXIS = "worlds"


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation.

    Attributes:
      name: "ppo".
      worlds: how many are played side by side.
      steps: decisions in each world, from one update to the next.
      epochs: times that an update goes over them.
      minibatches: parts of an epoch, a gradient step each.
      learning_rate: of Adam.
      decay: iterations over which it falls to 0 in a straight line; 0 keeps it.
      discount: of a reward one decision later.
      trace: lambda of the advantage estimates.
      clip: how far a decision's probability may move from what it was, as a ratio.
      value_clip: the same for values, in standard deviations of the returns; 0 does
        not clip.
      value_weight: of the value loss.
      entropy_weight: of the entropy of actions, which is wanted.
      gradient_norm: longer gradients are cut to this length.
      target_kl: an update stops after the epoch in which the policy has moved this far
        from what it was; 0 never stops it.
      normalise: whether the value head predicts returns by their own mean and standard
        deviation, which are followed.
      patience: in training, an episode is truncated after this many decisions in a row
        without reward; 0 plays to the end.
      skips: after so many gradient steps in a row that were not finite, training stops.
    """

    name: str = "ppo"
    worlds: int = 64
    steps: int = 64
    epochs: int = 4
    minibatches: int = 8
    learning_rate: float = 5e-4
    decay: int = 0
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.0
    value_weight: float = 0.5
    entropy_weight: float = 0.005
    gradient_norm: float = 0.5
    target_kl: float = 0.05
    normalise: bool = True
    patience: int = 10
    skips: int = 100


class Learned(NamedTuple):
    """What learning has come to; the same on every device.

    Attributes:
      iterations: i32[], how many are done.
      trained: the policy's parameters and the optimiser's memory.
      returns: moments of the returns that values predict.
      return_mean, return_best: f32[], of the episodes that ended in the last iteration
        in which any did; NaN before.
    """

    iterations: jax.Array
    trained: Trained
    returns: Moments
    return_mean: jax.Array
    return_best: jax.Array


class Playing(NamedTuple):
    """Where the worlds stand; split over the devices.

    Attributes:
      games: states, memories, what is over, [B].
      total: f32[B], rewards of the episodes under way.
    """

    games: Games
    total: jax.Array


class PPOState(NamedTuple):
    """All that a run remembers between iterations."""

    learned: Learned
    playing: Playing


class Notes(NamedTuple):
    """What a gradient step reports, f32[] each, means over its minibatch."""

    loss: jax.Array
    policy_loss: jax.Array
    value_loss: jax.Array
    entropy: jax.Array
    kl: jax.Array
    clip_fraction: jax.Array
    gradient_norm: jax.Array


def make(
    config: PPOConfig,
    policy: Policy,
    env: VectorEnv,
    levels: int,
    devices: Sequence[Any],
) -> Learner:
    """PPO on a policy with a distribution and a value.

    Args:
      config: its settings.
      policy: what is improved (`make_actor_critic`).
      env: `config.worlds` worlds.
      levels: how many levels the world's pool holds.
      devices: worlds are split evenly over as many of them as their number and that of
        the minibatches allow.

    Returns:
      A learner whose metrics are those of `Notes`, means over the iteration's gradient
      steps; return_mean and return_best of the episodes that ended last; episodes that
      ended in this iteration, decisions and frames; explained_variance of the values
      before the update; attention_entropy in nats; learning_rate; the totals updates
      and skipped; skipped_in_a_row, and failed, 1 where that has reached
      `config.skips`.

    Raises:
      ValueError: settings that do not go together, or with the world or the policy.
    """
    _check(config, policy, env, devices)
    mesh = _mesh(config, policy, devices)
    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    optimiser = adam(config.gradient_norm)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    iteration = jax.jit(
        jax.shard_map(
            _iteration(config, policy, env, levels, optimiser, on_cpu),
            mesh=mesh,
            in_specs=(everywhere, split, everywhere, everywhere),
            out_specs=(everywhere, split, everywhere),
            check_vma=False,
        )
    )
    shared, divided = (NamedSharding(mesh, spec) for spec in (everywhere, split))

    @jax.jit
    def init(key: jax.Array) -> PPOState:
        trained = optimiser.init(policy.init(key))
        none = jnp.float32(jnp.nan)
        learned = Learned(jnp.int32(0), trained, moments.start(), none, none)
        return PPOState(learned, _first(policy, env))

    def update(state: PPOState, world, key):
        learned, playing = put(state.learned, shared), put(state.playing, divided)
        if not shared.is_fully_addressable:
            key = put(key, shared)
        learned, playing, metrics = iteration(learned, playing, world, key)
        return PPOState(learned, playing), metrics

    return Learner(
        init=init,
        update=update,
        acting=lambda state: whole(state.learned.trained.params),
        place=lambda world: put(world, shared),
    )


def _first(policy: Policy, env: VectorEnv) -> Playing:
    """Worlds whose first episodes have yet to begin."""
    B = env.size
    keys = jax.random.split(jax.random.key(0), B)
    shapes = jax.eval_shape(env.reset, env.world, jnp.zeros(B, jnp.int32), keys)
    states = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (B, *x.shape)), policy.start())
    games = Games(states, carry, jnp.ones(B, bool), jnp.zeros(B, jnp.int32))
    return Playing(games, jnp.zeros(B))


def _iteration(
    config: PPOConfig,
    policy: Policy,
    env: VectorEnv,
    levels: int,
    optimiser: Optimiser,
    in_blocks: bool,
):
    """(learned, playing, world, key) -> (learned, playing, metrics), on each device."""
    improve = _improvement(config, policy, optimiser, in_blocks)

    def iteration(learned: Learned, playing: Playing, world, key):
        B = playing.total.shape[0]  # of this device
        numbers = lax.axis_index(AXIS) * B + jnp.arange(B, dtype=jnp.int32)
        keys = jax.vmap(names.at, (None, 0))(names.stream(key, "episodes"), numbers)
        params = learned.trained.params

        def act(carry, observation, key):
            carry, decision = policy.act(params, carry, observation, key)
            # All that is kept of the attention: it may be larger than the picture.
            return carry, decision._replace(attention=_entropy(decision.attention))

        games, trajectory = unroll(
            *(env, world, jax.vmap(act), policy.start()),
            *(playing.games, keys, levels, config.steps, config.patience or None),
        )
        total, ended = finished(playing.total, trajectory)
        learned, batch, metrics = _prepared(config, learned, trajectory)
        rate = falling(config.learning_rate, config.decay, learned.iterations)
        trained, notes = improve(
            *(learned.trained, batch, playing.games.carry),
            *(names.stream(key, "shuffle"), numbers, rate),
        )
        learned = learned._replace(iterations=learned.iterations + 1, trained=trained)
        learned, episodes = _scored(learned, _gathered(ended))
        metrics |= {
            **notes._asdict(),
            "learning_rate": rate,
            "episodes": episodes,
            "return_mean": learned.return_mean,
            "return_best": learned.return_best,
            "decisions": jnp.int32(config.worlds * config.steps),
            "frames": lax.psum(trajectory.frames.sum(), AXIS),
            "attention_entropy": lax.pmean(trajectory.decision.attention.mean(), AXIS),
            "updates": learned.trained.updates,
            "skipped": learned.trained.skipped,
            "skipped_in_a_row": learned.trained.in_a_row,
            "failed": jnp.where(learned.trained.in_a_row >= config.skips, 1, 0),
        }
        return learned, Playing(games, total), metrics

    return iteration


def _prepared(
    config: PPOConfig, learned: Learned, trajectory: Trajectory
) -> tuple[Learned, Batch, dict[str, jax.Array]]:
    """Advantages, normalised over all worlds, and what values should have been."""
    decision = trajectory.decision
    old = learned.returns
    value = moments.restore(old, decision.value)
    successor = moments.restore(old, trajectory.successor)
    # Nothing more is earned: 0 in the unit of rewards, not in that of the value head.
    successor = jnp.where(trajectory.terminated, 0.0, successor)
    ended = trajectory.terminated | trajectory.truncated

    def estimate(reward, value, successor, ended):
        return losses.gae(
            *(reward, value, successor, ended), config.discount, config.trace
        )

    advantage = jax.vmap(estimate, in_axes=1, out_axes=1)(
        trajectory.reward, value, successor, ended
    )
    target = advantage + value
    all_advantages, all_targets = _gathered(advantage), _gathered(target)
    new = moments.seen(old, all_targets) if config.normalise else old
    spread = jnp.std(all_advantages) + 1e-8
    batch = Batch(
        observation=trajectory.observation,
        first=trajectory.first,
        action=decision.action,
        choice=decision.choice,
        log_prob=decision.log_prob,
        value=moments.normalise(new, value),
        advantage=(advantage - jnp.mean(all_advantages)) / spread,
        target=moments.normalise(new, target),
    )
    explained = losses.explained_variance(
        _gathered(value).reshape(-1), all_targets.reshape(-1)
    )
    return learned._replace(returns=new), batch, {"explained_variance": explained}


def _improvement(
    config: PPOConfig, policy: Policy, optimiser: Optimiser, in_blocks: bool
):
    """All the epochs of an iteration.

    (trained, batch, carry, key, numbers, learning rate) -> (trained, Notes).
    """
    split = minibatches.split(policy, config.minibatches, in_blocks)

    def loss(params: Params, batch: Batch, carry: Any) -> tuple[jax.Array, Notes]:
        log_prob, entropy, value = split.judge(params, batch, carry)
        log_ratio = log_prob - batch.log_prob
        of_policy = losses.clipped_surrogate(log_ratio, batch.advantage, config.clip)
        of_value = losses.value_loss(
            value, batch.value, batch.target, config.value_clip
        )
        means = Notes(
            loss=jnp.float32(0),
            policy_loss=jnp.mean(of_policy),
            value_loss=jnp.mean(of_value),
            entropy=jnp.mean(entropy),
            kl=jnp.mean(losses.approximate_kl(log_ratio)),
            clip_fraction=jnp.mean(
                losses.clipped(log_ratio, config.clip), dtype=jnp.float32
            ),
            gradient_norm=jnp.float32(0),
        )
        total = (
            means.policy_loss
            + config.value_weight * means.value_loss
            - config.entropy_weight * means.entropy
        )
        return total, means._replace(loss=total)

    def improve(trained: Trained, batch: Batch, carry, key, numbers, rate):
        def step(trained: Trained, row) -> tuple[Trained, Notes]:
            part, memory = split.take(batch, carry, row)
            gradient, notes = split.gradient(loss, trained.params, part, memory)
            gradient, notes = lax.pmean((gradient, notes), AXIS)
            trained, norm = optimiser.step(trained, gradient, notes.loss, rate)
            return trained, notes._replace(gradient_norm=norm)

        def epoch(progress):
            trained, index, sums, _ = progress
            order = split.order(names.at(key, index), numbers, config.steps)
            trained, notes = lax.scan(step, trained, order)
            means = jax.tree.map(jnp.mean, notes)
            return trained, index + 1, jax.tree.map(jnp.add, sums, means), means.kl

        def unfinished(progress):
            _, index, _, kl = progress
            moved = (kl > config.target_kl) if config.target_kl else False
            return (index < config.epochs) & jnp.logical_not(moved)

        zero = jnp.float32(0)
        start = trained, jnp.int32(0), Notes(*[zero] * len(Notes._fields)), zero
        trained, epochs, sums, _ = lax.while_loop(unfinished, epoch, start)
        return trained, jax.tree.map(lambda x: x / epochs.astype(x.dtype), sums)

    return improve


def _scored(learned: Learned, ended: jax.Array) -> tuple[Learned, jax.Array]:
    """The latest returns, of the episodes in f32[T, B] that are not NaN; their number.

    Where no episode ended, what was known before stays.
    """
    over = ~jnp.isnan(ended)
    count = jnp.sum(over, dtype=jnp.int32)
    known = (learned.return_mean, learned.return_best)
    mean = jnp.sum(ended, where=over) / jnp.maximum(count, 1).astype(jnp.float32)
    best = jnp.max(ended, where=over, initial=-jnp.inf)
    mean, best = (
        jnp.where(count > 0, new, old)
        for new, old in zip((mean, best), known, strict=True)
    )
    return learned._replace(return_mean=mean, return_best=best), count


def _gathered(x: jax.Array) -> jax.Array:
    """[T, B] of all devices."""
    return lax.all_gather(x, AXIS, axis=1, tiled=True)


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


def _check(
    config: PPOConfig, policy: Policy, env: VectorEnv, devices: Sequence[Any]
) -> None:
    whole = ("worlds", "steps", "epochs", "minibatches", "skips")
    bounds = (*((name, 1) for name in whole), ("decay", 0), ("patience", 0))
    for name, least in bounds:
        if (value := getattr(config, name)) < least:
            raise ValueError(f"agent.{name} is {value}; it must be at least {least}")
    for name in ("learning_rate", "clip", "gradient_norm"):
        if not (value := getattr(config, name)) > 0:
            raise ValueError(f"agent.{name} is {value}; it must be greater than 0")
    for name in ("value_clip", "value_weight", "entropy_weight", "target_kl"):
        if not (value := getattr(config, name)) >= 0:
            raise ValueError(f"agent.{name} is {value}; it must be at least 0")
    for name in ("discount", "trace"):
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise ValueError(f"agent.{name} is {value}; it must be between 0 and 1")
    if policy.evaluate is None:
        raise ValueError("agent=ppo needs a policy with a distribution and a value")
    if env.loop is not LAX:
        raise ValueError(
            "agent=ppo needs a world that is written in JAX; for this one choose "
            "agent=es"
        )
    if env.size != config.worlds:
        raise ValueError(f"agent.worlds is {config.worlds}, but there are {env.size}")
    if config.steps > env.spec.max_steps:
        raise ValueError(
            f"agent.steps is {config.steps}, but an episode of this world is over "
            f"after {env.spec.max_steps} decisions; choose "
            f"agent.steps={env.spec.max_steps} or fewer, or a longer env.time_limit"
        )
    name = "worlds" if minibatches.recurrent(policy) else "steps"
    number = getattr(config, name)
    if number % config.minibatches:
        raise ValueError(
            f"agent.minibatches is {config.minibatches}, which does not divide "
            f"agent.{name}={number}; choose a divisor of it"
        )
    if len(devices) > config.worlds:
        raise ValueError(
            f"there are {len(devices)} devices for agent.worlds={config.worlds}; "
            f"choose devices={config.worlds} or fewer, or more worlds"
        )
