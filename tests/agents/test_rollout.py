import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import rollout
from agents.core import Decision
from envs.transforms import action_repeat
from envs.vector import vectorise
from tests.probes import dot_world


def push(carry, observation):
    """Pushes harder with every decision, so that worlds end at different times."""
    B = observation.shape[0]
    action = jnp.stack([carry, -carry], axis=1)
    return carry + 0.2, Decision(action=action, attention=jnp.zeros(B))


def play(env, size, key, patience=None):
    B = vectorise(env, size)
    return jax.jit(
        lambda: rollout.returns(
            B,
            env.world,
            push,
            jnp.zeros(size),
            jnp.arange(size),
            rollout.episode_keys(key, size),
            patience,
        )
    )()


def play_by_hand(env, episode, key):
    """One world in a Python loop: the independent reference."""
    key = rollout.episode_keys(key, episode + 1)[episode]
    state = env.reset(env.world, jnp.int32(episode), rollout.reset_key(key))
    total, strength = 0.0, 0.0
    for step in range(env.spec.max_steps):
        action = jnp.array([strength, -strength], jnp.float32)
        state, outcome = env.step(env.world, state, action, rollout.step_key(key, step))
        total, strength = total + float(outcome.reward), strength + 0.2
        if outcome.terminated or outcome.truncated:
            return total, step + 1
    raise AssertionError("the episode did not end within max_steps")


@pytest.mark.parametrize("repeat", [1, 3])
def test_returns_equal_a_python_loop(repeat):
    env = action_repeat(dot_world(noise=0.4), repeat)
    stats = play(env, 6, jax.random.key(5))
    for episode in range(6):
        total, decisions = play_by_hand(env, episode, jax.random.key(5))
        assert stats.decisions[episode] == decisions
        # Sums of at most 20 float32 rewards below 1, in either order of operations.
        np.testing.assert_allclose(stats.returns[episode], total, atol=1e-4)
    assert len(np.unique(stats.decisions)) > 1, "the worlds should end apart"


def test_frames_count_what_was_played():
    single = play(action_repeat(dot_world(), 1), 6, jax.random.key(5))
    assert (single.frames == single.decisions).all()
    stats = play(action_repeat(dot_world(max_steps=20), 3), 6, jax.random.key(5))
    assert (stats.frames <= 3 * stats.decisions).all()
    assert (stats.frames > 3 * (stats.decisions - 1)).all()


def test_an_episode_does_not_depend_on_its_neighbours():
    few, many = (play(dot_world(), n, jax.random.key(1)) for n in (2, 6))
    np.testing.assert_array_equal(few.returns, many.returns[:2])


def test_patience_ends_an_episode_without_reward():
    def unrewarded(env):
        def step(world, state, action, key):
            state, outcome = env.step(world, state, action, key)
            return state, outcome._replace(reward=-outcome.reward)

        return env._replace(step=step)

    stats = play(unrewarded(dot_world()), 4, jax.random.key(0), patience=4)
    assert (stats.decisions == 4).all()
    assert (play(dot_world(), 4, jax.random.key(0), patience=4).decisions > 4).all()
