"""The numbers of a policy gradient, for one trajectory; the caller vmaps over worlds.

Everything but `gae` and `explained_variance` works step by step, so that a trajectory's
steps may as well be samples drawn from several.
"""

import jax
import jax.numpy as jnp
from jax import lax


def gae(
    reward: jax.Array,
    value: jax.Array,
    successor: jax.Array,
    ended: jax.Array,
    discount: float,
    trace: float,
) -> jax.Array:
    """Generalised advantage estimates, arXiv 1506.02438, equation 16.

    delta_t = r_t + discount * successor_t - value_t, and an advantage is the sum of the
    deltas from t to its episode's end, each weighted with (discount * trace)^(s - t).

    Args:
      reward: f32[T].
      value: f32[T], of the state in which each step was decided.
      successor: f32[T], of the state that followed: 0 where the world ended the
        episode, its value where only the clock did.
      ended: bool[T], whether the episode ended with the step, either way.
      discount: of a reward one step later.
      trace: lambda; 0 gives one-step advantages, 1 returns less the value.

    Returns:
      f32[T]; with `value` added, the returns that values should predict.
    """
    delta = reward + discount * successor - value

    def back(after, step):
        delta, ended = step
        advantage = delta + jnp.where(ended, 0.0, discount * trace * after)
        return advantage, advantage

    _, advantage = lax.scan(back, jnp.zeros_like(delta[0]), (delta, ended), None, True)
    return advantage


def clipped_surrogate(
    log_ratio: jax.Array, advantage: jax.Array, clip: float
) -> jax.Array:
    """The clipped objective of PPO as a loss, arXiv 1707.06347, equation 7.

    Args:
      log_ratio: f32[T], log-probability now less what it was when the step was decided.
      advantage: f32[T].
      clip: epsilon, how far the ratio may move from 1.

    Returns:
      f32[T], to be averaged and minimised.
    """
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def value_loss(
    value: jax.Array, before: jax.Array, target: jax.Array, clip: float
) -> jax.Array:
    """Half the squared error, optionally clipped as OpenAI's PPO does.

    Args:
      value: f32[T], predicted now.
      before: f32[T], predicted when the step was decided.
      target: f32[T], what it should have been.
      clip: how far a prediction may move from the one before until it pays no more;
        0 does not clip.

    Returns:
      f32[T], to be averaged and minimised.
    """
    error = jnp.square(value - target)
    if clip:
        near = before + jnp.clip(value - before, -clip, clip)
        error = jnp.maximum(error, jnp.square(near - target))
    return 0.5 * error


def approximate_kl(log_ratio: jax.Array) -> jax.Array:
    """What estimates KL(before | now) without bias and is never negative, f32[T].

    With r the ratio of now to before, r - 1 - log r under samples from before: the
    third estimator of Schulman's note "Approximating KL divergence" (2020).
    """
    return jnp.expm1(log_ratio) - log_ratio


def clipped(log_ratio: jax.Array, clip: float) -> jax.Array:
    """Whether a step's ratio lies outside 1 +- clip, bool[T]."""
    return jnp.abs(jnp.expm1(log_ratio)) > clip


def explained_variance(value: jax.Array, target: jax.Array) -> jax.Array:
    """1 - var(target - value) / var(target): 1 predicts all, 0 as well as a constant.

    Args:
      value: f32[T], predictions.
      target: f32[T].

    Returns:
      f32[], 0 where the targets do not vary.
    """
    spread = jnp.var(target)
    share = jnp.var(target - value) / jnp.where(spread > 0, spread, 1.0)
    return jnp.where(spread > 0, 1 - share, 0.0)
