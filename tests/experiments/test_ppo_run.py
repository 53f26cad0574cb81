"""A policy gradient from the command line: whole runs, and runs that fail."""

import json
from pathlib import Path

import jax.numpy as jnp
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.registry import REGISTRY
from experiments import checkpoint, folder, metrics
from experiments.arguments import compose
from experiments.config import GROUPS
from experiments.main import main
from tests.experiments import probe_run
from tests.experiments.kept import assert_same, kept

PPO = (
    *("env=Probe", "agent=ppo", "agent.worlds=4", "agent.steps=6"),
    *("agent.minibatches=2", "agent.epochs=2", "controller.size=4"),
    *("encoder.window=3", "encoder.stride=3", "encoder.top_k=3"),
    *("evaluate_every=2", "save_every=2", "film_every=0"),
)


@pytest.fixture
def run(probe, tmp_path, monkeypatch, capsys):
    """(settings) -> (exit status, stdout, stderr) of PPO in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*settings):
        status = main([*PPO, *settings])
        return status, *capsys.readouterr()

    return run


def the_run() -> Path:
    (path,) = (path for path in Path("runs").iterdir() if "old" not in path.suffix)
    return path


@pytest.mark.parametrize("core", [pytest.param("deep", marks=pytest.mark.slow), "lstm"])
def test_a_run_that_stopped_goes_on_to_the_same_numbers(run, core):
    """In mid-episode too: of 6 decisions each iteration plays 4."""
    settings = (f"controller={core}", "controller.size=4", "agent.steps=4")
    assert run(*settings, "iterations=2")[0] == 0
    status, out, _ = run(*settings, "iterations=4")
    assert status == 0 and "Going on from iteration 2" in out
    one = kept(the_run())
    assert run(*settings, "iterations=4", "fresh=true")[0] == 0
    other = kept(the_run())
    assert [row["episodes"] for row in one[0]] == [0, 4, 4, 0]
    assert_same(one, other)


def test_a_run_is_scored_filmed_and_logged(run):
    status, out, err = run("iterations=2", "film_every=2", "height=120")
    assert (status, err) == (0, "")
    path = the_run()
    assert path.name.startswith("Probe-ppo-s0-")
    assert (path / "videos" / "final-track-2000.mp4").exists()
    summary = json.loads((path / folder.SUMMARY).read_text())
    assert len(summary["returns"]) == 100
    assert {
        *("policy_loss", "value_loss", "entropy", "kl", "clip_fraction"),
        *("explained_variance", "attention_entropy", "learning_rate", "skipped"),
    } < {*metrics.read_csv(path / folder.METRICS)[-1]}
    shown = EventAccumulator(str(path / folder.EVENTS))
    shown.Reload()
    logged = {tag.split("/")[-1] for tag in shown.Tags()["scalars"]}
    assert {
        *("return_mean", "policy_loss", "value_loss", "entropy", "kl", "loss"),
        *("clip_fraction", "explained_variance", "attention_entropy"),
    } < logged
    assert "iteration 2/2  mean" in out


@pytest.mark.slow
def test_a_run_without_finite_rewards_ends_and_names_its_checkpoint(run, monkeypatch):
    assert run("agent.skips=8", "iterations=2")[0] == 0
    broken = REGISTRY["Probe"]._replace(make=without_rewards)
    monkeypatch.setitem(REGISTRY, "Probe", broken)
    status, _, err = run("agent.skips=8", "iterations=9")
    assert status == 1
    assert "the last 8 gradient steps had no finite loss" in err
    saved = the_run() / folder.CHECKPOINTS / "00000002.npz"
    assert f"the last good checkpoint is {saved}" in err
    assert checkpoint.numbered(saved.parent)[0] == saved
    assert metrics.read_csv(the_run() / folder.METRICS)[-1]["iteration"] == 4


def without_rewards(config, levels):
    env = probe_run.make_world(config, levels)

    def step(world, *rest):
        state, outcome = env.step(world, *rest)
        return state, outcome._replace(reward=jnp.nan * outcome.reward)

    return env._replace(step=step)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (
            ["controller=deep", "agent.minibatches=4"],
            ["agent.minibatches is 4", "agent.steps=6"],
        ),
        (
            ["controller=lstm", "agent.minibatches=3"],
            ["agent.minibatches is 3", "agent.worlds=4"],
        ),
        (
            ["controller=deep", "agent.worlds=1"],
            ["2 devices for agent.worlds=1", "devices=1"],
        ),
        (["agent.steps=8"], ["agent.steps is 8", "6 decisions", "agent.steps=6"]),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_sentence(run, settings, parts):
    status, _, err = run(*settings)
    assert status == 1 and err.count("\n") == 1
    assert all(part in err for part in parts)
    assert not Path("runs").exists()


def test_what_suits_an_agent_is_chosen_with_it_and_typed_choices_win():
    found = compose(["agent=ppo"])
    assert found.encoder == GROUPS["encoder"]["weighted"]
    assert found.controller == GROUPS["controller"]["deep_gru"]
    preset = compose(["experiment=carracing_ppo"])
    assert (preset.encoder, preset.controller) == (found.encoder, found.controller)
    for start in ("agent=ppo", "experiment=carracing_ppo"):
        assert compose([start, "controller=lstm"]).controller.core.name == "lstm"
    # A preset that chooses neither, and one that chooses both.
    smoke = compose(["experiment=smoke", "agent=ppo"])
    assert (smoke.encoder, smoke.controller) == (found.encoder, found.controller)
    other = compose(["experiment=carracing_es", "agent=ppo"])
    assert other.encoder == GROUPS["encoder"]["default"]
    assert other.controller == GROUPS["controller"]["rnn"]
