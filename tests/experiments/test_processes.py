"""One run trained by two processes, as the command line starts them."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import processes
from experiments.config import Config
from experiments.folder import RunError
from experiments.main import main
from tests.experiments.kept import kept

ROOT = Path(__file__).parents[2]
EYES = ("encoder.window=3", "encoder.stride=3", "encoder.top_k=3", "encoder.features=8")
COMMON = (
    *("env=Probe", "controller=mlp", "controller.size=4", *EYES),
    *("evaluate_every=2", "save_every=2", "film_every=0"),
)
ES = (*COMMON, "agent=es", "agent.population=6", "agent.strategy=SimpleES")
PPO = (
    *(*COMMON, "agent=ppo", "agent.worlds=4", "agent.steps=6"),
    *("agent.minibatches=2", "agent.epochs=2"),
)


def start(cwd, *settings, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.experiments.probe_run", *settings],
        cwd=cwd,
        env={
            **os.environ,
            **{"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(cwd, *settings, apart=((), ())):
    """Two processes of one device each; `apart` are settings of each alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        start(
            *(cwd, "distributed=true", "devices=1", *settings, *apart[number]),
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in (0, 1)
    ]


def ended(*started):
    """(exit status, stdout, stderr) of each."""
    outputs = [process.communicate(timeout=500) for process in started]
    return [(p.returncode, *o) for p, o in zip(started, outputs, strict=True)]


def two(cwd, *settings):
    cwd.mkdir(exist_ok=True)
    first, second = ended(*start_two(cwd, *settings))
    assert first[0] == second[0] == 0, first[2] + second[2]
    said = [line for line in second[1].splitlines() if not line.startswith("[Gloo]")]
    assert said == [], "one process speaks for both"
    return first[1]


def one(cwd, devices, *settings):
    cwd.mkdir()
    ((status, out, err),) = ended(start(cwd, f"devices={devices}", *settings))
    assert status == 0, err
    return out


def kept_in(cwd):
    return kept(*(cwd / "runs").iterdir())


def alike(a, b, atol):
    for row, other in zip(a[0], b[0], strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], atol=atol, err_msg=name)
    assert a[1].keys() == b[1].keys()
    for name, array in a[1].items():
        np.testing.assert_allclose(array, b[1][name], atol=atol, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("agent", [ES, PPO], ids=["es", "ppo"])
def test_two_processes_learn_as_one_does(agent, tmp_path):
    """Stopped half-way too, with what both hold saved and restored."""
    out = two(tmp_path / "two", *agent, "iterations=2")
    assert "in each of 2 processes" in out
    out = two(tmp_path / "two", *agent, "iterations=4")
    assert "Going on from iteration 2" in out
    found = kept_in(tmp_path / "two")
    assert [row["iteration"] for row in found[0]] == [1, 2, 3, 4]
    for devices in (1, 2):
        one(tmp_path / f"one{devices}", devices, *agent, "iterations=4")
        # Adam divides rounding by its own size; evolution sees ranks, and returns
        # are sums of 6 float32 rewards.
        atol = 2e-3 if agent is PPO else 1e-5
        alike(found, kept_in(tmp_path / f"one{devices}"), atol)


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_process_stops_both(told, tmp_path):
    started = start_two(tmp_path, *ES, "iterations=100000")
    for line in started[0].stdout or ():
        if line.startswith("generation 3/"):
            started[told].send_signal(signal.SIGTERM)
            break
    first, second = ended(*started)
    assert first[0] == second[0] == 128 + signal.SIGTERM, first[2] + second[2]
    assert "all is saved" in first[1]
    assert re.search(r"run\.py resume=\S+ distributed=true$", first[1], re.MULTILINE)
    assert kept_in(tmp_path)[0][-1]["iteration"] >= 3


@pytest.mark.slow
def test_when_a_process_is_lost_the_other_says_so(tmp_path):
    started = start_two(tmp_path, *PPO, "iterations=100000", "save_every=1")
    for line in started[0].stdout or ():
        if line.startswith("iteration 3/"):
            started[1].kill()
            break
    (status, _, err), _ = ended(*started)
    assert status == 1 and "error: the processes lost each other" in err
    assert "Traceback" not in err
    assert kept_in(tmp_path)[0][-1]["iteration"] >= 3


@pytest.mark.slow
def test_processes_with_different_settings_are_refused(tmp_path):
    apart = ("seed=1",), ("seed=2",)
    for status, _, err in ended(*start_two(tmp_path, *ES, apart=apart)):
        assert status == 1
        assert "process 1 was started with other settings than process 0" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({processes.COUNT: "2"}, "JAX_COORDINATOR_ADDRESS is not set; set JAX_COORD"),
        (
            {processes.ADDRESS: "a:1", processes.COUNT: "2"},
            "JAX_PROCESS_ID is not set",
        ),
        (
            {processes.ADDRESS: "a:1", processes.COUNT: "x", processes.NUMBER: "0"},
            "JAX_NUM_PROCESSES is 'x'; it must be a whole number of at least 1",
        ),
        (
            {processes.ADDRESS: "a:1", processes.COUNT: "2", processes.NUMBER: "2"},
            "JAX_PROCESS_ID is '2'.* below JAX_NUM_PROCESSES=2",
        ),
        (
            {processes.ADDRESS: "a", processes.COUNT: "2", processes.NUMBER: "0"},
            "JAX_COORDINATOR_ADDRESS is 'a'; it must be host:port",
        ),
    ],
)
def test_an_environment_that_does_not_connect_is_refused(
    environment, sentence, monkeypatch
):
    for name in processes.NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=sentence):
        processes.join()
    assert not jax.distributed.is_initialized()


@pytest.mark.slow
def test_where_no_launcher_is_known_the_cure_is_named(tmp_path):
    """In a process of its own: what JAX connects it never takes apart again."""
    names = {name: value for name, value in os.environ.items() if "JAX" not in name}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "distributed=true"],
        **{"cwd": tmp_path, "env": names, "capture_output": True, "text": True},
    )
    assert done.returncode == 1
    assert "the processes did not find each other" in done.stderr
    assert "set JAX_COORDINATOR_ADDRESS=host:port" in done.stderr


def test_only_training_is_distributed(capsys):
    assert main(["mode=play", "distributed=true"]) == 1
    assert "distributed=true is for training; mode=play" in capsys.readouterr().err


def test_alone_a_process_is_the_first():
    assert processes.first() and not processes.several()
    assert processes.highest(15) == 15
    processes.check_same(Config())


def test_one_process_joins_once(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax.distributed, "initialize", None)
    processes.join()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"iterations": 7},
        {"save_every": 7},
        {"fresh": True},
        {"devices": 1},
    ],
    ids=lambda other: next(iter(other)),
)
def test_all_are_started_alike(other, monkeypatch):
    """Of what concerns them all; how a process says it is its own."""
    said = []

    def gather(number):
        said.append(number)
        return np.array(said)

    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gather)
    processes.check_same(Config())
    processes.check_same(Config(height=100))
    with pytest.raises(RunError, match="process 2 was started with other settings"):
        processes.check_same(dataclasses.replace(Config(), **other))


@pytest.mark.parametrize(
    ("sentence", "lost"),
    [
        ("UNAVAILABLE: connection reset by peer.", True),
        ("INTERNAL: Gloo all-reduce failed", True),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.", False),
        ("INVALID_ARGUMENT: Executable expected parameter 0", False),
    ],
)
def test_only_what_the_connection_says_is_told_as_a_loss(sentence, lost, monkeypatch):
    monkeypatch.setattr(processes, "several", lambda: True)
    told = RunError if lost else jax.errors.JaxRuntimeError
    match = "lost each other .UNAV|lost each other .INTE" if lost else f"^{sentence}"
    with pytest.raises(told, match=match), processes.kept():
        raise jax.errors.JaxRuntimeError(sentence)
