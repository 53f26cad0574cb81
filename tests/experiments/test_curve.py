import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import curve


def rows(count: int, seed: int = 0) -> list:
    draw = np.random.default_rng(seed)
    made = []
    for i in range(1, count + 1):
        row = {"iteration": i, "frames": 1000 * i**2, "seconds": 6.0 * i}
        row |= {"return_mean": 2.0 * i, "return_best": 3.0 * i + draw.normal(0, 20)}
        if i % 10 == 0:
            row |= {"validation_mean": 2.5 * i + seed, "validation_sd": 30.0}
        made.append(row)
    return made


def test_series_takes_the_rows_that_have_every_column():
    step, mean, sd = curve.series(rows(25), "validation_mean", "validation_sd")
    np.testing.assert_array_equal(step, [10, 20])
    np.testing.assert_array_equal(mean, [25, 50])
    np.testing.assert_array_equal(sd, [30, 30])
    assert curve.series([], "frames").shape == (2, 0)


def drawn(monkeypatch, tmp_path, runs, title="CarRacing · es"):
    """The axes that were drawn, and the picture on disk."""
    figures = []
    save = Figure.savefig

    def keep(figure, *arguments, **named):
        figures.append(figure)
        return save(figure, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    curve.draw(tmp_path / "curve.png", runs, title)
    axes, *above = figures[0].axes
    return axes, above, cv2.imread(str(tmp_path / "curve.png"))


def test_one_run_shows_training_and_validation(monkeypatch, tmp_path):
    axes, (above,), picture = drawn(monkeypatch, tmp_path, {"run": rows(200)})
    best, mean, validation = axes.get_lines()
    assert len(best.get_xdata()) == len(mean.get_xdata()) == 200
    np.testing.assert_array_equal(validation.get_ydata(), 2.5 * np.arange(10, 201, 10))
    (band,) = axes.collections
    low, high = band.get_datalim(axes.transData).intervaly
    assert (low, high) == (25 - 30, 500 + 30)
    title = axes.get_title(loc="left")
    assert title == "CarRacing · es  ·  validation 500  ·  after 20 min"
    # 1000 i^2 frames: 10 M of them at iteration 100, 40 M at 200.
    labels = [label.get_text() for label in above.get_xticklabels()]
    ticks = dict(zip(labels, above.get_xticks(), strict=True))
    assert ticks["40 M"] == 200
    assert abs(ticks["16 M"] - np.sqrt(16_000)) < 0.01
    assert picture.shape[0] > 400 and picture.shape[1] > 800
    assert (tmp_path / "curve.png").stat().st_size < 150_000
    assert picture.std() > 10


def test_several_runs_share_an_axis_and_show_their_mean(monkeypatch, tmp_path):
    runs = {f"seed {s}": rows(100 + 10 * s, seed=s) for s in range(3)}
    axes, _, _ = drawn(monkeypatch, tmp_path, runs)
    mean = axes.get_lines()[-1]
    # Validated by all three: up to iteration 100. Their means are off by 0, 1 and 2.
    np.testing.assert_array_equal(mean.get_xdata(), np.arange(10, 101, 10))
    np.testing.assert_allclose(mean.get_ydata(), 2.5 * np.arange(10, 101, 10) + 1)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["seed 0", "seed 1", "seed 2", "training, mean", "mean of 3 runs"]
    assert (tmp_path / "curve.png").stat().st_size < 150_000


@pytest.mark.parametrize(
    "runs", [{"a": []}, {"a": rows(1)}, {}, {"a": [], "b": rows(9)}]
)
def test_a_run_that_has_hardly_begun_can_be_drawn(monkeypatch, tmp_path, runs):
    _, _, picture = drawn(monkeypatch, tmp_path, runs)
    assert picture.size
