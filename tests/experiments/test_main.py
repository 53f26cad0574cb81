"""The command line: runs that end, stop, go on, are refused."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments import checkpoint, folder, metrics, session
from experiments.config import AGENTS
from experiments.main import main
from tests.experiments import probe_run
from tests.experiments.kept import CLOCK

ROOT = Path(__file__).parents[2]
ES = (
    *("env=Probe", "agent.strategy=Sep_CMA_ES", "agent.population=6"),
    *("agent.episodes=2", "controller=rnn", "controller.size=4"),
    *("encoder.window=3", "encoder.stride=3", "encoder.top_k=3", "encoder.features=8"),
    *("evaluate_every=2", "save_every=2", "film_every=0"),
)


@pytest.fixture
def run(probe, tmp_path, monkeypatch, capsys):
    """(settings) -> (exit status, stdout, stderr) of the probe in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*settings, base=probe):
        status = main([*base, *settings])
        return status, *capsys.readouterr()

    return run


def only_run() -> Path:
    (path,) = Path("runs").iterdir()
    return path


def rows(path: Path):
    """The logged numbers, without the clock's."""
    table = metrics.read_csv(path / folder.METRICS)
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in table]


def saved(path: Path):
    """Every number of the newest checkpoint and of the best policy, by name."""
    found = {}
    for file in (
        checkpoint.numbered(path / folder.CHECKPOINTS)[0],
        path / folder.CHECKPOINTS / checkpoint.BEST,
    ):
        with np.load(file, allow_pickle=False) as content:
            for name in content.files:
                if name != checkpoint.MANIFEST:
                    found[file.name, name] = content[name]
            meta = json.loads(content[checkpoint.MANIFEST])["meta"]
            found |= {(file.name, k): v for k, v in meta.items() if k not in CLOCK}
    return found


def assert_same_run(one: Path, other: Path):
    assert rows(one) == rows(other)
    a, b = saved(one), saved(other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=str(name))


# --- training -----------------------------------------------------------------------


def test_a_run_leaves_everything_in_its_folder(run):
    status, out, err = run("iterations=4", "keep=1", "film_every=4", "height=120")
    assert (status, err) == (0, "")
    path = only_run()
    assert path.name.startswith("Probe-climb-s0-")
    names = {str(file.relative_to(path)) for file in path.rglob("*")}
    assert names >= {
        *("config.yaml", "manifest.json", "metrics.csv", "curve.png", "summary.json"),
        *("checkpoints/00000004.npz", "checkpoints/best.npz"),
        *("videos/iteration-000002-track-1000.mp4", "videos/final-track-2000.mp4"),
        "videos/final-track-2002-1.png",
    }
    assert len(checkpoint.numbered(path / "checkpoints")) == 1
    assert [row["iteration"] for row in rows(path)] == [1, 2, 3, 4]
    validated = [row["iteration"] for row in rows(path) if "validation_mean" in row]
    assert validated == [2, 4]

    summary = json.loads((path / "summary.json").read_text())
    returns = summary["returns"]
    assert list(returns) == [str(level) for level in range(2000, 2100)]
    values = np.array(list(returns.values()))
    np.testing.assert_allclose(summary["mean"], values.mean(), rtol=1e-6)
    np.testing.assert_allclose(summary["sd"], values.std(), rtol=1e-5)
    assert summary["action_repeat"] == 2
    assert summary["training"]["decisions"] == rows(path)[-1]["decisions"]
    assert summary["training"]["frames"] == rows(path)[-1]["frames"]
    assert f"{summary['mean']:.1f} ± {summary['sd']:.1f}" in out
    assert f"{summary['frames']:,} game frames" in out


def test_the_best_policy_is_the_one_that_validated_best(run):
    run("iterations=6")
    path = only_run()
    means = {
        int(row["iteration"]): row["validation_mean"]
        for row in rows(path)
        if "validation_mean" in row
    }
    summary = json.loads((path / "summary.json").read_text())
    assert summary["policy_of_iteration"] == max(means, key=lambda i: means[i])
    # The CSV holds nine digits.
    np.testing.assert_allclose(summary["validation_mean"], max(means.values()), 1e-8)


def test_totals_are_sums_over_all_iterations(run):
    """However seldom they are logged."""
    run("iterations=4")
    every = rows(only_run())
    run("iterations=4", "log_every=3", "evaluate_every=0", "root=other")
    (path,) = Path("other").iterdir()
    (row,) = rows(path)
    expected = {k: v for k, v in every[2].items() if not k.startswith("validation")}
    assert row == expected


@pytest.mark.parametrize("base", ["climb", pytest.param("es", marks=pytest.mark.slow)])
def test_an_extended_run_equals_an_unbroken_one(run, base):
    settings = probe_run.ARGUMENTS if base == "climb" else ES
    assert run("iterations=6", "root=straight", base=settings)[0] == 0
    for iterations in (2, 3, 6):  # 3 is neither validated nor due for a checkpoint
        assert run(f"iterations={iterations}", "root=parts", base=settings)[0] == 0
    (straight,), (parts,) = Path("straight").iterdir(), Path("parts").iterdir()
    assert straight.name == parts.name
    assert_same_run(straight, parts)


def interrupt_at(monkeypatch, name: str, iteration: int, *signals: int):
    """Signals this process during the update number `iteration`."""
    agent = AGENTS[name]

    def make(*arguments):
        learner = agent.make(*arguments)
        updates = []

        def update(*arguments):
            updates.append(arguments)
            if len(updates) == iteration:
                for number in signals:
                    os.kill(os.getpid(), number)
            return learner.update(*arguments)

        return learner._replace(update=update)

    monkeypatch.setitem(AGENTS, name, agent._replace(make=make))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(run, monkeypatch, number):
    before = signal.getsignal(number)
    assert run("iterations=6", "root=straight")[0] == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, "climb", 3, number)
        status, out, _ = run("iterations=6")
    assert status == 128 + number
    assert signal.getsignal(number) is before
    path = only_run()
    assert not (path / folder.SUMMARY).exists()
    assert [file.stem for file in checkpoint.numbered(path / "checkpoints")] == [
        *("00000003", "00000002")
    ]
    assert "Stopped after 3 of 6 iterations" in out

    told = shlex.split(out.split("To go on: python run.py ")[1])
    status, out, _ = run(base=told)
    assert status == 0 and "Going on from iteration 3" in out
    assert_same_run(next(Path("straight").iterdir()), path)


@pytest.mark.parametrize("during", ["newest", "save"])
def test_a_signal_outside_the_iterations_stops_too(run, monkeypatch, during):
    """While a run that only lacks its scores is restored, or its last state saved."""
    if during == "newest":
        assert run("iterations=2")[0] == 0
        (only_run() / folder.SUMMARY).unlink()
    work = getattr(checkpoint, during)

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return work(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, during, interrupted)
        status, out, _ = run("iterations=2")
    assert status == 128 + signal.SIGINT
    assert "Stopped after 2 of 2 iterations" in out
    assert not (only_run() / folder.SUMMARY).exists()
    assert run("iterations=2")[0] == 0
    assert (only_run() / folder.SUMMARY).exists()


def test_a_process_that_follows_stops_after_the_last_iteration_too(run, monkeypatch):
    """As the one that it follows, and without a word or a folder."""
    work = session.whole

    def interrupted(state):
        os.kill(os.getpid(), signal.SIGINT)
        return work(state)

    monkeypatch.setattr(session, "whole", interrupted)
    monkeypatch.setattr(session.processes, "first", lambda: False)
    status, out, _ = run("iterations=2")
    assert (status, out) == (128 + signal.SIGINT, "")
    assert not Path("runs").exists()


def test_a_second_signal_stops_at_once(run, monkeypatch):
    interrupt_at(monkeypatch, "climb", 2, signal.SIGINT, signal.SIGINT)
    status, _, err = run("iterations=6")
    assert status == 128 + signal.SIGINT
    assert "Traceback" not in err and "intact" in err


def test_rows_after_the_checkpoint_are_not_logged_twice(run, monkeypatch):
    """A killed run has logged more than it has saved."""
    assert run("iterations=6", "root=straight")[0] == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, "climb", 6, signal.SIGINT, signal.SIGINT)
        run("iterations=6")
    path = only_run()
    assert rows(path)[-1]["iteration"] == 5
    assert run("iterations=6")[0] == 0
    assert_same_run(next(Path("straight").iterdir()), path)


def test_a_finished_run_only_reports(run, monkeypatch):
    first = run("iterations=2")
    monkeypatch.setattr(session, "build", None)
    again = run("iterations=2")
    assert again[0] == 0
    assert again[1].splitlines() == first[1].splitlines()[-3:]


def test_fresh_keeps_the_old_run(run):
    run("iterations=2")
    path = only_run()
    rows_before = rows(path)
    status, out, _ = run("iterations=2", "fresh=true")
    aside = path.with_name(f"{path.name}.old1")
    assert status == 0 and str(aside) in out
    assert rows(aside) == rows_before == rows(path)


def test_a_sweep_makes_every_run(run):
    status, out, _ = run("-m", "iterations=2", "seed=0,1")
    assert status == 0
    assert {path.name[:14] for path in Path("runs").iterdir()} == {
        *("Probe-climb-s0", "Probe-climb-s1")
    }
    assert "seed=1" in out


# --- evaluate and record ------------------------------------------------------------


def test_evaluate_and_record(run):
    run("iterations=2")
    path = only_run()
    summary = json.loads((path / "summary.json").read_text())
    status, out, _ = run("mode=evaluate", f"run={path}", base=())
    assert status == 0
    result = json.loads((path / "evaluation-2000-100.json").read_text())
    for name in ("mean", "sd", "returns", "decisions", "frames", "env"):
        assert result[name] == summary[name]
    assert f"{result['mean']:.1f} ±" in out

    typed = ("track=2005", "episodes=3", "env.action_repeat=1")
    assert run("mode=evaluate", f"run={path}", *typed, base=())[0] == 0
    result = json.loads((path / "evaluation-2005-3-action_repeat=1.json").read_text())
    assert list(result["returns"]) == ["2005", "2006", "2007"]
    assert result["action_repeat"] == 1 and result["frames"] == result["decisions"]

    typed = ("track=2005", "episodes=2", "height=120")
    status, out, _ = run("mode=record", f"run={path}", *typed, base=())
    assert status == 0
    for level in (2005, 2006):
        film = path / "videos" / f"track-{level}.mp4"
        assert film.stat().st_size > 0
        assert f"{film}: return {summary['returns'][str(level)]:.1f}" in out


def test_a_run_is_evaluated_and_filmed_in_a_variant(run):
    run("iterations=2")
    path = only_run()
    evaluate = ("mode=evaluate", f"run={path}", "episodes=2")
    assert run(*evaluate, base=())[0] == 0
    status, out, _ = run(*evaluate, "env.variant=bars", base=())
    assert status == 0 and "variant bars" in out
    original = json.loads((path / "evaluation-2000-2.json").read_text())
    bars = json.loads((path / "evaluation-bars-2000-2.json").read_text())
    assert (original["variant"], bars["variant"]) == ("original", "bars")
    assert bars["returns"].keys() == original["returns"].keys()
    assert bars["returns"] != original["returns"]

    record = ("mode=record", f"run={path}", "episodes=1", "height=240")
    films = {}
    for variant in ("original", "noise"):
        status, out, _ = run(*record, f"env.variant={variant}", base=())
        assert status == 0
        name = "noise-track-2000" if variant == "noise" else "track-2000"
        assert f"{path / 'videos' / name}.mp4: return" in out
        films[variant] = cv2.imread(str(path / "videos" / f"{name}-2.png"))
    # Most of the dot's own picture is one dark colour, within 20 grey levels; noise, of
    # which half is 64 levels or more from its middle, counts for nine tenths, and the
    # picture is dimmed to 0.58 where the policy does not look.
    spread = {}
    for name, film in films.items():
        picture = film[:, :240].astype(float)
        spread[name] = np.median(np.abs(picture - np.median(picture)))
    assert spread["noise"] > 25 and spread["original"] < 15


@pytest.mark.slow
def test_a_policy_is_scored_in_every_variant(run):
    run("iterations=2", "env.variant=noise")
    path = only_run()
    evaluate = ("mode=evaluate", f"run={path}", "episodes=3")
    status, out, _ = run(*evaluate, "env.variant=all", base=())
    assert status == 0
    for number, name in enumerate(probe_run.VARIANTS, 1):
        assert re.search(rf"^{number} of 3, \d+ s, {name}: Return", out, re.MULTILINE)
    found = json.loads((path / "variants-2000-3.json").read_text())
    assert found["trained_in"] == "noise"
    scores = found["variants"]
    assert tuple(scores) == probe_run.VARIANTS
    assert [score["variant"] for score in scores.values()] == [*probe_run.VARIANTS]

    # As each is scored alone.
    assert run(*evaluate, base=())[0] == 0
    alone = json.loads((path / "evaluation-noise-2000-3.json").read_text())
    for name in ("mean", "sd", "returns", "decisions", "frames"):
        assert scores["noise"][name] == alone[name]
    assert len({score["mean"] for score in scores.values()}) == 3

    cells = [f"{s['mean']:.0f} ± {s['sd']:.0f}" for s in scores.values()]
    table = f"| original | bars | noise |\n| --- | --- | --- |\n| {' | '.join(cells)} |"
    assert table in out
    with open(path / "variants-2000-3.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["variant"] for line in lines] == [*probe_run.VARIANTS]
    assert [float(line["mean"]) for line in lines] == [
        score["mean"] for score in scores.values()
    ]


def test_only_an_evaluation_takes_every_variant(run):
    refused(run("env.variant=all"), "env.variant=all", "mode=evaluate")
    assert not Path("runs").exists()
    run("iterations=2")
    record = ("mode=record", f"run={only_run()}", "env.variant=all")
    refused(run(*record, base=()), "env.variant=all", "original, bars, noise")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"?")])
def test_a_lost_best_policy_is_replaced_by_the_newest(run, damage):
    run("iterations=2")
    path = only_run()
    damage(path / "checkpoints" / "best.npz")
    status, out, _ = run("iterations=3")
    assert status == 0 and "policy of iteration 2 takes its place" in out
    assert run("mode=evaluate", f"run={path}", "episodes=1", base=())[0] == 0


def test_a_run_without_a_policy_cannot_be_evaluated(run, monkeypatch):
    interrupt_at(monkeypatch, "climb", 1, signal.SIGINT, signal.SIGINT)
    run("iterations=2")
    status, _, err = run("mode=evaluate", f"run={only_run()}", base=())
    assert status == 1 and "no policy yet" in err


def test_a_policy_does_not_fit_another_controller(run):
    run("iterations=2")
    path = only_run()
    status, _, err = run("mode=evaluate", f"run={path}", "controller=lstm", base=())
    assert status == 1 and "belongs to other settings" in err


# --- refusals -----------------------------------------------------------------------


def refused(result, *parts: str):
    status, _, err = result
    assert status == 1
    assert err.count("\n") == 1 and err.startswith("error: "), err
    for part in parts:
        assert part in err, err


def test_mistakes_are_one_sentence(run):
    refused(run("agent.stdd=1"), "agent.stdd", "did you mean agent.std?")
    refused(run("--colour"), "--colour", "--help")
    refused(run("encoder.top_k=17"), "top_k", "16")
    refused(run("encoder.window=13"), "window", "12")
    refused(run("devices=99"), "devices=99", "choose fewer")
    assert not Path("runs").exists(), "a mistake leaves no folder behind"


def test_a_mistake_shows_its_place_with_debug(run):
    with pytest.raises(ValueError, match="top_k"):
        run("encoder.top_k=17", "debug=true")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["agent.params.c_st=1"], ["agent.params.c_st", "c_std"]),
        (["agent.strategy=PGPE", "agent.population=7"], ["agent.population=7"]),
    ],
)
def test_a_strategys_mistakes_are_one_sentence(run, settings, parts):
    refused(run(*settings, base=ES), *parts)
    assert not Path("runs").exists()


def test_a_resumed_run_cannot_become_another(run):
    run("iterations=2")
    path = only_run()
    refused(
        run(f"resume={path}", "agent.std=0.5", base=()),
        *("agent.std is 0.1", "cannot become 0.5"),
    )
    assert run(f"resume={path}", "iterations=4", base=())[0] == 0
    assert rows(path)[-1]["iteration"] == 4


def test_a_locked_run_is_refused(run):
    run("iterations=2")
    code = (
        "import sys; from pathlib import Path; from experiments import folder\n"
        "with folder.lock(Path(sys.argv[1])): print('ready', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(only_run())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as other:
        assert other.stdout and other.stdout.readline() == "ready\n"
        refused(run("iterations=4"), f"process {other.pid}")
        refused(run("iterations=4", "fresh=true"), f"process {other.pid}")
        other.communicate("\n")
    assert run("iterations=4")[0] == 0


def test_a_foreign_checkpoint_is_refused_and_kept(run):
    run("iterations=2")
    (file,) = checkpoint.numbered(only_run() / "checkpoints")
    checkpoint.write(file, 2, {"other": np.zeros(3)}, {})
    before = file.read_bytes()
    refused(run("iterations=4"), "belongs to other settings", "fresh=true")
    assert file.read_bytes() == before


def test_a_damaged_checkpoint_is_passed_over(run):
    run("iterations=6", "root=straight")
    run("iterations=4")
    newest, _ = checkpoint.numbered(only_run() / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-100])
    status, out, _ = run("iterations=6")
    assert status == 0 and "damaged" in out and "iteration 2" in out
    assert_same_run(next(Path("straight").iterdir()), only_run())


def test_an_unusable_root_is_refused(run):
    Path("file").write_text("")
    refused(run("root=file/runs"), "cannot write", "file/runs")


def test_help_needs_no_run(run):
    status, out, err = run("--help", base=())
    assert (status, err) == (0, "") and "mode=record run=" in out


# --- as a program -------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_was_saved(tmp_path):
    """SIGKILL, in another process with its own devices, then the same command."""
    command = [
        *(sys.executable, "-m", "tests.experiments.probe_run", *probe_run.ARGUMENTS),
        "save_every=1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(
        [*command, "iterations=100000"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout or ():
            if line.startswith("generation 5/"):
                process.kill()
                break
    (path,) = (tmp_path / "runs").iterdir()
    reached = int(checkpoint.numbered(path / "checkpoints")[0].stem)
    assert reached >= 4
    done = subprocess.run(
        [*command, f"iterations={reached + 3}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"Going on from iteration {reached}" in done.stdout
    assert [row["iteration"] for row in rows(path)] == list(range(1, reached + 4))
