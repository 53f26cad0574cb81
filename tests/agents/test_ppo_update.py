"""The loss of PPO, term by term, from what a policy says of single decisions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import losses
from agents.controllers import ControllerConfig, Core
from agents.policy import make_actor_critic
from agents.ppo import _entropy
from agents.ppo_settings import PPOConfig
from agents.ppo_update import AXIS, updating
from agents.rollout import Trajectory
from iap import Attention
from tests.agents.quick_ppo import CONTENT
from tests.probes import steered_reward

T, B = 6, 4
SPEC = steered_reward().spec
POLICY = make_actor_critic(SPEC, CONTENT, ControllerConfig(Core.mlp, 8))
SETTINGS = {
    **{"worlds": B, "steps": T, "epochs": 1, "minibatches": 1, "clip": 0.15},
    **{"value_clip": 0.1, "value_weight": 0.7, "entropy_weight": 0.3},
    **{"discount": 0.9, "trace": 0.8},
}


def experience():
    """A trajectory whose decisions were another policy's, and its parameters."""
    params = POLICY.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    shape = (T, B)
    light = rng.integers(0, 255, (*shape, 4, 4, 3)).astype(np.uint8)
    keys = jax.random.split(jax.random.key(1), shape)
    act = jax.vmap(jax.vmap(lambda seen, key: POLICY.act(params, (), seen, key)[1]))
    decision = act(light, keys)
    off = rng.normal(size=(2, *shape)).astype(np.float32)
    terminated = rng.random(shape) < 0.2
    truncated = ~terminated & (rng.random(shape) < 0.2)
    assert terminated.any() and truncated.any()
    return params, Trajectory(
        observation=light,
        first=np.zeros(shape, bool),
        decision=decision._replace(
            log_prob=decision.log_prob + 0.2 * off[0],
            value=decision.value + 0.2 * off[1],
            attention=jnp.ones(shape),
        ),
        reward=rng.normal(size=shape).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        successor=rng.normal(size=shape).astype(np.float32),
        frames=np.ones(shape, np.int32),
    )


def by_hand(params, trajectory, config):
    """Means over decisions taken one by one: what the loss is made of, its gradient.

    Of a learner that has seen nothing: values and returns are in the same unit.
    """
    decision = jax.tree.map(np.asarray, trajectory.decision)
    successor = np.where(trajectory.terminated, 0, trajectory.successor)
    ended = trajectory.terminated | trajectory.truncated
    advantage = np.stack(
        [
            losses.gae(
                *(trajectory.reward[:, b], decision.value[:, b], successor[:, b]),
                *(ended[:, b], config.discount, config.trace),
            )
            for b in range(B)
        ],
        axis=1,
    )
    target = advantage + decision.value
    if config.normalise:
        target = (target - target.mean()) / target.std()
    advantage = (advantage - advantage.mean()) / advantage.std()

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def one(params, observation, action, log_prob, before, advantage, target):
        seen = POLICY.see(params, observation, ())
        single = jax.tree.map(lambda x: x[None], (seen, jnp.array(True), action))
        judged = POLICY.evaluate(params, (), *single)
        now, entropy, value = (x[0] for x in judged)
        ratio = jnp.exp(now - log_prob)
        near = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
        error = (value - target) ** 2
        if config.value_clip:
            moved = jnp.clip(value - before, -config.value_clip, config.value_clip)
            error = jnp.maximum(error, (before + moved - target) ** 2)
        notes = {
            "policy_loss": -jnp.minimum(ratio * advantage, near * advantage),
            "value_loss": error / 2,
            "entropy": entropy,
            "kl": ratio - 1 - (now - log_prob),
            "clip_fraction": jnp.where(near == ratio, 0.0, 1.0),
        }
        loss = (
            notes["policy_loss"]
            + config.value_weight * notes["value_loss"]
            - config.entropy_weight * notes["entropy"]
        )
        return loss, {**notes, "loss": loss}

    each = [
        one(
            params,
            trajectory.observation[t, b],
            *(decision.action[t, b], decision.log_prob[t, b], decision.value[t, b]),
            *(advantage[t, b], target[t, b]),
        )
        for t in range(T)
        for b in range(B)
    ]
    gradient, notes = jax.tree.map(lambda *x: sum(map(np.float64, x)) / len(x), *each)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    return {**notes, "gradient_norm": norm}


@pytest.mark.parametrize(
    "settings",
    [{}, {"value_clip": 0.0}, {"normalise": False}],
    ids=["all", "values not clipped", "values as they are"],
)
def test_a_gradient_step_is_along_the_loss_of_its_decisions(settings):
    config = PPOConfig(**{**SETTINGS, **settings})
    params, trajectory = experience()
    update = updating(config, POLICY, in_blocks=False)

    def learn(trajectory):
        learned, carry = update.init(params), ()
        return update.learn(
            learned, carry, jnp.zeros(B), trajectory, jax.random.key(0)
        )[2]

    one_device = jax.tree.map(lambda x: x[None], trajectory)
    found = jax.jit(jax.vmap(learn, axis_name=AXIS))(one_device)
    expected = by_hand(params, trajectory, config)
    assert 0 < expected["clip_fraction"] < 1
    for name, number in expected.items():
        # Means of 24 float32 terms of size 1.
        np.testing.assert_allclose(
            found[name][0], number, rtol=1e-5, atol=1e-5, err_msg=name
        )


def test_attention_entropy_is_of_the_shares_and_knows_no_negative_ones():
    def entropy(*scores):
        return float(_entropy(Attention(jnp.asarray(scores), (), ())))

    np.testing.assert_allclose(entropy(1.0, 1.0, 1.0, 1.0), np.log(4), rtol=1e-6)
    np.testing.assert_allclose(entropy(3.0, 1.0), 0.5623351, rtol=1e-6)
    assert entropy(0.0, 4.0, 0.0) == 0
    np.testing.assert_allclose(entropy(2.0, -1.0, 2.0), np.log(2), rtol=1e-6)
