"""Evolution in the worlds whose best actions are known; PPO's turn is in test_ppo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import es, keys
from agents.controllers import ControllerConfig, Core
from agents.policy import make_policy
from envs.vector import vectorise
from iap import EncoderConfig
from tests import probes

CONTENT = EncoderConfig(window=2, stride=2, top_k=2, features=8, content=True)


def evolve(env, generations, core=Core.mlp, std=0.5):
    """Of the last five generations the best and the mean of the members' mean returns
    over 16 episodes, and what the mean policy does."""
    policy = make_policy(env.spec, CONTENT, ControllerConfig(core, 4))
    config = es.ESConfig(population=32, episodes=16, std=std, patience=0)
    worlds = vectorise(env, config.episodes)
    learner = es.make(config, policy, worlds, 6, jax.devices())
    state, world = learner.init(jax.random.key(0)), learner.place(env.world)
    best, mean = [], []
    for generation in range(generations):
        key = keys.at(jax.random.key(1), generation)
        state, metrics = learner.update(state, world, key)
        best.append(float(metrics["return_best"]))
        mean.append(float(metrics["return_mean"]))

    def act(light):
        picture = jnp.full((4, 4, 3), 127 * light, jnp.uint8)
        params = learner.acting(state)
        return policy.act(params, policy.start(), picture, None)[1].action

    return best[-5:], mean[-5:], act


def test_rewards_that_no_action_changes():
    """Their undiscounted sums are a population's best and mean alike."""
    for env, total in (
        (probes.constant_reward(), 1),
        (probes.delayed_reward(), 1),
        (probes.endless_reward(), 8),
    ):
        best, mean, _ = evolve(env, 1)
        assert best == mean == [total]


def test_a_reward_that_is_only_seen():
    """The cues of 16 episodes, -1 or 1 each, whatever a member does."""
    best, mean, _ = evolve(probes.seen_reward(), 3)
    assert best == mean and len({*best}) > 1
    # Sums of sixteen that are -1 or 1.
    assert all(16 * cues % 2 == 0 and abs(cues) < 1 for cues in best)


def test_the_better_of_two_actions():
    best, _, act = evolve(probes.acted_reward(), 10)
    assert best == [1] * 5 and act(0) == 1


def test_two_strengths_within_bounds():
    """Of the distribution's mean: its members are scattered around it."""
    *_, act = evolve(probes.steered_reward(), 40, std=0.1)
    # 0.009 away after 40 generations, 0.017 after 80; twice the scatter (std 0.2) gives
    # 0.03. It begins 0.5 away.
    np.testing.assert_allclose(act(0), [0.5, -0.5], atol=0.05)


def test_the_action_that_matches_what_is_seen():
    best, _, act = evolve(probes.matched_reward(), 20)
    assert best == [1] * 5 and (act(0), act(2)) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("core", list(Core), ids=lambda core: core.name)
def test_only_a_memory_solves_the_memory_probe(core):
    best, *_ = evolve(probes.remembered_reward(), 40, core)
    # Without a memory all 16 last actions are the same, which is right 16 times only
    # where all cues are.
    assert (min(best) == 1) == (core is not Core.mlp)
