"""PPO with simulators on the host; what it learns from is in test_host_unroll."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import moments, ppo
from agents.controllers import ControllerConfig, Core
from agents.policy import make_actor_critic
from envs.vector import vectorise
from tests import probes
from tests.agents.quick_ppo import CONTENT, QUICK, improve, same
from tests.hosts import in_process

SEEDS = np.arange(64)


def lasting(env, steps):
    """The same world, which says how long it lasts at most."""
    return env._replace(spec=env.spec._replace(max_steps=steps))


def small(env, devices=1, core=Core.mlp, **settings):
    """Learner, world and policy, of simulators unless `env` is a `VectorEnv`."""
    config = ppo.PPOConfig(**{**QUICK, **settings})
    policy = make_actor_critic(env.spec, CONTENT, ControllerConfig(core, 16))
    levels, devices = len(SEEDS), jax.devices()[:devices]
    learner = ppo.make(config, policy, env, levels, devices)
    return learner, learner.place(getattr(env, "world", SEEDS)), policy


@pytest.mark.slow
@pytest.mark.parametrize("core", [Core.mlp, Core.rnn], ids=lambda core: core.name)
def test_it_learns_as_in_jax(core):
    """Where both begin their episodes in the same steps: here with every iteration."""
    env = probes.endless_reward()
    settings = {"core": core, "steps": 8}
    host = small(in_process(env), **settings)
    lax = small(vectorise(env, QUICK["worlds"]), **settings)
    (mine, found), (its, expected) = (improve(*each[:2], 3) for each in (host, lax))
    assert mine.playing == ()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == expected[name].dtype, name
        # 48 gradient steps of size 0.005 in float32, from values rounded otherwise.
        np.testing.assert_allclose(value, expected[name], atol=2e-3, err_msg=name)
    assert (found["episodes"], found["return_mean"]) == (16, 8)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3),
        mine.learned,
        its.learned,
    )


def test_going_on_equals_never_having_stopped():
    """And nothing that a simulator was in the middle of has to be kept for it."""
    env = in_process(probes.endless_reward())
    learner, world, _ = small(env, devices=2, steps=12)
    straight, metrics = improve(learner, world, 3)
    half, _ = improve(learner, world, 1)
    stored = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), half)
    resumed, its = improve(learner, world, 3, stored, 1)
    same(straight, resumed)
    same(metrics, its)
    assert len(metrics["kl"].sharding.device_set) == 2
    assert metrics["decisions"] == metrics["frames"] == 16 * 12
    # 12 steps of a stream are an episode of 8 and half of the next.
    assert (metrics["episodes"], metrics["return_mean"]) == (16, 8)
    assert metrics["updates"] == 3 * 4 * 4


@pytest.mark.slow
def test_the_number_of_devices_changes_rounding_only():
    env = in_process(lasting(probes.matched_reward(), 1))
    one, two = (improve(*small(env, n)[:2], 3)[0].learned for n in (1, 2))
    jax.tree.map(
        # 48 gradient steps of size 0.005, each rounded in float32 and then divided by
        # its own root mean square.
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3),
        one.trained.params,
        two.trained.params,
    )


# --- what is learned in the probe worlds ----------------------------------------------


def value_of(policy, state, light):
    picture = jnp.full((4, 4, 3), 127 * light, jnp.uint8)
    _, decision = policy.act(
        state.learned.trained.params, policy.start(), picture, jax.random.key(0)
    )
    return float(moments.restore(state.learned.returns, decision.value))


@pytest.mark.slow
def test_the_action_that_matches_what_is_seen():
    learner, world, _ = small(in_process(lasting(probes.matched_reward(), 1)))
    _, metrics = improve(learner, world, 30)
    assert metrics["return_mean"] > 0.9


@pytest.mark.slow
def test_the_value_of_a_delayed_reward():
    env = in_process(lasting(probes.delayed_reward(), 2))
    learner, world, policy = small(env, discount=0.5)
    state, _ = improve(learner, world, 40)
    for light, value in ((0, 0.5), (2, 1)):
        np.testing.assert_allclose(value_of(policy, state, light), value, atol=0.1)


@pytest.mark.slow
def test_a_clock_and_the_end_of_a_stream_do_not_lower_a_value():
    """Eight rewards, or the four of a stream's last episode, are worth less than 10."""
    learner, world, policy = small(
        in_process(probes.endless_reward()), discount=0.9, steps=12
    )
    state, _ = improve(learner, world, 80)
    np.testing.assert_allclose(value_of(policy, state, 0), 10, atol=1)


@pytest.mark.slow
@pytest.mark.parametrize("core", [Core.mlp, Core.gru], ids=lambda core: core.name)
def test_only_a_memory_solves_the_memory_probe(core):
    env = in_process(lasting(probes.remembered_reward(), 4))
    learner, world, _ = small(env, core=core, discount=0.9)
    state, latest = improve(learner, world, 20)[0], []
    for iteration in range(20, 31):
        state, metrics = improve(learner, world, iteration + 1, state, iteration)
        latest.append(metrics["return_mean"])
    # At this learning rate a policy that has found it still falls back at times, in JAX
    # worlds too.
    assert (np.median(latest) > 0.8) == (core is Core.gru)


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("core", "steps", "cure"),
    [(Core.mlp, 16, "agent.steps=24"), (Core.rnn, 20, "agent.steps=21")],
)
def test_an_unroll_that_never_sees_the_end_of_an_episode_is_refused(core, steps, cure):
    env = in_process(lasting(probes.acted_reward(), 21))
    sentence = f"agent.steps is {steps}.*may take 21 decisions.*choose {cure} or more"
    with pytest.raises(ValueError, match=sentence):
        small(env, core=core, steps=steps)
