import subprocess
import sys

import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.seeding import np_random

from envs.adapters.as_gymnasium import CarRacing
from envs.car_racing import reference

NAME = "envs:iap/CarRacing-v0"
SMALL = {"size": 16}
CHOICES = {**SMALL, "continuous": False, "color": "gray"}
VARIANT = {**SMALL, "domain_randomize": True, "colors": "channels", "blob": True}
GAS = np.array([0.0, 0.2, 0.0], np.float32)
AT_ONCE = {"lap_rule": "intended", "lap_complete_percent": 0.001}
"""The two tiles that the car is created on are enough for a lap, in the first step."""


def test_importing_envs_loads_no_simulator():
    heavy = "{'jax', 'Box2D', 'pygame', 'mujoco', 'cv2', 'haiku'}"
    code = f"import sys, envs; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert run.stdout.strip() == b"set()"


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
@pytest.mark.parametrize("settings", [SMALL, CHOICES, VARIANT], ids=str)
def test_passes_gymnasiums_own_check(render_mode, settings):
    """Gymnasium's warnings are errors here."""
    env = gymnasium.make(NAME, render_mode=render_mode, **settings)
    check_env(env.unwrapped)


@pytest.mark.parametrize("continuous", [True, False])
def test_spaces_are_those_of_car_racing_v3(continuous):
    ours = gymnasium.make(NAME, continuous=continuous)
    theirs = reference.CarRacing(continuous=continuous)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["render_fps"] == theirs.metadata["render_fps"]
    assert ours.spec.max_episode_steps == 1000
    theirs.close()


@pytest.mark.parametrize(
    ("seed", "domain_randomize"), [(0, False), (1 << 40, False), (4, True)]
)
def test_a_seed_gives_the_game_of_car_racing_v3(seed, domain_randomize):
    ours = gymnasium.make(NAME, domain_randomize=domain_randomize)
    theirs = reference.CarRacing(domain_randomize=domain_randomize)
    pictures = [(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])]
    paid = []
    for step in range(60):
        action = np.array([0.02 * (step % 3 - 1), 0.5, 0.0], np.float32)
        (image, reward, *ends, info), other = ours.step(action), theirs.step(action)
        pictures.append((image, other[0]))
        paid.append((reward, other[1]))
        assert (*ends, info) == tuple(other[2:])
    # One float32 sum of terms below 10.
    np.testing.assert_allclose(*np.transpose(paid), atol=1e-5)
    assert np.sum(paid) > 10
    # As far as pictures of equal states are apart, see test_draw.
    ours_seen, theirs_seen = np.array(pictures, float).swapaxes(0, 1)
    apart = np.abs(ours_seen - theirs_seen).mean((1, 2, 3))
    assert apart.max() < 1.0
    theirs.close()


def test_later_resets_draw_a_seed_from_the_generator():
    env = gymnasium.make(NAME, **SMALL)
    env.reset(seed=3)
    later = [env.reset()[0] for _ in range(2)]
    generator, _ = np_random(3)
    for picture in later:
        seed = int(generator.integers(2**31))
        alone, _ = gymnasium.make(NAME, **SMALL).reset(seed=seed)
        np.testing.assert_array_equal(picture, alone)
    assert (later[0] != later[1]).any()


def test_the_time_limit_is_gymnasiums_and_counts_once():
    env = gymnasium.make(NAME, max_episode_steps=1004, **SMALL)
    env.reset(seed=0)
    # A car that stands still stays on the field.
    ends = [env.step(np.zeros(3, np.float32))[2:4] for _ in range(1004)]
    assert ends == [(False, False)] * 1003 + [(False, True)]


def test_info_says_how_an_episode_terminated():
    lap = gymnasium.make(NAME, **SMALL, **AT_ONCE)
    lap.reset(seed=0)
    _, reward, terminated, truncated, info = lap.step(GAS)
    assert reward > 0 and terminated and not truncated
    assert info == {"lap_finished": True}

    lost = gymnasium.make(NAME, **SMALL)
    lost.reset(seed=2)
    for _ in range(1000):
        _, reward, terminated, _, info = lost.step(GAS)
        if terminated:
            break
        assert info == {}
    assert (reward, info) == (-100.0, {"lap_finished": False})


def test_colours_can_be_kept_as_in_car_racing_v3():
    ours = gymnasium.make(NAME, domain_randomize=True)
    theirs = reference.CarRacing(domain_randomize=True)
    pictures = []
    for options in (None, {"randomize": False}, {"randomize": True}):
        image, other = (e.reset(seed=4, options=options)[0] for e in (ours, theirs))
        assert np.abs(image.astype(float) - other).mean() < 1.0
        pictures.append(image)
    drawn, kept, again = pictures
    # Without drawing colours the generator comes to another track.
    assert (kept != drawn).any()
    np.testing.assert_array_equal(again, drawn)
    theirs.close()


def test_a_new_track_is_neither_kept_on_disk_nor_traced_again(tmp_path, monkeypatch):
    env = CarRacing(**SMALL)
    env.reset(seed=0)
    env.step(GAS)
    monkeypatch.setenv("IAP_CACHE", str(tmp_path))
    play = env._play
    traced = play.begin._cache_size(), play.advance._cache_size()
    env.reset(seed=987654)
    env.step(GAS)
    assert (play.begin._cache_size(), play.advance._cache_size()) == traced
    assert not list(tmp_path.iterdir())


def test_what_is_returned_may_be_written_to():
    env = gymnasium.make(NAME, **SMALL)
    for observation in (env.reset(seed=0)[0], env.step(GAS)[0]):
        observation[:] = 0


def test_renders_the_same_picture_larger():
    env = gymnasium.make(NAME, render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(60):
        seen = env.step(GAS)[0]
    shown = env.render()
    assert shown.shape == (400, 600, 3)
    small = cv2.resize(shown, (96, 96), interpolation=cv2.INTER_AREA).astype(int)
    # As near as envs.testing.check_env wants paint to be to observe.
    assert np.abs(small - seen).mean() < 16


def test_rendering_without_a_mode_warns_and_returns_nothing():
    env = CarRacing(**SMALL)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert env.render() is None


def test_actions_outside_their_bounds_are_clipped():
    env = CarRacing(**SMALL)
    seen = []
    for action in ([-9, 9, -9], [-1, 1, 0], [-np.inf, np.inf, -np.inf]):
        env.reset(seed=0)
        seen.append([env.step(np.array(action, np.float32))[:2] for _ in range(5)][-1])
    for image, reward in seen[1:]:
        np.testing.assert_array_equal(image, seen[0][0])
        assert reward == seen[0][1]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(2, np.float32), r"shape \(2,\); it must have \(3,\)"),
        (np.zeros((1, 3), np.float32), r"shape \(1, 3\); it must have \(3,\)"),
        (None, r"shape \(\); it must have \(3,\)"),
        (["left", "gas", "brake"], "'left'.*; it must be numbers"),
        (np.array([0.0, np.nan, 0.0]), "NaN is not a strength"),
    ],
    ids=str,
)
def test_actions_that_are_none_are_refused(action, message):
    env = CarRacing(**SMALL)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)


@pytest.mark.parametrize("action", [5, -1, 1.0, np.zeros(3, np.float32), [1], None])
def test_choices_that_are_none_are_refused(action):
    env = CarRacing(**CHOICES)
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="it must be an integer from 0 to 4"):
        env.step(action)


@pytest.mark.parametrize("choice", [3, np.int64(3), np.array(3)])
def test_choices_may_be_any_integer(choice):
    env = CarRacing(**CHOICES)
    env.reset(seed=0)
    assert env.step(choice)[1] > 0


def test_seeds_that_cannot_be_are_refused():
    env = CarRacing(**SMALL)
    with pytest.raises(gymnasium.error.Error, match=r"zero, actual value: -1"):
        env.reset(seed=-1)
    with pytest.raises(gymnasium.error.Error, match="must be a python integer"):
        env.reset(seed=1.5)


def test_an_episode_must_have_begun():
    env = CarRacing(render_mode="rgb_array", **SMALL)
    for call in (lambda: env.step(GAS), env.render):
        with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
            call()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"size": 0}, ValueError, "size is 0"),
        ({"lap_complete_percent": 2.0}, ValueError, "lap_complete_percent is 2.0"),
        ({"render_mode": "ansi"}, ValueError, "render_mode is 'ansi'; it must be"),
        ({"sise": 96}, TypeError, "sise"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        CarRacing(**settings)
