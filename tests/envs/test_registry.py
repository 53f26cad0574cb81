import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import registry
from envs.core import Box
from envs.registry import REGISTRY, CarRacingConfig

COMMON = ("name", "tracks", "time_limit", "action_repeat", "frame_stack")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_entry_has_what_all_worlds_share(name):
    config = REGISTRY[name].config()
    for field in COMMON:
        assert hasattr(config, field)
    assert config.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.tracks = 3


@pytest.mark.parametrize("changes", [{}, {"continuous": False}])
def test_every_component_of_an_action_has_a_label(changes):
    config = CarRacingConfig(**changes)
    action = registry.make(config, [1000]).spec.action
    labels = REGISTRY["CarRacing"].labels(config)
    assert len(labels) == (action.shape[0] if isinstance(action, Box) else action.n)


def test_settings_reach_the_world():
    config = CarRacingConfig(size=24, color=registry.Color.gray, frame_stack=3)
    game = registry.make(config, [1000, 1001])
    assert game.spec.observation.shape == (24, 24, 1)
    assert game.spec.max_steps == 1000
    env = registry.transformed(config, game)
    assert env.spec.observation.shape == (24, 24, 3)
    assert env.spec.action_repeat == 4
    assert env.spec.max_steps == 250


def test_the_time_limit_counts_game_frames():
    """A decision whose frames exceed it is cut short."""
    config = CarRacingConfig(size=24, time_limit=6)
    env = registry.transformed(config, registry.make(config, [1000]))
    assert env.spec.max_steps == 2
    state = env.reset(env.world, jnp.int32(0), jax.random.key(0))
    step = jax.jit(env.step)
    frames = []
    for index in range(2):
        action = jnp.array([0.0, 0.1, 0.0])
        state, outcome = step(env.world, state, action, jax.random.key(index))
        frames.append((int(outcome.metrics["frames"]), bool(outcome.truncated)))
    assert frames == [(4, False), (2, True)]


def test_episodes_are_the_levels_in_their_order():
    config = CarRacingConfig(size=24)
    several = registry.make(config, [1000, 1003])
    alone = registry.make(config, [1003])
    pictures = [
        jax.jit(lambda w, e, k, env=env: env.observe(w, env.reset(w, e, k)))(
            env.world, jnp.int32(episode), jax.random.key(0)
        )
        for env, episode in ((several, 1), (alone, 0))
    ]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0},
        {"tracks": 0},
        {"time_limit": -1},
        {"action_repeat": 0},
        {"frame_stack": 0},
        {"lap_complete_percent": 0.0},
        {"lap_complete_percent": 1.1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=f"env.{name} is {value};"):
        CarRacingConfig(**changes)
