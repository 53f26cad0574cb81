import functools
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import host_rollout, rollout
from agents import keys as names
from agents.core import Decision
from envs.adapters.host import host
from envs.adapters.host_pool import RETRIES
from envs.core import Box
from envs.vector import vectorise
from tests.envs.adapters.host_worlds import dot, troubled
from tests.hosts import in_process
from tests.probes import dot_world

STEPS, LEVELS = 23, 6
SEEDS = list(range(LEVELS))
KEYS = rollout.episode_keys(jax.random.key(3), 4)


def push(params, carry, observation, key):
    """Pushes at random; its value and its memory are easy to follow."""
    light = sum(x.astype(jnp.float32).mean() for x in jax.tree.leaves(observation))
    draw = jax.random.uniform(key, (2,))
    decision = Decision(
        action=params * (3 * draw - jnp.array([0.0, 1.5])) + jnp.cos(carry) / 9,
        attention=jnp.float32(0),
        log_prob=draw.sum(),
        value=light + carry,
    )
    return carry + 1, decision


DRAW = host_rollout.drawing(push)


def play(env, keys=KEYS, patience=None):
    return host_rollout.unroll(
        *(env, DRAW, jnp.float32(0), jnp.float32(1), SEEDS, keys, STEPS),
        patience,
    )


def poorer(env):
    """The same world with a reward that is often negative."""

    def step(*args):
        state, outcome = env.step(*args)
        return state, outcome._replace(reward=outcome.reward - 0.75)

    return env._replace(step=step)


class Row(NamedTuple):
    light: Any
    first: Any
    log_prob: Any
    value: Any
    reward: Any
    terminated: Any
    truncated: Any
    successor: Any


def play_by_hand(env, patience):
    """One stream after the other, without simulators: the independent reference."""
    reset, step_env, observe = map(jax.jit, (env.reset, env.step, env.observe))
    act, none = jax.jit(push), jax.random.key(0)
    columns = []
    for key in KEYS:
        rows, over, state, carry, idle = [], True, None, None, 0
        for step in range(STEPS):
            now = names.at(key, step)
            first = over
            if over:
                level = jax.random.randint(
                    names.stream(now, "levels"), (), 0, LEVELS, jnp.int32
                )
                state, carry, idle = reset(env.world, level, none), jnp.float32(0), 0
            seen = observe(env.world, state)
            carry, decision = act(
                jnp.float32(1), carry, seen, names.stream(now, "policy")
            )
            state, out = step_env(env.world, state, decision.action, none)
            idle = 0 if out.reward > 0 else idle + 1
            truncated = out.truncated or (idle >= patience and not out.terminated)
            over = bool(out.terminated or truncated)
            after = act(jnp.float32(1), carry, observe(env.world, state), none)[1]
            successor = 0.0 if out.terminated else after.value
            row = Row(
                *(seen.astype(jnp.float32).mean(), first),
                *(decision.log_prob, decision.value),
                *(out.reward, out.terminated, truncated, successor),
            )
            rows.append([np.asarray(x) for x in row])
        columns.append(rows)
    return Row(*np.array(columns, dtype=float).transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("limit", "patience"), [(8, None), (20, 3)], ids=["clock", "patience"]
)
def test_an_unroll_equals_a_python_loop(limit, patience):
    """Every truncation is valued in the state that it left, all of a stream's."""
    env = poorer(dot_world(max_steps=limit, noise=0.0))
    found, expected = (
        play(in_process(env), patience=patience),
        play_by_hand(env, patience or 99),
    )
    assert expected.terminated.any() and expected.truncated.sum(axis=0).max() > 1
    # Some streams are cut off in mid-episode by their end.
    assert not (expected.terminated + expected.truncated)[-1].all()
    for name in ("first", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    light = found.observation.astype(np.float32).mean(axis=(2, 3, 4))
    decision = found.decision
    for name, values in (
        *(("light", light), ("log_prob", decision.log_prob)),
        *(("value", decision.value), ("reward", found.reward)),
        ("successor", found.successor),
    ):
        # Values of at most 30 in float32.
        np.testing.assert_allclose(
            values, getattr(expected, name), rtol=1e-5, atol=1e-5, err_msg=name
        )
    assert (found.frames == 1).all()


def test_the_twins_draw_the_same_levels_and_decisions():
    """Where the world is JAX too, and begins its episodes in the same steps."""
    env, B = dot_world(max_steps=STEPS, noise=0.0), len(KEYS)
    states = vectorise(env, B).reset(env.world, jnp.zeros(B, jnp.int32), KEYS)
    none = jnp.zeros(B, jnp.int32)
    games = rollout.Games(states, jnp.zeros(B), jnp.ones(B, bool), none)
    act = jax.vmap(functools.partial(push, jnp.float32(1)))
    _, lax = jax.jit(
        lambda: rollout.unroll(
            *(vectorise(env, B), env.world, act, jnp.float32(0), games, KEYS),
            *(LEVELS, STEPS),
        )
    )()
    found = play(in_process(env))
    assert found.terminated.sum() > B and found.first.sum() > 2 * B
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, lax)
    for mine, its in zip(jax.tree.leaves(found), jax.tree.leaves(lax), strict=True):
        assert mine.dtype == its.dtype
        # Rounded otherwise where XLA fuses what draws the picture.
        np.testing.assert_allclose(
            np.asarray(mine, float), np.asarray(its, float), rtol=1e-5, atol=1e-5
        )


def test_a_stream_does_not_depend_on_its_neighbours():
    env = in_process(dot_world(max_steps=9, noise=0.0))
    few, many = play(env, KEYS[1:2]), play(env)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[:, 0], b[:, 1]), few, many
    )


def test_nothing_is_left_of_an_attempt_that_was_lost():
    env = dot_world(max_steps=9, noise=0.0)
    whole, lost = play(in_process(env)), play(in_process(env, repeats=3))
    jax.tree.map(np.testing.assert_array_equal, whole, lost)


def test_an_observation_may_be_a_picture_and_a_vector():
    env = dot_world(max_steps=9, noise=0.0)
    picture = env.spec.observation
    vector = Box((2,), (0.0,), (12.0,))
    pair = env._replace(
        spec=env.spec._replace(observation=(picture, vector)),
        observe=lambda world, state: (env.observe(world, state), state.place),
    )
    pictures, places = play(in_process(pair)).observation
    assert (pictures.shape, places.shape) == ((STEPS, 4, 12, 12, 3), (STEPS, 4, 2))
    row, column = np.divmod(pictures[..., 0].reshape(STEPS, 4, -1).argmax(-1), 12)
    # The brightest pixel is the one that the dot is nearest to.
    np.testing.assert_allclose(np.stack([row, column], -1), places, atol=0.501)


def test_real_simulators_whatever_their_number_and_their_luck(tmp_path):
    """Pictures are read before they are overwritten; a lost simulator is replaced."""

    def trajectory(make, size):
        env = host(make, size, "Dot")
        try:
            return play(env)
        finally:
            env.close()

    calm = functools.partial(dot, leaves=False)
    runs = [trajectory(calm, size) for size in (1, 2, 3)]
    made = functools.partial(troubled, "kill", str(tmp_path), RETRIES)
    runs.append(trajectory(made, 2))
    assert len(list(tmp_path.iterdir())) == RETRIES
    for one, other in pairwise(runs):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    # The first pixel counts the frames of an episode; at 12 the clock ends it.
    counted = runs[0].observation[:, :, 0, 0, 0]
    np.testing.assert_array_equal(
        counted, np.tile((np.arange(STEPS) % 12)[:, None], (1, 4))
    )
    np.testing.assert_array_equal(runs[0].first, counted == 0)
    assert runs[0].truncated.sum() == 4 and not runs[0].terminated.any()
