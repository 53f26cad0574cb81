import io
import math

import numpy as np
import pytest

from experiments import metrics
from experiments.folder import RunError


def test_columns_stay_and_new_ones_are_added_at_the_end(tmp_path):
    path = tmp_path / "metrics.csv"
    sink = metrics.csv_sink(path)
    sink.write(1, {"return_mean": 1.5, "frames": 400})
    sink.write(2, {"frames": 800, "return_mean": -2.25})
    sink.write(3, {"return_mean": 3.0, "validation_mean": 7.0})
    sink.close()
    assert path.read_text() == (
        "iteration,return_mean,frames,validation_mean\n"
        "1,1.5,400,\n"
        "2,-2.25,800,\n"
        "3,3,,7\n"
    )
    assert metrics.read_csv(path)[2] == {
        "iteration": 3,
        "return_mean": 3,
        "validation_mean": 7,
    }


def test_every_row_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "metrics.csv"
    sink = metrics.csv_sink(path)
    for step in (1, 2, 3):
        sink.write(step, {"x": step})
        assert len(metrics.read_csv(path)) == step
    sink.close()


def test_numbers_come_back_exactly(tmp_path):
    draw = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    values = [*np.float32(draw[80:130]), np.float32(0.1), np.float32(-1e-45)]
    values += [2**53, -(10**15), 0, math.inf, -math.inf]
    sink = metrics.csv_sink(tmp_path / "m.csv")
    for step, value in enumerate(values):
        sink.write(step, {"x": value})
    sink.write(len(values), {"x": math.nan})
    sink.close()
    rows = metrics.read_csv(tmp_path / "m.csv")
    # Nine digits tell any two float32 apart; whole numbers are written in full.
    for value, row in zip(values, rows[:-1], strict=True):
        assert type(value)(row["x"]) == value
    assert math.isnan(rows[-1]["x"])


def test_rows_after_the_checkpoint_are_cut_on_resume(tmp_path):
    path = tmp_path / "metrics.csv"
    whole = tmp_path / "whole.csv"
    straight = metrics.csv_sink(whole)
    first = metrics.csv_sink(path)
    for step in range(1, 8):
        straight.write(step, {"x": step / 3})
        if step <= 6:  # killed at 6, the last checkpoint is of iteration 4
            first.write(step, {"x": step / 3})
    straight.close()
    first.close()
    with open(path, "a") as file:
        file.write("7,2.33")  # torn by the kill: no end of line
    second = metrics.csv_sink(path, start=4)
    for step in range(5, 8):
        second.write(step, {"x": step / 3})
    second.close()
    assert path.read_bytes() == whole.read_bytes()


def test_a_new_run_in_an_old_folder_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.csv"
    for _ in range(2):
        sink = metrics.csv_sink(path)
        sink.write(1, {"x": 1})
        sink.close()
    assert path.read_text() == "iteration,x\n1,1\n"


def test_tensorboard_shows_every_iteration_once_after_a_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = metrics.tensorboard_sink(tmp_path)
    for step in range(1, 7):
        first.write(step, {"return_mean": step, "frames": 100 * step})
    first.close()
    second = metrics.tensorboard_sink(tmp_path, start=4)
    for step in range(5, 9):
        second.write(step, {"return_mean": -step})
    second.close()
    assert len(list(tmp_path.iterdir())) == 2
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    scalars = [(e.step, e.value) for e in shown.Scalars("return_mean")]
    assert scalars == [(1, 1), (2, 2), (3, 3), (4, 4), *((s, -s) for s in (5, 6, 7, 8))]
    assert [(e.step, e.value) for e in shown.Scalars("frames")][-1] == (4, 400)


@pytest.mark.parametrize("make", [metrics.csv_sink, metrics.tensorboard_sink])
def test_a_full_disk_is_one_sentence_and_keeps_what_is_written(
    tmp_path, monkeypatch, make
):
    """The largest allowed file is the disk here."""
    import resource

    monkeypatch.setattr(metrics, "FLUSH", -1.0)
    path = tmp_path / "metrics"
    sink = make(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write .*metrics"):
            for step in range(10_000):
                sink.write(step, {"x": step})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sink.close()
    if make is metrics.csv_sink:
        rows = metrics.read_csv(path)
        assert rows == [{"iteration": i, "x": i} for i in range(len(rows))]
        assert len(rows) > 500


@pytest.mark.parametrize("make", [metrics.csv_sink, metrics.tensorboard_sink])
def test_an_unwritable_place_is_one_sentence(tmp_path, make):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write .*in.*; choose a folder"):
        make(tmp_path / "file" / "inside")


@pytest.mark.parametrize("text", ["x,y\n1,2\n", "iteration\n1,2\n", "iteration\na\n"])
def test_a_foreign_table_is_named(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(RunError, match=r"metrics.csv is not a table of metrics"):
        metrics.csv_sink(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text() == text


def test_combined_writes_and_closes_all():
    seen = []

    def sink(name):
        return metrics.Sink(
            lambda step, values: seen.append((name, step, dict(values))),
            lambda: seen.append((name, "closed")),
        )

    both = metrics.combined(sink("a"), sink("b"))
    both.write(3, {"x": 1.0})
    assert seen == [("a", 3, {"x": 1.0}), ("b", 3, {"x": 1.0})]
    both.close()
    assert sorted(seen[2:]) == [("a", "closed"), ("b", "closed")]


def test_a_sink_that_fails_to_close_does_not_keep_others_open():
    closed = []

    def fail():
        raise RunError("full")

    nothing = lambda step, values: None  # noqa: E731
    sinks = [
        metrics.Sink(nothing, lambda: closed.append("a")),
        metrics.Sink(nothing, fail),
        metrics.Sink(nothing, lambda: closed.append("b")),
    ]
    with pytest.raises(RunError, match="full"):
        metrics.combined(*sinks).close()
    assert sorted(closed) == ["a", "b"]


# --- the terminal -------------------------------------------------------------------

NUMBERS = {
    "return_mean": 152.34,
    "return_best": 461.0,
    "decisions_per_second": 12_345.6,
    "frames_per_second": 49_382.4,
    "frames": 1_234_567,
}


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    clock = iter([100.0, 160.0, 220.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    sink = metrics.terminal_sink(total=120, start=99, stream=out)
    sink.write(100, NUMBERS)
    sink.write(110, NUMBERS | {"validation_mean": 300.0, "validation_sd": 25.0})
    sink.write(120, NUMBERS)
    sink.close()
    numbers = "12,346 decisions/s  49,382 frames/s  1,234,567 frames"
    assert out.getvalue().splitlines() == [
        f"generation 100/120  mean 152.3  best 461.0  {numbers}  left ?",
        "generation 110/120  mean 152.3  best 461.0  validation 300.0 ± 25.0  "
        f"{numbers}  left 60 s",
        f"generation 120/120  mean 152.3  best 461.0  {numbers}  left 0 s",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_live_bar_that_keeps_the_last_validation(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    sink = metrics.terminal_sink(total=40, start=9, stream=out)
    sink.write(10, NUMBERS | {"validation_mean": 300.0, "validation_sd": 25.0})
    sink.write(20, NUMBERS | {"return_mean": 171.5})
    sink.close()
    last = out.getvalue().split("generation")[-1].replace("\u00a0", " ")
    assert "20/40" in last
    assert "mean 171.5" in last and "validation 300.0 ± 25.0" in last
    assert "\x1b[" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_durations_read_well(seconds, said):
    assert metrics.duration(seconds) == said
