import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from envs.adapters.host import host
from envs.adapters.host_pool import RETRIES
from envs.adapters.host_simulator import Playing, decided, sensed
from envs.core import Box
from tests.envs.adapters import host_worlds
from tests.envs.adapters.host_worlds import SIZE, dot, felt, troubled

SEEDS = [3, 11, 4, 3, 8]
PUSH = np.array([0.25, -0.5], np.float32)
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    yield
    assert multiprocessing.active_children() == []
    if before:
        assert set(os.listdir("/dev/shm")) <= before


@pytest.fixture
def hosted():
    """Makes worlds that are closed in the end."""
    made = []

    def make(*arguments, **settings):
        made.append(host(*arguments, **settings))
        return made[-1]

    yield make
    for world in made:
        world.close()


def log(index, seen):
    """An episode's whole story; the action depends on what is seen."""
    story = []
    while not (seen.terminated or seen.truncated):
        light = float(seen.observation[:4].mean())
        seen = yield PUSH * np.float32(np.cos(light + index % 2))
        picture = seen.observation.copy()
        story.append((seen.reward, seen.frames, seen.terminated, picture.tobytes()))
    return story


def alone(simulator, playing, index, seed):
    """The same, without processes."""
    game, frames = decided(simulator, playing, lambda: None)
    picture, story, over = game.reset(seed), [], False
    while not over:
        light = float(picture[:4].mean())
        action = PUSH * np.float32(np.cos(light + index % 2))
        picture, reward, terminated, truncated = game.step(action)
        story.append((reward, frames(), terminated, picture.tobytes()))
        over = terminated or truncated
    return story


def test_results_do_not_depend_on_the_number_of_simulators(hosted):
    playing = Playing(action_repeat=2, frame_stack=2)
    expected = [alone(dot(), playing, i, seed) for i, seed in enumerate(SEEDS)]
    for size in (1, 3):
        world = hosted(dot, size, "Dot", playing)
        assert world.play(SEEDS, log, (0, 0)) == expected
    # A second time, with simulators that have a past.
    assert world.play(SEEDS, log, (0, 0)) == expected
    ends = {story[-1][2] for story in expected}
    assert ends == {True, False}, "some must terminate, some be truncated"


def test_the_spec_is_that_of_the_decisions(hosted):
    spec = hosted(dot, 1, "Dot", Playing(5, 3)).spec
    assert spec.observation.shape == (SIZE, SIZE, 9)
    assert (spec.max_steps, spec.action_repeat, spec.fps) == (3, 5, 10)
    assert (spec.action.shape, spec.action.low) == ((2,), (-1.0, -1.0))


def test_a_vector_lies_beside_the_picture(hosted):
    """In every process what it is in none; pictures are stacked, vectors are not."""
    playing = Playing(action_repeat=2, frame_stack=2)

    def story(index, seen):
        told = []
        while not (seen.terminated or seen.truncated):
            picture, vector = seen.observation
            told.append((picture.tobytes(), vector.tolist()))
            seen = yield PUSH
        return told

    expected = []
    for seed in SEEDS:
        game, _ = decided(felt(), playing, lambda: None)
        plain, _ = decided(dot(), playing, lambda: None)
        (picture, vector), over = game.reset(seed), False
        np.testing.assert_array_equal(picture, plain.reset(seed))
        expected.append([])
        while not over:
            newest = picture[..., 3:]
            np.testing.assert_allclose(
                vector,
                [np.arcsinh(newest.mean()), newest[0, 0, 0], -1],
                rtol=1e-6,  # a few roundings of float32
            )
            expected[-1].append((picture.tobytes(), vector.tolist()))
            (picture, vector), _, *ended = game.step(PUSH)
            np.testing.assert_array_equal(picture, plain.step(PUSH)[0])
            over = any(ended)
    for size in (1, 2):
        world = hosted(felt, size, "Felt", playing)
        assert world.play(SEEDS, story, (0, 0)) == expected
    everything = Box((3,), (-np.inf,), (np.inf,))
    assert world.spec.observation == (world.spec.image, everything)
    assert world.spec.image == Box((SIZE, SIZE, 6), (0,), (255,), "uint8")


def test_no_reading_is_too_much_for_a_policy():
    """Small ones as they are, large ones by their order, what is no number is 0."""
    vector = sensed([1e-3, np.array([[np.sinh(2.0), -1e10]]), np.float32(np.nan)])
    assert vector.dtype == np.float32
    # arcsinh(x) is x - x^3 / 6, and log(2 x) where 1 / x^2 is nothing.
    expected = [1e-3 - 1e-9 / 6, 2, -np.log(2e10), 0]
    np.testing.assert_allclose(vector, expected, rtol=1e-6)
    beyond = sensed([np.inf, -np.inf])
    np.testing.assert_allclose(beyond, np.log(2) * 1025 * np.array([1, -1]), rtol=1e-6)


def test_a_worker_loads_no_jax(hosted):
    world = hosted(functools.partial(dot, tells_jax=True), 1, "Dot")
    assert "jax" in sys.modules
    (story,) = world.play([0], log, (0, 0))
    assert story[0][0] == 0.0


@pytest.mark.parametrize("kind", ["exit", "kill", "raise", "hang"])
def test_an_episode_whose_simulator_is_lost_is_repeated(kind, hosted, tmp_path):
    make = functools.partial(troubled, kind, str(tmp_path), RETRIES)
    world = hosted(make, 2, "Dot", timeout=3.0 if kind == "hang" else 60.0)
    seeds = [4, 3, 8]
    calm = dot(leaves=False)
    expected = [alone(calm, Playing(), i, seed) for i, seed in enumerate(seeds)]
    assert world.play(seeds, log, (0, 0)) == expected
    assert len(list(tmp_path.iterdir())) == RETRIES


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("exit", "its process ended with exit code 3"),
        ("kill", "its process ended with SIGKILL"),
        ("raise", "of RuntimeError: the wheels came off"),
    ],
)
def test_an_episode_that_is_always_lost_is_an_error(kind, why, hosted, tmp_path):
    world = hosted(functools.partial(troubled, kind, str(tmp_path), 99), 2, "Dot")
    sentence = (
        f"Dot failed 3 times in the episode of seed 3, the last time because {why}"
    )
    with pytest.raises(ChildProcessError, match=re.escape(sentence)):
        world.play([4, 3, 8], log, (0, 0))
    assert multiprocessing.active_children() == []
    # The error has not used the world up.
    assert world.play([4], log, (0, 0)) == [alone(dot(leaves=False), Playing(), 0, 4)]


def test_an_agents_error_ends_the_processes(hosted):
    def faulty(index, seen):
        yield PUSH
        raise OSError("the disk is full")

    world = hosted(dot, 2, "Dot")
    with pytest.raises(OSError, match="the disk is full"):
        world.play(SEEDS, faulty, (0, 0))
    assert multiprocessing.active_children() == []


def test_an_agent_may_leave_an_episode(hosted):
    def impatient(index, seen):
        seen = yield PUSH
        return seen.frames

    assert hosted(dot, 2, "Dot").play(SEEDS, impatient, (0, 0)) == [1] * len(SEEDS)


def test_every_game_frame_is_painted(hosted):
    def watching(index, seen):
        shades = [[p[0, 0, 0] for p in seen.paintings]]
        shape = seen.paintings[0].shape
        while not seen.truncated:
            seen = yield PUSH
            shades.append([p[0, 0, 0] for p in seen.paintings])
        return shape, shades

    make = functools.partial(dot, leaves=False, length=5)
    world = hosted(make, 1, "Dot", Playing(action_repeat=2))
    shades = [[0], [1, 2], [3, 4], [5]]
    assert world.play([7], watching, (6, 10)) == [((6, 10, 3), shades)]


def test_a_clock_is_no_end_of_the_world():
    """Truncated by the simulator's clock or by ours; terminated by the world alone."""
    stay = np.zeros(2)
    for length, limit, expected in ((4, 0, 4), (12, 3, 3), (2, 8, 2)):
        world = dot(length, leaves=False)
        game, frames = decided(world, Playing(9, 1, limit), lambda: None)
        game.reset(1)
        *_, terminated, truncated = game.step(stay)
        assert (frames(), terminated, truncated) == (expected, False, True)
        assert game.facts.max_steps == expected
    game, frames = decided(dot(), Playing(9, 1, 3), lambda: None)
    game.reset(1)
    *_, terminated, truncated = game.step(np.array([90.0, 0.0]))
    assert (frames(), terminated, truncated) == (1, True, False)


def test_frames_are_stacked_with_the_newest_last():
    game, _ = decided(dot(leaves=False), Playing(2, 3), lambda: None)
    number = lambda picture: picture[0, 0, ::3].tolist()  # noqa: E731
    assert number(game.reset(1)) == [0, 0, 0]
    assert number(game.step(PUSH)[0]) == [0, 0, 2]
    assert number(game.step(PUSH)[0]) == [0, 2, 4]


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (host_worlds.refused, ValueError, "there is no such world"),
        (
            host_worlds.failing,
            ChildProcessError,
            "Dot could not be started 3 times, the last time because of OSError: no",
        ),
        (
            functools.partial(dot, limited=False),
            ValueError,
            "Dot has no time limit, so that an episode might never end; set env.time",
        ),
    ],
    ids=["refused", "failing", "endless"],
)
def test_what_cannot_be_is_refused(make, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)):
        host(make, 1, "Dot")


@pytest.mark.parametrize(("size", "timeout"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_settings_out_of_bounds_are_refused(size, timeout):
    with pytest.raises(ValueError, match=r"(workers|timeout) is .*; it must be"):
        host(dot, size, "Dot", timeout=timeout)


PROGRAM = """
import signal

import numpy as np
from envs.adapters.host import host
from tests.envs.adapters.host_worlds import slow

def play(index, seen):
    while True:
        yield np.zeros(2, np.float32)

if __name__ == "__main__":
    # Whoever began the tests may have had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    host(slow, 2, "Slow").play([1, 2], play, (0, 0))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_is_stopped_leaves_no_process(number, tmp_path):
    """Ctrl-C reaches all processes of a terminal; SIGKILL the program alone."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with program:
        assert program.stdout and program.stderr
        processes = [
            int(pid) for _ in range(2) for pid in program.stdout.readline().split()
        ]
        if number == signal.SIGINT:
            os.killpg(program.pid, number)
        else:
            program.kill()
        said = program.stderr.read()
    assert len(set(processes)) == 4
    _assert_gone(processes)
    # One traceback, of the program itself.
    assert said.count("KeyboardInterrupt") == (number == signal.SIGINT)


@pytest.mark.parametrize("kind", ["kill", "hang", "none"])
def test_what_a_simulator_started_ends_with_it(kind, hosted, tmp_path):
    troubles, engines = tmp_path / "troubles", tmp_path / "engines"
    troubles.mkdir(), engines.mkdir()
    times = int(kind != "none")
    world = functools.partial(troubled, kind, troubles, times)
    make = functools.partial(host_worlds.engined, world, engines)
    env = hosted(make, 1, "Dot", timeout=3.0 if kind == "hang" else 60.0)
    env.play([3], log, (0, 0))
    env.close()
    started = [int(path.name) for path in engines.iterdir()]
    assert len(started) == 1 + times
    _assert_gone(started)


def _assert_gone(processes):
    deadline = time.monotonic() + 20
    while any(map(_lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_lives, processes))


def _lives(pid):
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return False
