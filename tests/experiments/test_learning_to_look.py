"""The study of the ways to learn where to look, on a world that takes no time."""

import csv
import math

import numpy as np
import pytest
from PIL import Image

from experiments.arguments import compose
from experiments.studies import learning_to_look as study
from experiments.studies.arms import BAND, Trained, draw
from iap import TransConfig

PROBE = (
    *("env=Probe", "agent.worlds=4", "agent.steps=6", "agent.minibatches=2"),
    *("agent.epochs=1", "controller.size=4", "controller.layers=1"),
    *("encoder.window=3", "encoder.stride=3", "encoder.top_k=3"),
)


@pytest.mark.slow
def test_runs_are_trained_told_and_drawn(probe, tmp_path, capsys):
    ways = ["weighted", "drawn"]
    budget = ["--seeds", "1", "--decisions", "70"]
    study.main([*budget, "--out", str(tmp_path), "--ways", *ways, "--", *PROBE])
    with open(tmp_path / "learning_to_look.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # 70 decisions are 3 iterations of 24.
    assert [row["decisions"] for row in rows] == ["24.0", "48.0", "72.0"] * 2
    assert [row["way"] for row in rows] == ["weighted"] * 3 + ["drawn"] * 3
    assert len({row["return_mean"] for row in rows}) > 3, "the runs are the same"
    assert (tmp_path / "learning_to_look.png").exists()
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert [line.split()[1] for line in table] == ["way", *ways]


@pytest.mark.parametrize("world", study.WORLDS)
def test_every_way_fits_every_world(world, monkeypatch):
    given = []
    monkeypatch.setattr(study, "trained", lambda *run: given.append(run))
    for way in study.WAYS:
        study.learned(study.WORLDS[world], way, 1, 10_000, [])
    for way, seed, arguments in given:
        config = compose(arguments)
        assert (config.env.name, seed, config.agent.decay) == (world, 1, 0)
        assert config.iterations == 3  # of 4,096
        assert isinstance(config.encoder, TransConfig) == (way == "trans")


def test_every_way_is_a_setting():
    found = {way: compose([*settings]) for way, settings in study.WAYS.items()}
    assert found["weighted"].encoder.weighted and not found["drawn"].encoder.weighted
    assert found["drawn"].encoder.temperature == 0.1
    assert found["score"].encoder.score and not found["unlearned"].encoder.score
    assert found["trans"].encoder.name == "trans"


def result(way, seed, returns, test):
    rows = [
        {
            **{"iteration": i + 1, "decisions": 100 * i, "return_mean": x},
            "attention_entropy": 1.0,
        }
        for i, x in enumerate(returns)
    ]
    return Trained(way, seed, rows, {"mean": test})


def test_the_table_shows_means_over_seeds_of_the_last_tenth():
    one = result("drawn", 0, [0.0] * 18 + [math.nan, 4.0], 10.0)
    two = result("drawn", 1, [0.0] * 18 + [5.0, 7.0], 20.0)
    (line,) = study.table([one, two]).splitlines()[2:]
    assert line == "| drawn | 2 | 5 (4 to 6) | 15 (10 to 20) | 1 (1 to 1) |"


def test_the_picture_shows_each_way_and_its_spread(tmp_path):
    """A second seed's band is shaded; iterations without ends leave no trace."""
    nothing = [math.nan, math.nan]
    results = [
        result("weighted", 0, [*nothing, 1.0, 2.0], 0.0),
        result("weighted", 1, [*nothing, 5.0, 9.0, 9.0], 0.0),
        result("trans", 0, [*nothing, 3.0, 3.0], 0.0),
    ]
    line = np.array([0x0B, 0x62, 0xA4])
    counts = []
    for shown in (results[::2], results):
        draw(tmp_path / "picture.png", study.curves(shown), "x", "y")
        with Image.open(tmp_path / "picture.png") as image:
            colours = np.asarray(image.convert("RGB"), float)
        counts.append(
            [
                np.count_nonzero((np.abs(colours - c) < 3).all(axis=2))
                for c in (line, 255 + BAND * (line - 255))
            ]
        )
    (line_alone, band_alone), (line_of_two, band_of_two) = counts
    assert min(line_alone, line_of_two) > 100
    assert band_of_two > 1000 > 10 * band_alone
