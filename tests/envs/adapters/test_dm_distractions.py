import re

import numpy as np
import pytest

from envs import registry
from envs.adapters import dm_distractions as distractions
from envs.adapters import opengl
from envs.adapters.dm_backdrops import SIDE, Film, films
from envs.adapters.dm_distractions import GROUND, SCALE, VIDEOS, Wear
from envs.adapters.dm_settings import DISTRACTED, VARIANTS, Difficulty, DmControlConfig
from envs.adapters.host_simulator import Refused
from envs.variants import ALL
from tests.envs.adapters import gl

gl.needed()
TASKS = {
    **{"reacher": "easy", "cartpole": "swingup", "finger": "spin"},
    **{"cheetah": "run", "ball_in_cup": "catch", "walker": "walk"},
}
FLOAT32 = 1e-6  # MuJoCo's colours are float32
ALL_THREE = registry.REGISTRY["dm_control"].variants[-1]


def loaded(domain, seed=0):
    opengl.choose()
    from dm_control import suite

    env = suite.load(domain, TASKS[domain], task_kwargs={"random": seed})
    env.reset()
    return env


@pytest.fixture(scope="module")
def cartpole():
    with loaded("cartpole") as env:
        yield env


@pytest.fixture(scope="module")
def walker():
    with loaded("walker") as env:
        yield env


def steps(env, count):
    shape = env.action_spec().shape
    for _ in range(count):
        env.step(np.full(shape, 0.3))
        yield env


# --- settings -----------------------------------------------------------------------


def test_the_published_settings():
    assert SCALE == {"easy": 0.1, "medium": 0.2, "hard": 0.3}
    assert VIDEOS == {"easy": 4, "medium": 8, "hard": None}
    assert {d: a for d, a in GROUND.items() if a != 0.3} == {
        **{"reacher": 0.0, "walker": 1.0, "cheetah": 1.0}
    }
    assert set(GROUND) == set(DISTRACTED) == set(TASKS)
    assert set(SCALE) == {difficulty.value for difficulty in Difficulty}


@pytest.mark.parametrize("scale", SCALE.values())
def test_how_far_and_how_fast_a_camera_may_go(scale):
    start = np.array([0.0, -4.0 * np.sqrt(0.75), 2.0])  # 4 m away, 30 degrees up
    reach = distractions.reach(start, scale, dynamic=True, upright=False)
    angle = np.pi / 2 * scale
    middle = np.array([-np.pi / 2, np.pi / 3])
    np.testing.assert_allclose(reach.low, [4 - 2 * scale, *(middle - angle)])
    np.testing.assert_allclose(reach.high, [4 + 6 * scale, *(middle + angle)])
    assert reach.roll == pytest.approx(angle)
    assert reach.speed == pytest.approx(0.4 * scale)
    assert reach.speed_sd == pytest.approx(0.1 * scale)
    assert reach.roll_speed == pytest.approx(np.pi / 50 * scale)
    assert reach.roll_speed_sd == pytest.approx(np.pi / 300 * scale)
    # Nearer cameras are slower, and some stay above the ground.
    half = distractions.reach(start / 2, scale, dynamic=True, upright=True)
    assert half.speed == pytest.approx(0.2 * scale)
    assert half.high[2] == pytest.approx(min(np.pi / 3 + angle, np.pi / 2))
    static = distractions.reach(start, scale, dynamic=False, upright=True)
    assert static[3:] == (0.0, 0.0, 0.0, 0.0)


# --- colours ------------------------------------------------------------------------


def test_static_colours_are_shifted_once(cartpole):
    shown = cartpole.physics.model.mat_rgba
    before = shown.copy()
    original = before[:, :3]
    color = distractions.color(cartpole.physics, SCALE["easy"], dynamic=False)
    seen = []
    for seed in range(40):
        color.begin(seed)
        seen.append(shown[:, :3].copy())
        color.move()
        np.testing.assert_array_equal(shown[:, :3], seen[-1])
    shift = np.array(seen) - original
    assert np.abs(shift).max() <= 0.1 + FLOAT32
    assert np.min(seen) >= 0 and np.max(seen) <= 1
    # The whole range is used, and every channel of every material has its own.
    free = (original >= 0.1) & (original <= 0.9)
    assert (shift.min(0)[free] < -0.08).all() and (shift.max(0)[free] > 0.08).all()
    assert len(np.unique(shift[0][free])) == free.sum()
    np.testing.assert_array_equal(shown[:, 3], before[:, 3])
    color.begin(7)
    np.testing.assert_array_equal(shown[:, :3], seen[7])
    shown[:] = before


def test_moving_colours_walk_within_their_bounds(cartpole):
    shown = cartpole.physics.model.mat_rgba
    before = shown.copy()
    scale = SCALE["hard"]
    color = distractions.color(cartpole.physics, scale, dynamic=True)
    color.begin(0)
    path = [shown[:, :3].copy()]
    for _ in range(1500):
        color.move()
        path.append(shown[:, :3].copy())
    assert np.abs(np.array(path) - before[:, :3]).max() <= scale + FLOAT32
    steps = np.diff(path, axis=0)
    steps = steps[np.abs(np.array(path[1:]) - before[:, :3]) < 0.9 * scale]
    steps = steps[steps != 0]  # at the bounds of full scale they stand still
    # Ten thousand normal steps give their sd to 1 %; some are cut at 0 and 1.
    assert len(steps) > 10_000
    assert np.std(steps) == pytest.approx(0.03 * scale, rel=0.05)
    shown[:] = before


# --- the camera ---------------------------------------------------------------------


ABOVE = (0.0, 0.0, 0.75)  # reacher's camera looks straight down
ASIDE = (0.1, -3.0, 1.0)
BEHIND = (-2.0, 0.0, 1.0)  # at an azimuth of half a turn, where the angles wrap


@pytest.mark.parametrize(
    ("start", "upright"),
    [(ASIDE, True), (ASIDE, False), (BEHIND, True), (ABOVE, False)],
)
def test_a_view_walks_within_reach(start, upright):
    reach = distractions.reach(np.array(start), SCALE["hard"], True, upright)
    generator = np.random.default_rng(0)
    views = [distractions.first_view(reach, generator)]
    for _ in range(4000):
        views.append(distractions.next_view(views[-1], reach, generator))
    places, velocities, rolls, turns = map(np.array, zip(*views, strict=True))
    steps = np.diff([distractions.cartesian(place) for place in places], axis=0)
    np.testing.assert_allclose(velocities[1:], steps, atol=1e-12)
    # Clipped, a step beside the vertical may go through it: two legs of a triangle.
    assert np.linalg.norm(steps, axis=1).max() < np.sqrt(2) * reach.speed
    assert np.abs(turns).max() <= reach.roll_speed + 1e-12
    np.testing.assert_allclose(turns[1:], np.diff(rolls), atol=1e-12)
    assert (places >= reach.low - 1e-12).all() and (places <= reach.high + 1e-12).all()
    assert np.abs(rolls).max() <= reach.roll
    # It comes to both sides of everything.
    assert (np.ptp(places, 0) > 0.9 * (reach.high - reach.low)).all()
    assert np.ptp(rolls) > 0.9 * 2 * reach.roll


@pytest.mark.parametrize(
    ("start", "upright"),
    [(ASIDE, True), (BEHIND, True), (BEHIND, False), (ABOVE, False)],
)
def test_a_view_that_does_not_move_is_uniform_within_reach(start, upright):
    reach = distractions.reach(np.array(start), SCALE["easy"], False, upright)
    generator = np.random.default_rng(0)
    places = []
    for _ in range(2000):
        view = distractions.first_view(reach, generator)
        after = distractions.next_view(view, reach, generator)
        # Near the vertical an angle is known to 1e-16 of it over the sine of it.
        np.testing.assert_allclose(after.place, view.place, atol=1e-10)
        assert after.roll == view.roll
        places.append(after.place)
    share = (np.array(places) - reach.low) / (reach.high - reach.low)
    # sd of the mean of 2000 uniform numbers: 0.0065.
    np.testing.assert_allclose(share.mean(0), 0.5, atol=4 * 0.0065)
    assert share.min() >= 0 and share.max() <= 1 and share.min() < 0.01


def test_half_a_turn_is_the_same_from_either_side():
    for sign in (-1, 1):
        start = np.array([-2.0, sign * 1e-16, 1.0])
        reach = distractions.reach(start, 0.2, dynamic=False, upright=True)
        # On its own side of the plane in which the body runs.
        assert reach.low[1] == pytest.approx(-np.pi)
        assert reach.high[1] == pytest.approx(-np.pi + 0.1 * np.pi)


@pytest.mark.parametrize("domain", TASKS)
def test_every_camera_that_does_not_turn_by_itself_goes_elsewhere(domain):
    with loaded(domain) as env:
        data, upright = env.physics.data, domain != "reacher"
        modes = env.physics.model.cam_mode  # 0 is fixed, 2 is trackcom
        numbers = np.flatnonzero((modes == 0) | (modes == 2)).tolist()
        assert len(numbers) == {"reacher": 1, "cartpole": 1}.get(domain, 2)
        for number in numbers:
            home = data.cam_xpos[number].copy(), data.cam_xmat[number].copy()
            for scale in SCALE.values():
                camera = distractions.camera(env.physics, number, scale, False, upright)
                seen = []
                for seed in range(8):
                    data.cam_xpos[number], data.cam_xmat[number] = home
                    camera.begin(seed)
                    seen.append(data.cam_xpos[number].copy())
                assert len(np.unique(np.round(seen, 6), axis=0)) == 8
                if upright:
                    assert (np.array(seen)[:, 2] > 0).all()


@pytest.mark.parametrize("domain", TASKS)
def test_undistracted_the_camera_is_the_models(domain):
    with loaded(domain) as env:
        data = env.physics.data
        camera = distractions.camera(
            env.physics, 0, 0.0, dynamic=True, upright=domain != "reacher"
        )
        for index, _ in enumerate(steps(env, 3)):
            place, axes = data.cam_xpos[0].copy(), data.cam_xmat[0].copy()
            camera.begin(0) if index == 0 else camera.move()
            # The models' own cameras are level to the five digits of their files.
            np.testing.assert_allclose(data.cam_xpos[0], place, atol=1e-9)
            np.testing.assert_allclose(data.cam_xmat[0], axes, atol=2e-5)


def test_a_camera_looks_at_what_it_looked_at(cartpole):
    cartpole.reset()
    data = cartpole.physics.data
    eye, axes = data.cam_xpos[0].copy(), data.cam_xmat[0].reshape(3, 3).copy()
    target = eye - axes[:, 2] * np.linalg.norm(eye - data.subtree_com[1])
    camera = distractions.camera(cartpole.physics, 0, SCALE["hard"], True, True)
    camera.begin(3)
    places = []
    for _ in steps(cartpole, 20):
        camera.move()
        now = data.cam_xmat[0].reshape(3, 3)
        np.testing.assert_allclose(now.T @ now, np.eye(3), atol=1e-12)
        assert np.linalg.det(now) == pytest.approx(1)
        to_target = target - data.cam_xpos[0]
        ahead = to_target / np.linalg.norm(to_target)
        np.testing.assert_allclose(-now[:, 2], ahead, atol=1e-9)
        assert abs(np.arcsin(now[2, 0])) <= np.pi / 2 * SCALE["hard"]
        places.append(data.cam_xpos[0].copy())
    moved = np.linalg.norm(np.diff(places, axis=0), axis=1)
    near = np.linalg.norm(eye) / 4
    assert 0 < moved.max() <= 0.4 * SCALE["hard"] * near + 1e-9


def test_a_camera_that_follows_goes_on_following(walker):
    walker.reset()
    data = walker.physics.data
    camera = distractions.camera(walker.physics, 0, SCALE["hard"], False, True)
    camera.begin(3)
    apart = data.cam_xpos[0] - data.subtree_com[1]
    com = data.subtree_com[1].copy()
    for _ in steps(walker, 10):
        camera.move()
        np.testing.assert_allclose(
            data.cam_xpos[0] - data.subtree_com[1], apart, atol=1e-9
        )
    assert np.linalg.norm(data.subtree_com[1] - com) > 0.01


def test_a_camera_that_turns_by_itself_is_refused(cartpole):
    with pytest.raises(Refused, match="cannot move camera 1, which turns by itself"):
        distractions.camera(cartpole.physics, 1, 0.1, False, True)


# --- the background -----------------------------------------------------------------


def striped(length=5):
    return Film(length, lambda i: np.full((SIDE, SIDE, 3), 10 * i, np.uint8))


def sky(physics):
    model = physics.model
    first = int(model.tex_adr[0])
    return model.tex_data[first : first + SIDE * SIDE * 3]


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_film_runs_to_and_fro_in_the_sky(dynamic):
    with loaded("cartpole") as env:
        env.physics.model.vis.global_.offheight = 8
        film = striped()
        background = distractions.background(env.physics, 0.3, [film], dynamic)
        grid = env.physics.named.model.mat_rgba["grid", "a"]
        assert grid == pytest.approx(0.3, abs=FLOAT32)
        seen = []
        background.begin(1)
        for _ in range(14):
            background.show()
            (shade,) = set(sky(env.physics))
            seen.append(shade // 10)
            background.move()
        if not dynamic:
            assert len(set(seen)) == 1
            return
        changes = np.diff(np.int32(seen))
        assert set(seen) == set(range(5))
        # At either end a frame is shown once more.
        turns = np.flatnonzero(changes == 0)
        assert {seen[turn] for turn in turns} == {0, 4}
        assert set(changes) == {-1, 0, 1} and (np.diff(turns) == 5).all()


@pytest.mark.parametrize(
    ("difficulty", "count"), [*zip(SCALE, (4, 8, 60), strict=True)]
)
def test_the_easier_ones_show_the_first_films(difficulty, count, monkeypatch):
    shown = []
    monkeypatch.setattr(distractions, "background", lambda *given: shown.append(given))
    wear = Wear(("background",), difficulty, dynamic=True)
    distractions.worn(None, "finger", [0], wear)
    ((_, ground, given, dynamic),) = shown
    assert (ground, len(given), dynamic) == (0.3, count, True)
    np.testing.assert_array_equal(given[1].frame(3), films("")[1].frame(3))


# --- all of it ----------------------------------------------------------------------


def episode(world, seed=5, frames=6):
    """Pictures and rewards."""
    pictures, rewards = [world.reset(seed)], []
    for index in range(frames):
        action = np.sin(index + np.arange(len(world.facts.low)))
        rewards.append(world.step(np.float32(action))[1])
        pictures.append(world.observe())
    return np.int32(pictures), rewards


def made(variant, domain="cheetah", size=32, **settings):
    config = DmControlConfig(
        domain=domain, task=TASKS[domain], variant=variant, size=size, **settings
    )
    return registry.REGISTRY["dm_control"].simulator(config)()


@pytest.fixture(scope="module")
def original():
    world = made("original")
    yield episode(world)
    world.close()


@pytest.mark.parametrize(
    "variant",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS[1:]), ALL_THREE],
)
def test_a_variant_changes_the_picture_and_not_the_game(variant, original):
    world = made(variant, difficulty=Difficulty.hard, dynamic=True)
    pictures, rewards = episode(world)
    bare, expected = original
    assert rewards == expected
    assert (np.abs(pictures - bare).mean((1, 2, 3)) > 2).all()
    episode(world, seed=6)
    again, _ = episode(world)
    np.testing.assert_array_equal(again, pictures)
    # For people it looks the same.
    large = np.int32(world.paint(128, 128))
    small = large.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(small - pictures[-1]).mean() < 6
    np.testing.assert_array_equal(world.observe(), pictures[-1])
    world.close()


def test_the_sky_is_what_is_changed_by_a_background(original, tmp_path):
    import cv2

    assert cv2.imwrite(str(tmp_path / "0.png"), np.full((8, 8, 3), (250, 20, 90), "u1"))
    world = made("background", frames=str(tmp_path))
    picture = episode(world, frames=0)[0][0]
    assert (np.abs(picture[:12] - [90, 20, 250]) <= 1).all()
    changed = (picture != original[0][0]).any(-1)
    # Body and ground are as they were, but for the edges that are blended.
    assert 0.4 < changed.mean() < 0.95
    world.close()


@pytest.mark.slow
@pytest.mark.parametrize("domain", TASKS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_every_domain_can_wear_everything(domain, dynamic):
    world = made("original", domain)
    bare, expected = episode(world)
    world.close()
    for variant in (*VARIANTS[1:], ALL_THREE):
        world = made(variant, domain, difficulty=Difficulty.hard, dynamic=dynamic)
        pictures, rewards = episode(world)
        assert rewards == expected
        assert np.abs(pictures - bare).mean() > 1
        world.close()


# --- settings on the command line ---------------------------------------------------


def test_settings_reach_it():
    config = DmControlConfig(
        **{"domain": "walker", "task": "walk", "variant": "background+color"},
        **{"difficulty": Difficulty.medium, "dynamic": True, "frames": "davis"},
    )
    assert config.variant == "color+background"
    make = registry.REGISTRY["dm_control"].simulator(config)
    assert make.keywords["wear"] == Wear(
        ("color", "background"), "medium", True, "davis"
    )
    assert registry.manner(config) == "medium dynamic"
    assert registry.as_variant(config, "camera").frames == ""
    assert registry.as_variant(config, ALL_THREE).frames == "davis"
    assert registry.manner(registry.as_variant(config, "original")) == ""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"variant": "colour"}, "'colour' is none; it must be original, all (for mode"),
        ({"variant": "color", "domain": "hopper"}, "has no env.domain=hopper; it has"),
        ({"frames": "davis"}, "env.frames is davis, but env.variant is original and"),
    ],
    ids=str,
)
def test_what_cannot_be_worn_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        DmControlConfig(**{"domain": "cheetah", "task": "run", **settings})


def test_no_world_is_made_of_all_variants():
    config = DmControlConfig(domain="cheetah", task="run", variant=ALL)
    with pytest.raises(ValueError, match=r"env.variant=all .* mode=evaluate; .*camera"):
        registry.host(config, 1, 60.0)
