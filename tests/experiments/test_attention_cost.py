import csv
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.studies import attention_cost as study
from experiments.studies.promises import table
from iap import exact_scores


def tokens(size):
    drawn = np.random.default_rng(0).standard_normal((2, size, study.D)) / 2
    return [jnp.asarray(x, jnp.float32) for x in drawn]


def test_every_method_scores_alike():
    """What is timed is attention; 64 random features rank these tokens badly."""
    queries, keys = tokens(200)
    exact = exact_scores(queries, keys)
    for name, scores in study.methods().items():
        found = jax.jit(scores)(queries, keys)
        assert float(found.sum()) == pytest.approx(200, rel=1e-3)
        if name.startswith(("exact", "taylor")):
            assert np.corrcoef(found, exact)[0, 1] > 0.98, name


def test_memory_is_that_of_the_matrix_or_of_the_features():
    size = 1024
    arguments = [*tokens(size), jnp.ones(size)]
    exact, taylor = (
        study.planned(study.passes(study.methods()[name])["forward"], arguments)[1]
        for name in ("exact", "taylor 2")
    )
    assert exact >= 4 * size**2  # one float32 matrix at least
    assert taylor < 4 * size * 100  # a few rows of 15 features


def test_what_would_take_too_long_or_too_much_is_left_out():
    rows = [
        study.Row("exact", "forward", 100, (1.0,), 4e4),
        study.Row("exact", "forward", 200, (), 1.6e5, "over 2 s a call"),
        study.Row("taylor 2", "forward", 100, (1.0,), 6e3),
        study.Row("taylor 2", "both", 400, (9.0,), 6e3),
    ]
    assert study.predicted(rows, "exact", "forward", 400) == 16.0
    assert study.predicted(rows, "taylor 2", "forward", 400) == 4.0
    assert study.predicted(rows, "exact", "both", 400) == 0.0
    limits = study.Limits(seconds=10.0, bytes=1e9)
    assert study.excess(16.0, 1e6, limits) == "over 10 s a call, predicted"
    assert study.excess(4.0, 2e9, limits) == "over 1 GB a call"
    assert study.excess(4.0, 1e6, limits) == ""


def test_what_is_left_out_is_said(tmp_path, capsys, monkeypatch):
    only = {study.EXACT: exact_scores}  # all methods take a minute to compile
    monkeypatch.setattr(study, "methods", lambda: only)
    small = ["--sizes", "64", "96", "--seconds", "0", "--no-encoder"]
    study.main([*small, "--limit", "1e-9", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| exact | forward | time | 1 | - |" in printed
    assert "-: over 1e-09 s a call, predicted" in printed
    with open(tmp_path / "attention_cost.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["patches"] == "96"]
    assert len(rows) == 2
    for row in rows:
        assert row["seconds"] == row["seconds_most"] == ""
        assert row["left_out"] == "over 1e-09 s a call, predicted"
        assert int(row["bytes"]) > 0  # known from the plan


@pytest.mark.slow
def test_writes_what_it_prints(tmp_path, capsys):
    study.main(
        [
            "--sizes",
            "64",
            "1024",
            "--seconds",
            "0",
            "--no-encoder",
            "--out",
            str(tmp_path),
        ]
    )
    with open(tmp_path / "attention_cost.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * 2 * 2
    assert all(0 < float(row["seconds_least"]) <= float(row["seconds"]) for row in rows)
    printed = capsys.readouterr().out
    assert "| exact | 1 | 1 |" in printed  # the base of the arena's ratios
    with Image.open(tmp_path / "attention_cost.png") as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 50


def test_promises_are_held_against_what_is_measured():
    rows = [
        study.Row("exact", "forward", 9216, (1.0,), 3e8),
        study.Row("exact in blocks", "forward", 9216, (0.3,), 1e6),
        study.Row("taylor 2", "forward", 9216, (0.01, 0.05), 1e6),
        study.Row("taylor 2", "forward", 16384, (0.02,), 1e6),
        study.Row("taylor 2", "forward", 65536, (0.1,), 1e6),
        study.Row("taylor", "encoder", 529, (130e-6, 100e-6, 90e-6), 1e6),
        study.Row("relu", "encoder", 65536, (11e-3,), 65e6),
    ]
    found = {promise.what: promise for promise in study.promises(rows)}
    kept = {what: promise.kept for what, promise in found.items()}
    assert kept == {
        "96/7/4, taylor: us of CPU an image": "yes",
        "256/1/1, relu: us of CPU an image": "no",
        "256/1/1, relu: MB beyond the image": "no",
        "taylor 2, forward: time at 65536 over 16384": "no",
        "taylor 2 at 9216: times faster than exact": "yes",
        "taylor 2 at 9216: times faster than exact in blocks": "yes",
    }
    ratio = found["taylor 2 at 9216: times faster than exact in blocks"]
    assert ratio.measured == pytest.approx(30)  # of the round that has both
    few = found["96/7/4, taylor: us of CPU an image"]
    assert f"{few.what} | <= 120 | 100 (90 to 130) | yes |" in table(
        list(found.values())
    )


def test_rounds_are_gone_through_and_long_calls_once(monkeypatch):
    monkeypatch.setattr(study, "methods", lambda: {study.EXACT: exact_scores})
    limits = study.Limits(seconds=60.0, bytes=1e9)
    for longest, times in ((60.0, 3), (0.0, 1)):
        monkeypatch.setattr(study, "LONG", longest)
        rows = study.measure_scores([32, 16], 0.0, limits, 3)
        assert [(row.patches, row.what, len(row.times)) for row in rows] == [
            (size, what, times) for size in (16, 32) for what in study.PASSES
        ]


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="no process can be held on one core of several here",
)
def test_an_encoder_has_one_core():
    assert study.on_one_core(os.sched_getaffinity, 0) == {min(os.sched_getaffinity(0))}


@pytest.mark.slow
def test_an_encoder_costs_something():
    sight = study.SIGHTS[0]
    row = study.on_one_core(study.measure_encoder, sight, study.Kernel.taylor, 0.0, 2)
    assert (row.patches, row.what) == (529, "encoder")
    assert len(row.times) == 2 and row.seconds > 0
    assert row.bytes > 529 * 8 * 4  # at least its queries and keys
