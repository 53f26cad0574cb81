"""Workers on a Ray cluster of three nodes, all of them on this machine."""

import functools
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from envs import registry
from envs.adapters.gymnasium_settings import GymnasiumConfig
from envs.adapters.host import host
from envs.adapters.host_simulator import Playing
from tests.envs.adapters import host_worlds
from tests.envs.adapters.host_worlds import dot, troubled
from tests.envs.adapters.test_host import PUSH, alone, log

ROOT = Path(__file__).parents[3]
SEEDS = [4, 3, 8, 11, 5, 6]


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = made.address
    yield made
    ray.shutdown()
    made.shutdown()
    del os.environ["RAY_ADDRESS"]
    if before is not None:
        os.environ["RAY_ADDRESS"] = before


@pytest.fixture
def hosted(cluster):
    """Makes worlds whose workers are actors; they are closed in the end."""
    from envs.adapters import host_ray

    made = []

    def make(*arguments, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backend = host_ray.backend()
        made.append(host(*arguments, **settings, backend=backend))
        return made[-1]

    yield make
    for world in made:
        world.close()


pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_results_are_those_of_local_workers(hosted):
    playing = Playing(action_repeat=2, frame_stack=2)
    with_processes = host(dot, 2, "Dot", playing)
    expected = with_processes.play(SEEDS, log, (0, 0))
    with_processes.close()
    assert hosted(dot, 3, "Dot", playing).play(SEEDS, log, (0, 0)) == expected


def test_workers_are_spread_over_the_nodes(hosted, tmp_path):
    make = functools.partial(host_worlds.located, str(tmp_path))
    hosted(make, 3, "Dot").play(range(60), log, (0, 0))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_world_of_the_registry_has_a_worker_for_each_core_of_the_cluster(cluster):
    config = GymnasiumConfig(id="tests.envs.adapters.own_world:Chase-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world = registry.host(config, 0, 60.0, on_ray=True)
    local = registry.host(config, 1, 60.0)
    try:
        assert (world.size, world.spec) == (3, local.spec)
        expected = local.play(SEEDS, log, (0, 0))
        assert world.play(SEEDS, log, (0, 0)) == expected
    finally:
        world.close()
        local.close()


@pytest.mark.parametrize("kind", ["kill", "exit", "raise", "hang"])
def test_an_episode_whose_actor_is_lost_is_repeated(kind, hosted, tmp_path):
    make = functools.partial(troubled, kind, str(tmp_path), 2)
    world = hosted(make, 3, "Dot", timeout=8.0 if kind == "hang" else 60.0)
    calm = dot(leaves=False)
    expected = [alone(calm, Playing(), i, seed) for i, seed in enumerate(SEEDS)]
    assert world.play(SEEDS, log, (0, 0)) == expected
    assert len(list(tmp_path.iterdir())) == 2


def test_an_episode_that_is_always_lost_is_an_error(hosted, tmp_path):
    world = hosted(functools.partial(troubled, "raise", str(tmp_path), 99), 2, "Dot")
    sentence = (
        "Dot failed 3 times in the episode of seed 3, the last time because of "
        "RuntimeError: the wheels came off"
    )
    with pytest.raises(ChildProcessError, match=re.escape(sentence)):
        world.play([4, 3, 8], log, (0, 0))


def test_a_simulator_that_cannot_be_made_is_refused(hosted):
    with pytest.raises(ValueError, match=r"^there is no such world$"):
        hosted(host_worlds.refused, 1, "Dot")


def test_every_game_frame_is_painted_and_no_jax_is_loaded(hosted):
    def watching(index, seen):
        shades = [[p[0, 0, 0] for p in seen.paintings]]
        while not seen.truncated:
            seen = yield PUSH
            shades.append([p[0, 0, 0] for p in seen.paintings])
        return shades, seen.reward

    make = functools.partial(dot, leaves=False, length=5, tells_jax=True)
    world = hosted(make, 1, "Dot", Playing(action_repeat=2))
    assert world.play([7], watching, (6, 10)) == [([[0], [1, 2], [3, 4], [5]], 0.0)]


def test_the_loss_of_a_node_is_survived(cluster, hosted):
    """The last test of the cluster: one of its machines is gone after it."""
    make = functools.partial(dot, 40, leaves=False)
    world = hosted(make, 3, "Dot", timeout=20.0)
    calm = make()
    expected = [alone(calm, Playing(), i, seed) for i, seed in enumerate(SEEDS)]
    gone = []

    def treacherous(index, seen):
        episode = log(index, seen)
        action = next(episode)
        try:
            for step in range(1000):
                if index == 4 and step == 5 and not gone:
                    gone.append(cluster.worker_nodes.copy().pop())
                    cluster.remove_node(gone[0], allow_graceful=False)
                action = episode.send((yield action))
        except StopIteration as over:
            return over.value

    assert world.play(SEEDS, treacherous, (0, 0)) == expected
    assert len(gone) == 1


def test_an_address_where_no_one_listens_is_refused(monkeypatch):
    pytest.importorskip("ray").shutdown()
    from envs.adapters import host_ray

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(
        ValueError, match=r"answers at RAY_ADDRESS=127\.0\.0\.1:1: .*re"
    ):
        host_ray.backend()


PROGRAM = """
import sys
from envs.adapters.host_ray import backend
from envs.adapters.host import host
from tests.envs.adapters.host_worlds import dot
from tests.envs.adapters.test_host import log

if __name__ == "__main__":
    import psutil
    world = host(dot, 2, "Dot", backend=backend())
    print(*(child.pid for child in psutil.Process().children(recursive=True)))
    sys.stdout.flush()
    world.play([1, 2, 3], log, (0, 0))
    if sys.argv[1] == "raises":
        raise OSError("the disk is full")
    if sys.argv[1] == "is stopped":
        # Ctrl-C reaches all processes of a terminal.
        import os, signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.killpg(0, signal.SIGINT)
        time.sleep(60)
"""


@pytest.mark.parametrize("end", ["succeeds", "raises", "is stopped"])
def test_a_cluster_of_its_own_ends_with_the_program(end, tmp_path):
    pytest.importorskip("psutil")
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, str(file), end],
        capture_output=True,
        text=True,
        env=environment,
        start_new_session=True,
    )
    started = list(map(int, done.stdout.split()))
    assert len(started) > 4, done.stderr
    assert ("the disk is full" in done.stderr) == (end == "raises")
    assert done.stderr.count("KeyboardInterrupt") == (end == "is stopped")
    deadline = time.monotonic() + 30
    while any(map(_lives, started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in started if _lives(pid)] == []


def _lives(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
