import json
import re

import numpy as np
import pytest

from envs import registry
from envs.adapters import dm_control
from envs.adapters.dm_control import simulator
from envs.adapters.dm_distractions import Wear
from envs.adapters.dm_settings import DmControlConfig, Drawing
from envs.adapters.gymnasium import seen
from envs.adapters.host_simulator import UNDRAWN, Playing, Refused, decided
from envs.settings import Color
from experiments.main import main
from tests.envs.adapters import gl

gl.needed()
CHEETAH = DmControlConfig(domain="cheetah", task="run")


def action(world, index):
    return np.float32(np.sin(index + np.arange(len(world.facts.low))))


@pytest.fixture(scope="module")
def cheetah():
    world = registry.REGISTRY["dm_control"].simulator(CHEETAH)()
    yield world
    world.close()


@pytest.fixture(scope="module")
def theirs():
    """The same task, as dm_control's users make it."""
    from dm_control import suite

    with suite.load("cheetah", "run", task_kwargs={"random": 7}) as env:
        yield env


def test_what_does_not_change(cheetah):
    assert cheetah.facts.picture == (84, 84, 3)
    assert cheetah.facts.low == (-1.0,) * 6 and cheetah.facts.high == (1.0,) * 6
    assert (cheetah.facts.choices, cheetah.facts.max_steps) == (0, 1000)
    assert cheetah.facts.fps == 100


def test_it_is_the_task_of_the_suite(cheetah, theirs):
    """The same rewards, and the same pictures whatever they are drawn in."""
    game, frames = decided(cheetah, Playing(4), lambda: None)
    first = game.reset(7)
    theirs.reset()
    np.testing.assert_array_equal(first, theirs.physics.render(84, 84, camera_id=0))
    for index in range(3):
        picture, reward, *ended = game.step(action(game, index))
        expected = sum(theirs.step(action(game, index)).reward for _ in range(4))
        assert reward == pytest.approx(expected, abs=1e-12) and reward > 0
        assert (frames(), *ended) == (4, False, False)
        own = theirs.physics.render(84, 84, camera_id=0)
        np.testing.assert_array_equal(picture, own)
    large = cheetah.paint(300, 300)  # larger than the agent's
    np.testing.assert_array_equal(large, theirs.physics.render(300, 300, camera_id=0))
    np.testing.assert_array_equal(cheetah.observe(), own)
    # Frames of a film are kept while the next are painted.
    cheetah.step(action(game, 3))
    assert np.any(cheetah.paint(300, 300) != large)
    np.testing.assert_array_equal(large, theirs.physics.render(300, 300, camera_id=0))


def test_an_episode_does_not_depend_on_those_before_it(cheetah):
    def episode(seed):
        pictures, rewards = [cheetah.reset(seed)], []
        for index in range(8):
            rewards.append(cheetah.step(action(cheetah, index))[1])
        return [*pictures, cheetah.observe()], rewards

    pictures, rewards = episode(5)
    others, _ = episode(6)
    assert (others[0] != pictures[0]).any()
    again, same = episode(5)
    np.testing.assert_array_equal(again, pictures)
    assert same == rewards


def test_the_clock_truncates_and_the_task_terminates(cheetah, monkeypatch):
    cheetah.reset(0)
    ended = [cheetah.step(np.zeros(6, np.float32))[2:] for _ in range(1000)]
    assert set(ended[:-1]) == {(False, False)} and ended[-1] == (False, True)
    from dm_control.suite.cheetah import Cheetah

    monkeypatch.setattr(Cheetah, "get_termination", lambda self, physics: 0.0)
    cheetah.reset(0)
    assert cheetah.step(np.zeros(6, np.float32))[2:] == (True, False)


def test_a_state_that_runs_to_infinity_ends_the_episode(cheetah, monkeypatch):
    from dm_control.rl import control

    def broken(self, action):
        raise control.PhysicsError("mjWARN_BADQACC")

    cheetah.reset(0)
    monkeypatch.setattr(control.Environment, "step", broken)
    assert cheetah.step(np.zeros(6, np.float32))[1:] == (0.0, True, False)


def test_nothing_is_drawn_between_two_decisions(cheetah):
    drawn = []

    def observe():
        drawn.append(1)
        return cheetah.observe()

    game, _ = decided(cheetah._replace(observe=observe), Playing(4), lambda: None)
    game.reset(0)
    for index in range(2):
        game.step(action(game, index))
    assert len(drawn) == 2
    assert cheetah.step(action(game, 0))[0] is UNDRAWN


def test_cameras_are_seen_by_number_by_name_and_together(theirs):
    world = simulator("cheetah", "run", "back+0", size=20)
    picture = world.reset(1)
    assert world.facts.picture == (20, 20, 6)
    theirs.task.random.seed(1)
    theirs.reset()
    views = [theirs.physics.render(20, 20, camera_id=name) for name in (1, 0)]
    np.testing.assert_array_equal(picture, np.concatenate(views, -1))
    back = theirs.physics.render(40, 60, camera_id="back")
    np.testing.assert_array_equal(world.paint(40, 60), back)
    world.close()
    grey = simulator("cheetah", "run", "back", size=20, gray=True)
    np.testing.assert_array_equal(grey.reset(1), seen(views[0], 0, True))
    grey.close()


def test_a_light_picture_shows_the_same_with_rougher_edges(theirs):
    theirs.task.random.seed(1)
    theirs.reset()
    full = theirs.physics.render(84, 84, camera_id=0).astype(int)
    world = simulator("cheetah", "run", size=84, drawing="light")
    apart = np.abs(world.reset(1) - full)
    world.close()
    # 0.59 of 255 levels; twice that would be a picture without shadows (1.14). Edges
    # are where it is more than 8 levels, in a hundredth of the picture or so.
    assert 0 < apart.mean() < 0.8
    assert np.mean(apart.max(axis=-1) > 8) < 0.05


def test_a_plain_picture_has_neither_shadows_nor_reflections(theirs):
    theirs.task.random.seed(1)
    theirs.reset()
    flags = {"shadow": False, "reflection": False}
    full = theirs.physics.render(84, 84, camera_id=0).astype(int)
    bare = theirs.physics.render(84, 84, camera_id=0, render_flag_overrides=flags)
    world = simulator("cheetah", "run", size=84, drawing="plain")
    plain = world.reset(1).astype(int)
    world.close()
    # But for its edges (0.59 levels, as above) it is the bare one; shadows and the
    # floor's mirror are more (1.3 with the edges).
    assert np.abs(plain - bare).mean() < 0.8 < 1.1 < np.abs(plain - full).mean()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("chetah", "run"), "env.domain is chetah, and no domain; did you mean cheeta"),
        (("", "run"), "env.domain is empty, and no domain; it must be one of acrobot"),
        (("walker", "wlak"), "env.task is wlak, and no task of env.domain=walker; did"),
        (
            ("walker", ""),
            "env.task is empty, and no task of env.domain=walker; it mus",
        ),
        (("lqr", "lqr_2_1"), "the actions of lqr lqr_2_1 have no bounds"),
        (("walker", "run", "top"), "no camera 'top'; it has 0 (side), 1 (back), and"),
        (("walker", "run", "0+7"), "env.camera is 0+7, but walker has no camera '7'"),
    ],
    ids=str,
)
def test_what_is_not_there_is_refused(arguments, sentence):
    with pytest.raises(Refused, match=re.escape(sentence)):
        simulator(*arguments)


@pytest.mark.parametrize(
    ("version", "cure"),
    [((3, 12), "run pip install 'dm-control"), ((3, 13), "use Python 3.11 or 3.12")],
)
def test_a_missing_package_is_named(version, cure, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(dm_control.sys, "version_info", version)
    with pytest.raises(Refused, match=f"needs the package dm-control, .*{cure}"):
        simulator("cheetah", "run")


def test_a_mujoco_that_it_does_not_know_is_named(monkeypatch):
    def load(*_, **__):
        raise AttributeError("module 'mujoco' has no attribute 'x'")

    monkeypatch.setattr("dm_control.suite.load", load)
    with pytest.raises(Refused, match=r"with mujoco 3\..*'x'; it needs 'mujoco<4'"):
        simulator("cheetah", "run")


def test_a_machine_that_cannot_draw_says_so(monkeypatch):
    def render(*_, **__):
        raise RuntimeError("no display")

    monkeypatch.setattr("dm_control.mujoco.engine.Camera.render", render)
    with pytest.raises(Refused, match=r"cannot draw .*: no display; run apt-get insta"):
        simulator("cheetah", "run")


def test_its_settings_reach_it():
    config = DmControlConfig(
        domain="walker",
        task="walk",
        camera="back",
        proprioception="height",
        size=12,
        color=Color.gray,
        drawing=Drawing.light,
    )
    make = registry.REGISTRY["dm_control"].simulator(config)
    assert make.args == ("walker", "walk")
    assert make.keywords == {
        "camera": "back",
        "size": 12,
        "gray": True,
        "proprioception": "height",
        "drawing": "light",
        "wear": Wear(),
    }
    assert registry.title(config) == "walker walk"


def test_a_quadruped_feels_what_is_asked_for_and_sees_with_its_own_camera():
    from dm_control import suite

    names = "egocentric_state+torso_upright+imu"
    world = simulator("quadruped", "escape", "egocentric", 32, proprioception=names)
    assert (world.facts.picture, world.facts.vector) == ((32, 32, 3), 44 + 1 + 6)
    with suite.load("quadruped", "escape", task_kwargs={"random": 3}) as theirs:
        game, _ = decided(world, Playing(2), lambda: None)
        now, (picture, vector) = theirs.reset(), game.reset(3)
        for index in range(3):
            readings = [np.ravel(now.observation[name]) for name in names.split("+")]
            expected = np.arcsinh(np.concatenate(readings)).astype(np.float32)
            np.testing.assert_array_equal(vector, expected)
            own = theirs.physics.render(32, 32, camera_id="egocentric")
            np.testing.assert_array_equal(picture, own)
            (picture, vector), _, *_ = game.step(action(game, index))
            now = [theirs.step(action(game, index)) for _ in range(2)][-1]
    world.close()


def test_a_feeling_that_there_is_not_is_refused():
    with pytest.raises(Refused, match="no observation 'eyes'; it has position, veloc"):
        simulator("cheetah", "run", proprioception="position+eyes")


# --- slow ones ----------------------------------------------------------------------


@pytest.mark.slow
def test_every_task_with_bounds_can_be_played():
    from dm_control import suite

    played, unbounded = 0, []
    for domain, task in suite.ALL_TASKS:
        try:
            world = simulator(domain, task, size=16)
        except Refused as refused:
            assert "have no bounds" in str(refused)
            unbounded.append(domain)
            continue
        assert world.facts.picture == (16, 16, 3)
        assert world.facts.max_steps == 1000
        assert np.all(np.less(world.facts.low, world.facts.high))
        start = world.reset(3)
        rewards = [world.step(action(world, index))[1] for index in range(3)]
        world.reset(4)
        np.testing.assert_array_equal(world.reset(3), start, f"{domain} {task}")
        again = [world.step(action(world, index))[1] for index in range(3)]
        assert again == rewards, f"{domain} {task}"
        assert np.ptp(start) > 0 and np.isfinite(rewards).all()
        world.close()
        played += 1
    assert unbounded == ["lqr", "lqr"]
    assert played == len(suite.ALL_TASKS) - 2


@pytest.mark.slow
def test_it_is_learned_in_evaluated_and_filmed(tmp_path, capsys):
    quick = (
        *("agent.population=2", "agent.episodes=1", "controller=mlp", "iterations=1"),
        *("encoder.window=12", "encoder.stride=12", "encoder.top_k=3", "env.size=24"),
        *("evaluate_every=0", "film_every=0", "workers=2", "env.time_limit=10"),
    )
    task = ("env=dm_control", "env.domain=cartpole", "env.task=swingup")
    assert main([*task, f"root={tmp_path}", *quick]) == 0
    (run,) = (path for path in tmp_path.iterdir() if path.is_dir())
    summary = json.loads((run / "summary.json").read_text())
    assert summary["env"] == "cartpole swingup"
    assert summary["training"]["decisions"] == 2 * 3  # of 4, 4 and 2 frames
    returns = []
    for workers in (1, 2):
        arguments = (f"run={run}", "episodes=3", f"workers={workers}")
        assert main(["mode=evaluate", *arguments]) == 0
        scored = json.loads((run / "evaluation-2000-3.json").read_text())
        returns.append(scored["returns"])
    assert returns[0] == returns[1] and len(set(returns[0].values())) == 3
    hard = ("env.difficulty=hard", "episodes=3")
    assert main(["mode=evaluate", f"run={run}", "env.variant=all", *hard]) == 0
    table = json.loads((run / "variants-2000-3-difficulty=hard.json").read_text())
    scores = table["variants"]
    assert [*scores] == [*registry.REGISTRY["dm_control"].variants]
    assert scores["original"]["returns"] == returns[0]
    assert {score["manner"] for score in scores.values()} == {"", "hard static"}
    assert main(["mode=evaluate", f"run={run}", "env.variant=color", *hard]) == 0
    file = run / "evaluation-color-2000-3-difficulty=hard.json"
    alone = json.loads(file.read_text())
    assert alone["returns"] == scores["color"]["returns"]
    told = capsys.readouterr().out
    assert "on 3 tracks (2000 to 2002), variant color hard static, action" in told
    arguments = ("mode=record", f"run={run}", "episodes=1", "height=240")
    assert main(list(arguments)) == 0
    assert (run / "videos" / "track-2000.mp4").stat().st_size > 1000


@pytest.mark.slow
def test_a_quadruped_that_sees_and_feels_is_trained_evaluated_and_filmed(
    tmp_path, capsys
):
    """The preset, made short; with patches chosen by rank and with a transformer."""
    quick = (
        *("agent.population=2", "agent.episodes=1", "iterations=2", "save_every=1"),
        *("evaluate_every=0", "film_every=0", "env.time_limit=8", "env.size=32"),
        "height=120",
    )
    for encoder, strategy in (("default", "CMA_ES"), ("trans", "Sep_CMA_ES")):
        root = tmp_path / encoder
        line = (*quick, f"encoder={encoder}", f"root={root}")
        line += (f"agent.strategy={strategy}",)
        assert main(["experiment=quadruped", *line]) == 0, capsys.readouterr().err
        (run,) = (path for path in root.iterdir() if path.is_dir())
        for mode in ("evaluate", "record"):
            arguments = [f"mode={mode}", f"run={run}", "episodes=2", "height=240"]
            assert main(arguments) == 0, capsys.readouterr().err
        scored = json.loads((run / "evaluation-2000-2.json").read_text())
        assert len(set(scored["returns"].values())) == 2
        assert (run / "videos" / "track-2000-1.png").stat().st_size > 1000
