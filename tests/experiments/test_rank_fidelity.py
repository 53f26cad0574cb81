import csv
import itertools

import numpy as np
import pytest
from PIL import Image

from experiments.folder import RunError
from experiments.studies import rank_fidelity as study
from iap import EncoderConfig, Position, exact_scores, weights_shape

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)


def test_overlap_counts_equals_of_the_last_chosen():
    exact = np.array([3.0, 1.0, 2.0, 2.0, 2.0, 0.5])
    assert study.overlap(exact, exact, k=2) == 1
    assert study.overlap(exact, np.array([9, 0, 0, 0, 8, 0]), k=2) == 1  # as good a 2
    assert study.overlap(exact, np.array([9, 8, 0, 0, 0, 0]), k=2) == 0.5
    assert study.overlap(exact, -exact, k=2) == 0
    assert study.overlap(exact * [1, 1, 1, 1, 1 - 1e-7, 1], exact, k=4) == 1


def test_spearman_knows_order_only():
    exact = np.array([0.1, 3.0, 2.0, 2.0])
    assert study.spearman(exact, np.exp(exact)) == pytest.approx(1)
    assert study.spearman(exact, -exact) == pytest.approx(-1)


def test_tokens_are_those_of_the_encoder():
    config = EncoderConfig(window=4, stride=3, position=Position.concat)
    weights = study.random_weights(config, 0.3, 3, np.random.default_rng(0))
    tokens = study.tokens_of(config, FRAMES, weights)
    assert weights.matrix.shape == (3, *weights_shape(config, 3))
    assert tokens.queries.shape == (3, 49, 4)
    patch = FRAMES[1][3:7, 6:10].ravel() / 255  # row 1, column 2 of 7
    patch = np.concatenate([patch, [5 / 24, 8 / 24]])
    key = (patch @ weights.matrix[1] + weights.bias[1])[4:] / 4**0.25
    np.testing.assert_allclose(tokens.keys[1, 9], key, rtol=1e-5)  # float32 positions
    for q, k, exact in zip(*tokens[:3], strict=True):
        found = exact_scores(np.float32(q), np.float32(k))
        np.testing.assert_allclose(found, exact, rtol=1e-4)  # logits to 30
    centred = tokens.queries - tokens.queries.mean(axis=1, keepdims=True)
    logits = np.einsum("nid,njd->nij", centred, tokens.keys)
    logits -= logits.mean(axis=2, keepdims=True)
    assert tokens.below == pytest.approx(np.mean(logits < -1), abs=1e-9)


def row(view, weights, name, m, centred, overlap):
    return study.Row(view, weights, 0.0, name, m, centred, overlap, 0, 1, 0)


def test_promises_are_held_against_what_is_measured():
    rows = [
        row("96/7/4", "trained", "taylor 2", 0, True, 0.985),
        row("96/7/4", "trained", "taylor 2", 0, False, 1.0),  # nothing was promised
        row("96/7/4", "trained", "positive", 64, True, 0.95),
        row("96/4/4", "trained", "positive", 64, True, 0.1),  # nor here
        row("pixels", "N(0, 0.3²)", "taylor 2", 0, True, 0.96),
    ]
    found = study.promises(rows)
    assert [(p.what, p.bar, p.measured, p.kept) for p in found] == [
        ("96/7/4, trained: overlap of taylor 2, centred", 0.99, 0.985, "no"),
        ("96/7/4, trained: overlap of positive, m = 64, centred", 0.95, 0.95, "yes"),
        ("pixels, N(0, 0.3²): overlap of taylor 2, centred", 0.95, 0.96, "yes"),
    ]


@pytest.mark.slow
def test_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "driven_frames", lambda count: FRAMES[:count])
    options = ["--frames", "3", "--pixel-frames", "2", "--directions", "16", "64"]
    kernels = ["--kernels", "taylor", "oprf", "relu"]
    study.main([*options, *kernels, "--out", str(tmp_path)])
    with open(tmp_path / "rank_fidelity.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # 4 baselines, 4 of taylor, 4 of oprf, 3 of relu; 2 views under 3 weights.
    assert len(rows) == 15 * 6
    found = {
        tuple(
            row[key] for key in ("view", "weights", "ranking", "directions", "centred")
        ): (float(row["overlap"]), float(row["spearman"]))
        for row in rows
    }
    for view in study.VIEWS:
        small = (view, "N(0, 0.1²)")
        assert found[*small, "exact in blocks", "0", "False"][0] == 1
        assert found[*small, "taylor 2", "0", "True"][0] > 0.95
        few, many = (found[*small, "oprf", m, "True"][1] for m in ("16", "64"))
        assert few < many
        assert abs(found[*small, "random", "0", "False"][1]) < 0.3
    middling = ("96/7/4", "N(0, 0.3²)", "taylor 2", "0")
    raw, centred = (found[*middling, c][1] for c in ("False", "True"))
    assert raw < 0.5 < centred
    printed = capsys.readouterr().out
    # Heads, logits below -1, rankings; what was promised of random weights.
    assert printed.count("\n| ") == 2 + 15 + 1 + 3
    with Image.open(tmp_path / "rank_fidelity.png") as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 100


def test_says_which_run_it_cannot_use(tmp_path):
    with pytest.raises(RunError, match=r"is not|cannot read"):
        study.trained(tmp_path, 3)


@pytest.mark.slow
def test_frames_show_a_car_on_its_way():
    frames = study.driven_frames(3)
    assert frames.shape == (3, 96, 96, 3)
    assert frames.dtype == np.uint8
    different = [(a != b).mean() for a, b in itertools.pairwise(frames)]
    assert min(different) > 0.05
    # Road, grey of equal channels, lies ahead of the car in all of them.
    road = frames[:, 40:60, 40:56]
    assert (np.ptp(road, axis=3) == 0).mean() > 0.2
