import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import keys as names
from agents import rollout
from agents.core import Decision
from envs.core import Loop
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


@pytest.mark.parametrize("repeat", [1, pytest.param(3, marks=pytest.mark.slow)])
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


# --- unroll -------------------------------------------------------------------------

STEPS = 7
HOST = Loop(
    scan=lambda body, carry, xs, length: scan_by_hand(body, carry, xs), until=None
)


def scan_by_hand(body, carry, xs):
    """The loop of worlds that are not JAX."""
    outs = []
    for x in xs:
        carry, out = body(carry, x)
        outs.append(out)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)


def drift(carry, observation, key):
    """Pushes at random; its value and its memory are easy to follow."""
    light = observation.astype(jnp.float32).mean()
    action = 3 * jax.random.uniform(key, (2,)) - jnp.array([0.0, 1.5])
    decision = Decision(
        action=action,
        attention=(),
        log_prob=light,
        value=light / 10 + carry,
    )
    return carry + 1, decision


def unrolled(env, B, keys, games=None, loop=None, patience=None):
    worlds = vectorise(env, B)
    worlds = worlds._replace(loop=loop or worlds.loop)
    if games is None:
        reset = jax.vmap(env.reset, (None, 0, 0))
        fresh = reset(env.world, jnp.zeros(B, jnp.int32), keys)
        none = jnp.zeros(B, jnp.int32)
        games = rollout.Games(fresh, jnp.zeros(B), jnp.ones(B, bool), none)

    def play(games, keys):
        return rollout.unroll(
            *(worlds, env.world, jax.vmap(drift), jnp.zeros(()), games, keys, 6),
            *(STEPS, patience),
        )

    return (play if loop else jax.jit(play))(games, keys)


FIELDS = "first", "reward", "terminated", "truncated", "successor", "value", "light"


def unroll_by_hand(env, B, iterations, patience=1000):
    """One world after the other in Python loops: the independent reference."""
    rows, act = [], jax.jit(drift)
    reset, step_env, observe = map(jax.jit, (env.reset, env.step, env.observe))
    for b in range(B):
        state, carry, over, idle = None, None, True, 0
        for iteration in range(iterations):
            key = rollout.episode_keys(jax.random.key(iteration), b + 1)[b]
            for step in range(STEPS):
                now = names.at(key, step)
                first = over
                if over:
                    level = jax.random.randint(
                        names.stream(now, "levels"), (), 0, 6, jnp.int32
                    )
                    state = reset(env.world, level, names.stream(now, "reset"))
                    carry, idle = jnp.float32(0), 0
                seen = observe(env.world, state)
                carry, decision = act(carry, seen, names.stream(now, "policy"))
                state, (reward, terminated, truncated, _) = step_env(
                    env.world, state, decision.action, names.stream(now, "world")
                )
                after = act(carry, observe(env.world, state), key)[1].value
                idle = 0 if reward > 0 else idle + 1
                truncated = bool(truncated) or (idle >= patience and not terminated)
                over = bool(terminated) or truncated
                successor = 0.0 if terminated else after
                ended = first, reward, terminated, truncated, successor
                rows.append([*ended, decision.value, decision.log_prob])
    columns = (np.array(x).reshape(B, -1).T for x in zip(*rows, strict=True))
    return dict(zip(FIELDS, columns, strict=True))


def stitched(env, B, loop=None, unrolls=2, patience=None):
    """Unrolls, each where the one before left off."""
    parts, games = [], None
    for iteration in range(unrolls):
        batch = rollout.episode_keys(jax.random.key(iteration), B)
        games, trajectory = unrolled(env, B, batch, games, loop, patience)
        parts.append(trajectory)
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@pytest.mark.parametrize("at_border", [True, False])
def test_unroll_equals_a_python_loop(at_border):
    """The clock cuts where an unroll ends, or before; the world does both."""
    limit = STEPS if at_border else STEPS + 1
    env, B, unrolls = dot_world(max_steps=limit, noise=0.4), 6, 3
    found = stitched(env, B, unrolls=unrolls)
    expected = unroll_by_hand(env, B, unrolls)
    last = np.arange(unrolls * STEPS) % STEPS == STEPS - 1
    assert expected["terminated"][last].any() and expected["terminated"][~last].any()
    assert expected["truncated"][last == at_border].any()
    for name in ("first", "reward", "terminated", "truncated", "successor"):
        # Values of at most 30, rounded otherwise where XLA fuses what draws them.
        np.testing.assert_allclose(
            getattr(found, name), expected[name], rtol=1e-5, atol=1e-5, err_msg=name
        )
    np.testing.assert_allclose(found.decision.value, expected["value"], rtol=1e-5)
    light = found.observation.astype(np.float32).mean(axis=(2, 3, 4))
    np.testing.assert_allclose(light, expected["light"], rtol=1e-5)
    assert (found.frames == 1).all()


def test_unroll_plays_the_same_in_a_python_loop():
    env = dot_world(max_steps=STEPS, noise=0.4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        stitched(env, 3),
        stitched(env, 3, HOST),
    )


def test_a_world_does_not_depend_on_its_neighbours_in_an_unroll():
    env = dot_world(max_steps=STEPS, noise=0.4)
    few, many = stitched(env, 2), stitched(env, 5)
    np.testing.assert_array_equal(few.reward, many.reward[:, :2])


def poorer(env):
    """The same world with a reward that is often negative."""

    def step(*args):
        state, outcome = env.step(*args)
        return state, outcome._replace(reward=outcome.reward - 0.75)

    return env._replace(step=step)


@pytest.mark.parametrize(
    ("limit", "patience"), [(3, None), (20, 1)], ids=["clock", "patience"]
)
def test_every_cut_of_an_unroll_is_valued_exactly(limit, patience):
    env, B, unrolls = poorer(dot_world(max_steps=limit, noise=0.1)), 2, 3
    found = stitched(env, B, unrolls=unrolls, patience=patience)
    expected = unroll_by_hand(env, B, unrolls, patience or 1000)
    assert expected["truncated"].reshape(unrolls, STEPS, B).sum(axis=1).max() > 2
    np.testing.assert_array_equal(found.truncated, expected["truncated"])
    # Values of at most 30, rounded otherwise where XLA fuses what draws them.
    np.testing.assert_allclose(
        found.successor, expected["successor"], rtol=1e-5, atol=1e-5
    )


def test_finished_returns_are_those_of_whole_episodes():
    env = dot_world(max_steps=STEPS, noise=0.4)
    whole = stitched(env, 4)
    total = jnp.zeros(4)
    found = []
    for half in (slice(0, STEPS), slice(STEPS, 2 * STEPS)):
        part = jax.tree.map(lambda x, half=half: x[half], whole)
        total, ended = rollout.finished(total, part)
        found.append(ended)
    found = np.concatenate(found)
    over = whole.terminated | whole.truncated
    np.testing.assert_array_equal(~np.isnan(found), over)
    for b in range(4):
        earned = 0.0
        for t in range(2 * STEPS):
            earned += whole.reward[t, b]
            if over[t, b]:
                np.testing.assert_allclose(found[t, b], earned, rtol=1e-5)
                earned = 0.0
        np.testing.assert_allclose(total[b], earned, rtol=1e-5, atol=1e-6)
