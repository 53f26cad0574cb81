"""The comparison of arms, on numbers that are known and on a world of no time."""

import csv

import numpy as np
import pytest
from matplotlib.axes import Axes

from experiments.arguments import compose
from experiments.studies import arms as study
from experiments.studies import kernels_in_training, needs_attention
from iap import Kernel, Projection, Ranking


def result(arm, seed, score, validations=3):
    """A run that was validated every second iteration, with `score` at last."""
    rows = []
    for i in range(1, 2 * validations + 1):
        row = {"iteration": i, "decisions": 1000.0 * i, "seconds": 30.0 * i}
        row["return_mean"] = float(i)
        if i % 2 == 0:
            row["validation_mean"] = score - 2 * validations + i
            row["validation_sd"] = 1.0
        rows.append(row)
    return study.Trained(arm, seed, rows, {})


RESULTS = [result("one", 0, 10.0), result("two", 0, 1.0), result("one", 1, 14.0)]


def test_the_table_shows_the_last_validations():
    lines = study.table(RESULTS).splitlines()[2:]
    assert lines == [
        "| one | 12.0 | 2.0 | 10.0, 14.0 | 3.0 | 6,000 |",
        "| two | 1.0 | 0.0 | 1.0 | 3.0 | 6,000 |",
    ]


def test_the_files_hold_every_validation(tmp_path, capsys):
    study.report("name", tmp_path, RESULTS)
    assert study.table(RESULTS) in capsys.readouterr().out
    with open(tmp_path / "name.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["arm", "seed", "iteration", *study.COLUMNS]
    assert len(rows) == 3 * 3
    assert rows[2] == ["one", "0", "6.0", "6000.0", "180.0", "6.0", "10.0", "1.0"]
    assert (tmp_path / "name.png").stat().st_size > 5000


def test_curves_are_drawn_where_all_seeds_have_a_value(tmp_path, monkeypatch):
    drawn = []
    plot = Axes.plot

    def note(self, *args, **kwargs):
        drawn.append(args)
        return plot(self, *args, **kwargs)

    monkeypatch.setattr(Axes, "plot", note)
    often = np.array([[1, 2, 3, 4, 5], [10, 20, 30, 40, 50]])
    rarely = np.array([[2, 4, 6], [0, 10, 20]])
    many = {str(i): [often, rarely] for i in range(14)}  # more than there are colours
    study.draw(tmp_path / "picture.png", many, "x", "y")
    assert len(drawn) == 14
    np.testing.assert_array_equal(drawn[0], [[2, 4], [10, 25]])
    assert (tmp_path / "picture.png").stat().st_size > 5000


@pytest.mark.parametrize("module", [needs_attention, kernels_in_training])
def test_arms_differ_in_what_patches_are_ranked_by_alone(module):
    settings = module.STUDY.settings
    made = {name: compose([*settings, *arm]) for name, arm in module.STUDY.arms.items()}
    assert len({config.encoder for config in made.values()}) == len(made)
    assert made["mean-query"].encoder.ranking is Ranking.mean_query
    assert made["fixed-filter"].encoder.ranking is Ranking.fixed_filter
    assert made["random"].encoder.ranking is Ranking.random
    assert made["taylor"].encoder.kernel is Kernel.taylor
    assert made["taylor"].encoder.centred and not made["relu"].encoder.centred
    assert made["relu"].encoder.projection is Projection.orthogonal
    alone = dict.fromkeys(("ranking", "kernel", "projection", "centring"))
    rest = [{**vars(config.encoder), **alone} for config in made.values()]
    assert all(settings == rest[0] for settings in rest)


def test_budgets_that_end_between_validations_are_refused(capsys):
    with pytest.raises(SystemExit):
        needs_attention.main(["--generations", "15", "--every", "10"])
    assert "a multiple of --every" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_are_trained_and_go_on(probe, tmp_path, capsys):
    comparison = study.Arms(
        name="probes",
        settings=probe,
        arms={"few": ("encoder.top_k=2",), "more": ("encoder.top_k=3",)},
        generations=4,
        every=2,
        quick=(),
    )
    budget = ["--seeds", "1", "--root", str(tmp_path), "--arms", "few"]
    study.compare(comparison, "Says what it is.", [*budget, "--generations", "2"])
    assert "A new run" in capsys.readouterr().out
    study.compare(comparison, "Says what it is.", [*budget, "more"])
    said = capsys.readouterr().out
    assert "Going on from iteration 2" in said and said.count("A new run") == 1
    study.compare(comparison, "Says what it is.", [*budget, "more"])
    said = capsys.readouterr().out
    assert "Going on" not in said and "A new run" not in said
    with open(tmp_path / "probes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["iteration"]) for row in rows] == [
        *(("few", "2.0"), ("few", "4.0")),
        *(("more", "2.0"), ("more", "4.0")),
    ]
