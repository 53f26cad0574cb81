import json
import re
from pathlib import Path

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs import registry
from envs.adapters.gymnasium import seen, simulator
from envs.adapters.gymnasium_settings import GymnasiumConfig
from envs.adapters.host_simulator import Playing, Refused, decided
from envs.car_racing.settings import GymnasiumCarRacingConfig
from envs.settings import Color
from envs.transforms import luma
from experiments.arguments import compose
from experiments.main import main

CHASE = "tests.envs.adapters.own_world:Chase-v0"
GENERATOR = np.random.default_rng(0)
IMAGE = spaces.Box(0, 255, (6, 8, 3), np.uint8)
VECTOR = spaces.Box(-1, 1, (4,))


class Panel(gymnasium.Env):
    """Shows the number of its steps, in spaces that are given."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(self, observation=IMAGE, action=None, render_mode=None):
        self.observation_space = observation
        self.action_space = action or spaces.Discrete(3, start=-1)
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.played = 0, None
        return self._observation(self.observation_space), {}

    def step(self, action):
        self.count, self.played = self.count + 1, action
        over = self.count == 3
        return self._observation(self.observation_space), 0.5, over, False, {}

    def render(self):
        assert self.render_mode == "rgb_array"
        return np.full((6, 8, 3), 100 + self.count, np.uint8)

    def _observation(self, space):
        if isinstance(space, spaces.Dict):
            return {k: self._observation(v) for k, v in space.items()}
        return np.full(space.shape, self.count, space.dtype)


class Blind(Panel):
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012


@pytest.fixture(autouse=True, scope="module")
def panel():
    gymnasium.register("Panel-v0", Panel, max_episode_steps=7)
    gymnasium.register("Blind-v0", Blind)
    yield
    del gymnasium.registry["Panel-v0"], gymnasium.registry["Blind-v0"]


def made(pixels="", **options):
    return simulator("Panel-v0", options, pixels)


def light(picture):
    (value,) = set(picture.ravel().tolist())
    return value


@pytest.mark.parametrize(
    ("space", "pixels", "expected"),
    [
        (IMAGE, "", 1),
        (IMAGE, "observation", 1),
        (IMAGE, "render", 101),
        (VECTOR, "", 101),
        (spaces.Dict(eye=IMAGE, speed=VECTOR), "", 1),
        (spaces.Dict(eye=IMAGE, other=IMAGE), "eye", 1),
        (spaces.Dict(speed=VECTOR), "", 101),
    ],
    ids=str,
)
def test_where_the_picture_comes_from(space, pixels, expected):
    world = made(pixels, observation=space)
    world.reset(0)
    undrawn, reward, terminated, truncated = world.step(np.int32(0))
    picture = world.observe()
    assert undrawn.size == 0, "drawn when it is asked for"
    assert picture.shape == world.facts.picture == (6, 8, 3)
    assert (light(picture), reward, terminated, truncated) == (expected, 0.5, 0, 0)
    assert light(world.paint(12, 20)) == expected
    assert (world.facts.max_steps, world.facts.fps) == (7, 12)


@pytest.mark.parametrize(
    ("options", "pixels", "sentence"),
    [
        ({"observation": VECTOR}, "observation", "env.pixels is observation, but"),
        ({"observation": spaces.Dict(a=IMAGE, b=IMAGE)}, "", "env.pixels, a or b"),
        ({"observation": spaces.Dict(a=IMAGE)}, "c", "is not there, and no image"),
        ({"action": spaces.MultiDiscrete([2, 2])}, "", "are MultiDiscrete"),
        ({"action": spaces.Box(-np.inf, np.inf, (1,))}, "", "have no bounds"),
        ({"wings": 2}, "", "cannot make env.id=Panel-v0 with {'wings': 2}: "),
    ],
    ids=str,
)
def test_what_cannot_be_played_is_refused(options, pixels, sentence):
    with pytest.raises(Refused, match=re.escape(sentence)):
        made(pixels, **options)


def test_a_world_without_pixels_is_refused():
    sentence = "no pixels to be had of Blind-v0: .*, and it renders ansi, not rgb_array"
    with pytest.raises(Refused, match=sentence):
        simulator("Blind-v0", {"observation": VECTOR})


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("CarRacin-v3", "did you mean CarRacing-v3"),
        ("CarRacing-v99", "did you mean CarRacing-v3"),
        (
            "no_such_module:World-v0",
            "cannot be imported: No module named 'no_such_module'",
        ),
        ("xyzzy", "env.id=xyzzy is not registered with Gymnasium"),
    ],
)
def test_an_unknown_id_is_refused(id, sentence):
    with pytest.raises(Refused, match=re.escape(sentence)):
        simulator(id, {})


def test_a_missing_package_is_named(monkeypatch):
    def missing(*_, **__):
        raise gymnasium.error.DependencyNotInstalled('run `pip install "gymnasium[x]"`')

    monkeypatch.setattr(gymnasium, "make", missing)
    with pytest.raises(Refused, match=r"not installed: run `pip install"):
        simulator("CarRacing-v3", {})


def test_frames_that_the_agent_does_not_see_are_not_rendered(monkeypatch):
    rendered = []
    render = Panel.render
    monkeypatch.setattr(
        Panel, "render", lambda self: rendered.append(self.count) or render(self)
    )
    game, _ = decided(made("render"), Playing(action_repeat=2), lambda: None)
    game.reset(0)
    rendered.clear()
    picture, reward, *_ = game.step(np.int32(0))
    assert (light(picture), reward, rendered) == (102, 1.0, [2])


def test_choices_begin_where_the_environment_counts_from():
    env = made().facts
    assert (env.choices, env.low) == (3, ())
    world = gymnasium.make("Panel-v0", disable_env_checker=True)
    assert world.action_space.start == -1
    played = []
    step = Panel.step
    Panel.step = lambda self, action: played.append(action) or step(self, action)
    try:
        playing = made()
        playing.reset(0)
        for choice in range(3):
            playing.step(np.int32(choice))
    finally:
        Panel.step = step
    assert played == [-1, 0, 1]


def test_actions_have_the_shape_of_the_environment():
    box = spaces.Box(np.array([[-1.0, 0.0]], "f4"), np.array([[1.0, 2.0]], "f4"))
    world = made(action=box)
    assert (world.facts.low, world.facts.high) == ((-1.0, 0.0), (1.0, 2.0))
    world.reset(0)
    world.step(np.zeros(2, np.float32))


def test_pictures_are_resized_and_turned_grey():
    image = GENERATOR.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(seen(image, 0, True), luma(jnp.asarray(image)))
    np.testing.assert_array_equal(seen(image, 0, False), image)
    # Shrunk to whole blocks it is their mean, rounded.
    square = np.repeat(np.repeat(image[:4, :4], 2, 0), 2, 1)
    np.testing.assert_array_equal(seen(square, 4, False), image[:4, :4])
    assert seen(image[..., 0], 12, True).shape == (12, 12, 1)


def car(seed, config, steps):
    make = registry.REGISTRY[config.name].simulator
    game, _ = decided(make(config)(), Playing(config.action_repeat), lambda: None)
    pictures = [game.reset(seed).copy()]
    total = 0.0
    for index in range(steps):
        action = np.array([0.2 * np.sin(index), 0.6, 0.0], np.float32)
        picture, reward, *_ = game.step(action)
        pictures.append(picture.copy())
        total += reward
    return pictures, total, game


def test_the_real_car_racing_is_gymnasiums():
    pictures, total, game = car(2000, GymnasiumCarRacingConfig(), 3)
    env = gymnasium.make("CarRacing-v3")
    picture, _ = env.reset(seed=2000)
    np.testing.assert_array_equal(pictures[0], picture)
    expected = 0.0
    for index in range(3):
        for _ in range(4):
            action = np.array([0.2 * np.sin(index), 0.6, 0.0], np.float32)
            picture, reward, *_ = env.step(action)
            expected += reward
        np.testing.assert_array_equal(pictures[index + 1], picture)
    assert total == pytest.approx(expected, abs=1e-9)
    assert game.facts.max_steps == 1000
    # For people the same view is drawn larger.
    small = np.asarray(game.paint(96, 96), float)
    assert np.abs(small - pictures[-1]).mean() < 8
    env.close()


def test_an_episode_does_not_depend_on_those_before_it():
    config = GymnasiumCarRacingConfig(size=48, color=Color.gray)
    alone, total, _ = car(2001, config, 12)
    make = registry.REGISTRY[config.name].simulator
    used, _ = decided(make(config)(), Playing(4), lambda: None)
    for seed in (2000, 2002):
        used.reset(seed)
        for index in range(12):
            used.step(np.array([0.2 * np.sin(index), 0.6, 0.0], np.float32))
    assert used.facts.picture == (48, 48, 1)
    pictures = [used.reset(2001).copy()]
    again = 0.0
    for index in range(12):
        action = np.array([0.2 * np.sin(index), 0.6, 0.0], np.float32)
        picture, reward, *_ = used.step(action)
        pictures.append(picture.copy())
        again += reward
    np.testing.assert_array_equal(pictures, alone)
    assert again == total


@pytest.mark.parametrize("config", [GymnasiumConfig, GymnasiumCarRacingConfig])
def test_impossible_settings_are_refused(config):
    with pytest.raises(ValueError, match=r"env.action_repeat is 0; it must be"):
        config(action_repeat=0)


def test_an_id_is_needed():
    with pytest.raises(ValueError, match=r"env.id is empty; env=gymnasium needs"):
        registry.host(GymnasiumConfig(), 1, 60.0)


# --- the command line ---------------------------------------------------------------

QUICK = (
    *("agent.population=2", "agent.episodes=2", "controller=mlp", "controller.size=4"),
    *("encoder.window=4", "encoder.stride=4", "encoder.top_k=3", "encoder.features=8"),
    *("evaluate_every=0", "film_every=0", "iterations=1", "workers=2"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in a world of one's own."""
    root = tmp_path_factory.mktemp("runs")
    status = main(["env=gymnasium", f"env.id={CHASE}", f"root={root}", *QUICK])
    assert status == 0
    (path,) = (path for path in root.iterdir() if path.is_dir())
    return path


def test_a_world_of_ones_own_is_trained_in(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["env"] == CHASE
    assert len(summary["returns"]) == 100
    assert summary["training"]["decisions"] == 2 * 2 * 20
    assert len(set(summary["returns"].values())) > 50


def test_it_is_evaluated_with_any_number_of_workers(run, capsys):
    results = []
    for workers in (1, 2):
        arguments = (f"run={run}", "episodes=3", f"workers={workers}")
        assert main(["mode=evaluate", *arguments]) == 0
        results.append(json.loads((run / "evaluation-2000-3.json").read_text()))
    summary = json.loads((run / "summary.json").read_text())
    assert results[0]["returns"] == results[1]["returns"]
    assert results[0]["returns"].items() <= summary["returns"].items()
    assert f", in {CHASE}, on 3 tracks (2000 to 2002) ..." in capsys.readouterr().out


def test_it_is_filmed(run):
    arguments = ("mode=record", f"run={run}", "episodes=1", "height=240")
    assert main(list(arguments)) == 0
    assert (run / "videos" / "track-2000.mp4").stat().st_size > 1000
    assert len(list((run / "videos").glob("track-2000-*.png"))) == 3


def test_what_both_worlds_can_be_set_to_is_taken_along(run):
    """An agent sees and acts elsewhere as in training, unless told otherwise."""
    arguments = (f"run={run}", "mode=evaluate", "env=CarRacing", "env.tracks=7")
    env = compose(arguments).env
    assert (env.action_repeat, env.time_limit, env.tracks) == (1, 0, 7)
    assert env.name == "CarRacing" and env.color is Color.rgb


def test_a_score_in_another_world_has_its_own_file(run):
    before = set(run.glob("evaluation-*"))
    arguments = (f"run={run}", "mode=evaluate", "episodes=1")
    assert main([*arguments, f"env.id={CHASE.replace('v0', 'v1')}"]) == 0
    (file,) = set(run.glob("evaluation-*")) - before
    assert file.name == "evaluation-tests.envs.adapters.own_world-Chase-v1-2000-1.json"
    assert json.loads(file.read_text())["decisions"] == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("env.id=Chas-v0",), "env.id=Chas-v0 is not registered"),
        (
            (f"env.id={CHASE}", "agent=ppo", "agent.steps=10", "agent.minibatches=5"),
            "agent.steps is 10, but an episode of this world may take 20 decisions",
        ),
        ((f"env.id={CHASE}", "workers=-1"), "workers is -1; it must be at least 0"),
        ((f"env.id={CHASE}", "timeout=0"), "timeout is 0.0; it must be more than 0"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments, sentence, tmp_path, capsys):
    assert main(["env=gymnasium", *arguments, f"root={tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_the_documentation_shows_this_world():
    root = Path(__file__).parents[3]
    code = (root / "tests/envs/adapters/own_world.py").read_text()
    shown = code[code.index("import gymnasium") :]
    assert shown in (root / "docs/worlds.md").read_text()
