"""What PPO makes of a trajectory: the same wherever it was played.

All of it runs on each device of the axis that the worlds are split over.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from agents import keys as names
from agents import losses, minibatches, moments
from agents.core import Carry, Params, Policy
from agents.minibatches import Batch
from agents.moments import Moments
from agents.optimiser import Optimiser, Trained, adam, falling
from agents.ppo_settings import PPOConfig
from agents.rollout import Trajectory, finished

AXIS = "worlds"


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


class Notes(NamedTuple):
    """What a gradient step reports, f32[] each, means over its minibatch."""

    loss: jax.Array
    policy_loss: jax.Array
    value_loss: jax.Array
    entropy: jax.Array
    kl: jax.Array
    clip_fraction: jax.Array
    gradient_norm: jax.Array


class Update(NamedTuple):
    """How PPO learns.

    Attributes:
      init: params -> Learned, of what has learned nothing.
      learn: (Learned, carry [B], total f32[B], Trajectory [T, B], key) -> (Learned,
        total, metrics), on each device. It is told the memories and the rewards of the
        episodes under way with which its B worlds began the trajectory, and returns the
        rewards of those that are under way at its end.
    """

    init: Callable[[Params], Learned]
    learn: Callable[
        [Learned, Carry, jax.Array, Trajectory, jax.Array],
        tuple[Learned, jax.Array, dict[str, jax.Array]],
    ]


def updating(config: PPOConfig, policy: Policy, in_blocks: bool) -> Update:
    """PPO's update of a policy.

    Args:
      config: its settings.
      policy: what is improved.
      in_blocks: as in `minibatches.split`.
    """
    optimiser = adam(config.gradient_norm)
    improve = _improvement(config, policy, optimiser, in_blocks)

    def init(params: Params) -> Learned:
        none = jnp.float32(jnp.nan)
        trained = optimiser.init(params)
        return Learned(jnp.int32(0), trained, moments.start(), none, none)

    def learn(learned: Learned, carry, total, trajectory: Trajectory, key):
        total, ended = finished(total, trajectory)
        learned, batch, metrics = _prepared(config, learned, trajectory)
        rate = falling(config.learning_rate, config.decay, learned.iterations)
        trained, notes = improve(
            *(learned.trained, batch, carry),
            *(names.stream(key, "shuffle"), world_numbers(total.shape[0]), rate),
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
        return learned, total, metrics

    return Update(init, learn)


def world_numbers(B: int) -> jax.Array:
    """Which of all worlds the B of this device are, i32[B]."""
    return lax.axis_index(AXIS) * B + jnp.arange(B, dtype=jnp.int32)


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
        value=decision.value,
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
