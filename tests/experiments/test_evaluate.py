import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.controllers import ControllerConfig, Core
from agents.policy import make_policy
from agents.rollout import reset_key, step_key
from envs.transforms import action_repeat
from experiments import evaluate
from experiments.evaluate import Evaluation, evaluator, level_key
from iap import EncoderConfig
from tests.experiments.probe_run import ProbeConfig, make_world

KEY = jax.random.key(3)
LEVELS = range(1000, 1005)


def env(levels):
    return action_repeat(make_world(ProbeConfig(), levels), 2)


@pytest.fixture(scope="module")
def policy():
    encoder = EncoderConfig(window=3, stride=3, top_k=3, features=8)
    spec = env([0]).spec
    return make_policy(spec, encoder, ControllerConfig(Core.rnn, 4))


@pytest.fixture(scope="module")
def params(policy):
    return policy.init(jax.random.key(1))


def scores(policy, params, levels, devices=1):
    return evaluator(policy, env, KEY, jax.devices()[:devices])(params, levels)


def played(policy, params, level):
    """One episode, step by step: return and decisions."""
    world = env([level])
    key = level_key(KEY, level)
    state = world.reset(world.world, jnp.int32(0), reset_key(key))
    carry, total, steps, over = policy.start(), 0.0, 0, False
    act, step = jax.jit(policy.act), jax.jit(world.step)
    while not over:
        picture = world.observe(world.world, state)
        carry, decision = act(params, carry, picture, None)
        state, outcome = step(world.world, state, decision.action, step_key(key, steps))
        total += float(outcome.reward)
        steps += 1
        over = bool(outcome.terminated | outcome.truncated)
    return total, steps


def test_each_level_is_played_to_its_end(policy, params):
    result = scores(policy, params, LEVELS)
    expected = [played(policy, params, level) for level in LEVELS]
    # 12 float32 rewards of at most 1: the order of rounding differs by < 12 * 2**-24.
    np.testing.assert_allclose(result.returns, [r for r, _ in expected], atol=1e-5)
    assert result.decisions == sum(steps for _, steps in expected)
    assert result.decisions < result.frames <= 2 * result.decisions
    assert len(set(result.returns.tolist())) == len(LEVELS)


def test_devices_change_rounding_only(policy, params):
    """Levels and devices share the padding out differently; it must not count.

    XLA fuses a program for one device and for two differently, so that sums of at most
    12 float32 rewards below 1 differ by less than 12 * 2**-24 each way.
    """
    one = scores(policy, params, LEVELS, devices=1)
    two = scores(policy, params, LEVELS, devices=2)
    np.testing.assert_allclose(one.returns, two.returns, atol=1e-5)
    assert (one.decisions, one.frames) == (two.decisions, two.frames)


def test_batches_change_rounding_only(policy, params, monkeypatch):
    """Another batch is another program; the tolerance is that of devices above."""
    whole = scores(policy, params, LEVELS)
    monkeypatch.setattr(evaluate, "BATCH", 2)  # the last is half padding
    parts = scores(policy, params, LEVELS)
    np.testing.assert_allclose(whole.returns, parts.returns, atol=1e-5)
    assert (whole.decisions, whole.frames) == (parts.decisions, parts.frames)


def test_a_level_scores_the_same_in_any_set(policy, params):
    several = scores(policy, params, LEVELS)
    alone = scores(policy, params, [1003])
    assert alone.returns[0] == several.returns[3]


def test_mean_and_sd():
    result = Evaluation([1, 2], np.float32([1.0, 4.0]), decisions=2, frames=8)
    assert (result.mean, result.sd) == (2.5, 1.5)
