import dataclasses
import functools
import re
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import registry, variants
from envs.car_racing.settings import GAME_FRAMES, CarRacingConfig
from envs.core import Box
from envs.registry import REGISTRY
from envs.settings import Color
from envs.testing import check_env
from envs.variants import ALL, ORIGINAL

COMMON = ("name", "tracks", "time_limit", "action_repeat", "frame_stack")


@pytest.mark.parametrize("name", REGISTRY)
def test_every_entry_has_what_all_worlds_share(name):
    config = REGISTRY[name].config()
    for field in COMMON:
        assert hasattr(config, field)
    assert config.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.tracks = 3


@pytest.mark.parametrize(
    "name", [n for n, e in REGISTRY.items() if not (e.simulator or e.variants)]
)
def test_worlds_without_variants_hold_to_the_contract(name):
    config = REGISTRY[name].config()
    game = registry.make(config, [1000, 1001])
    check_env(game)
    check_env(registry.transformed(dataclasses.replace(config, action_repeat=2), game))
    action, labels = game.spec.action, REGISTRY[name].labels(config)
    assert len(labels) == (action.shape[0] if isinstance(action, Box) else action.n)


@pytest.mark.parametrize("changes", [{}, {"continuous": False}])
def test_every_component_of_an_action_has_a_label(changes):
    config = CarRacingConfig(**changes)
    action = registry.make(config, [1000]).spec.action
    labels = REGISTRY["CarRacing"].labels(config)
    assert len(labels) == (action.shape[0] if isinstance(action, Box) else action.n)


def test_settings_reach_the_world():
    config = CarRacingConfig(size=24, color=Color.gray, frame_stack=3)
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
        {"time_limit": 1001},
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


def test_the_limit_is_the_games():
    from envs.car_racing.env import MAX_STEPS

    assert GAME_FRAMES == MAX_STEPS


# --- variants -----------------------------------------------------------------------

EVERY = [
    (name, variant)
    for name, entry in REGISTRY.items()
    for variant in entry.variants
    if entry.simulator is None
]
CAR_RACING = REGISTRY["CarRacing"].variants
TOGETHER = "color+bars+blob+noise"


def worn(variant, size=32, **settings):
    config = CarRacingConfig(size=size, variant=variant, **settings)
    return registry.make(config, [1000])


def driven(env, steps=12, key=3):
    """(state, outcomes) of full throttle to the left."""

    @jax.jit
    def drive(world):
        def body(state, index):
            action = jnp.array([-0.3, 1.0, 0.0])
            return env.step(world, state, action, jax.random.key(index))

        start = env.reset(world, jnp.int32(0), jax.random.key(key))
        return jax.lax.scan(body, start, jnp.arange(steps))

    return jax.device_get(drive(env.world))


def seen(env, **settings):
    state, _ = driven(env, **settings)
    return np.asarray(jax.jit(env.observe)(env.world, state))


@functools.cache
def original():
    """State, outcomes and picture of the same drive in the original."""
    env = worn(ORIGINAL)
    return *driven(env), seen(env)


def game_of(state):
    return game_of(state.inner) if hasattr(state, "inner") else state


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_every_variant_holds_to_the_contract(name, variant):
    config = REGISTRY[name].config(variant=variant, size=32)
    check_env(registry.make(config, [1000]), steps=3)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [*CAR_RACING, TOGETHER, "channels+bars+blob+video"])
@pytest.mark.parametrize("color", Color)
def test_every_variant_holds_to_the_contract_as_it_is_played(variant, color):
    """Full size, action repeat, past the zoom of the first second."""
    config = CarRacingConfig(variant=variant, color=color)
    game = registry.make(config, [1000, 1001])
    check_env(registry.transformed(config, game), steps=20)


@pytest.mark.parametrize("variant", [*CAR_RACING[1:], TOGETHER])
def test_a_variant_changes_the_picture_and_not_the_game(variant):
    env = worn(variant)
    state, outcomes = driven(env)
    expected, same, bare = original()
    jax.tree.map(np.testing.assert_array_equal, outcomes, same)
    # The colours of the ground are in the state; nothing that moves depends on them.
    game = game_of(state)._replace(ground=expected.ground)
    jax.tree.map(np.testing.assert_array_equal, game, expected)
    assert (seen(env) != bare).any()


def test_what_is_joined_is_seen_together():
    together, bare = seen(worn("noise+bars")), original()[2]
    road, bar = 32 - 4, 2  # 3/40 of 32 columns, above the strip of instruments
    assert (together[:road, :bar] == 0).all() and (together[:road, -bar:] == 0).all()
    np.testing.assert_array_equal(together[road:], bare[road:])
    grass = seen(worn("noise"))[:road, bar:-bar]
    np.testing.assert_array_equal(together[:road, bar:-bar], grass)
    assert (grass != bare[:road, bar:-bar]).mean() > 0.3


def test_a_video_file_is_shown(tmp_path):
    path = tmp_path / "blue.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, (32, 32))
    writer.write(np.full((32, 32, 3), (200, 40, 0), np.uint8))  # blue, green, red
    writer.release()
    picture = seen(worn("video", video=str(path)))
    # The colours went through YUV and back.
    is_blue = (np.abs(picture.astype(int) - [0, 40, 200]) <= 3).all(-1)
    changed = (picture != original()[2]).any(-1)
    assert is_blue.sum() > 300
    np.testing.assert_array_equal(is_blue, changed)


def test_tracks_have_their_own_colours_with_domain_randomize():
    env = worn(ORIGINAL, domain_randomize=True)
    state, _ = driven(env)
    assert (state.ground != original()[0].ground).any()


def test_a_variant_has_one_name():
    assert CarRacingConfig(variant="noise+bars").variant == "bars+noise"
    assert CarRacingConfig(variant="blob+bars+color").variant == "color+bars+blob"
    for name in (*CAR_RACING, ALL):
        assert CarRacingConfig(variant=name).variant == name
    assert variants.worn("bars+noise") == ("bars", "noise")
    assert variants.worn(ORIGINAL) == ()


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("bar", "'bar' is none; it must be original, all (for mode=evaluate), or one"),
        ("bars+nose", "'nose' is none; "),
        ("", "'' is none; "),
        ("bars+all", "'all' is none; "),
        ("bars+bars", "can be named once"),
        ("original+bars", "original only alone"),
        ("channels+color", "color and channels change the same pixels"),
        ("noise+video", "noise and video change the same pixels"),
    ],
)
def test_variants_that_are_not_there_are_refused(variant, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        CarRacingConfig(variant=variant)
    assert f"env.variant is {variant!r}" in str(caught.value)
    if "none" in reason:
        assert ", ".join(CAR_RACING[1:]) in str(caught.value)


def test_a_video_that_is_not_shown_is_refused():
    with pytest.raises(ValueError, match=r"env.video is a.mp4, but .* is bars"):
        CarRacingConfig(variant="bars", video="a.mp4")
    config = CarRacingConfig(variant="bars+video", video="a.mp4")
    assert registry.as_variant(config, "noise").video == ""
    assert registry.as_variant(config, "video").video == "a.mp4"
    assert CarRacingConfig(variant=ALL, video="a.mp4").video == "a.mp4"


def test_no_world_is_made_of_all_variants():
    with pytest.raises(ValueError, match=r"env.variant=all .* mode=evaluate; .*bars"):
        registry.make(CarRacingConfig(variant=ALL), [1000])


def test_workers_on_ray_need_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    config = REGISTRY["GymnasiumCarRacing"].config()
    with pytest.raises(ValueError, match="needs the package ray, which is not install"):
        registry.host(config, 1, 60.0, on_ray=True)
