"""The learning curve as a picture, of one run or of several on one axis."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from experiments.folder import replacing
from experiments.metrics import STEP, Row, duration

COLOURS = ("#0b62a4", "#d1661a", "#2c8c57", "#8a4fa8", "#b5333f", "#5c6670")
MUTED = "#7c8591"

LOOK: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": "#30363f",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": "#30363f",
    "ytick.labelcolor": "#30363f",
    "axes.grid": True,
    "grid.color": "#e8ebef",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def draw(path: Path, runs: Mapping[str, Sequence[Row]], title: str = "") -> None:
    """Draws returns over iterations (below) and game frames (above) as a PNG.

    One run shows the training episodes' mean and best and the validation mean with a
    band of one standard deviation over the levels. Several runs show each one's
    training and validation means, and the mean of the validation means.

    Args:
      path: the PNG.
      runs: rows of metrics (`read_csv`) by the name of their run.
      title: what was trained.

    Raises:
      RunError: the file cannot be written.
    """
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(7.2, 4.2), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        if len(runs) == 1:
            _one(axes, *runs.values())
        else:
            _several(axes, runs)
        axes.set(xlabel="iteration", ylabel="return")
        axes.set_xlim(0, max(1, *axes.get_xlim()))
        axes.legend(loc="lower right")
        _frames_above(axes, max(runs.values(), key=len, default=[]))
        _heading(axes, title, runs)
        with replacing(path) as temporary:
            figure.savefig(temporary)


def series(rows: Sequence[Row], *names: str) -> np.ndarray:
    """The iterations and the named columns of the rows that have them all, [1+n, T]."""
    kept = [[row[n] for n in (STEP, *names)] for row in rows if {*names} <= row.keys()]
    return np.array(kept).reshape(-1, 1 + len(names)).T


def _one(axes: Axes, rows: Sequence[Row]) -> None:
    step, best = series(rows, "return_best")
    axes.plot(step, best, color=MUTED, lw=0.8, alpha=0.6, label="training, best")
    step, mean = series(rows, "return_mean")
    axes.plot(step, mean, color=COLOURS[1], lw=1.2, label="training, mean")
    step, mean, sd = series(rows, "validation_mean", "validation_sd")
    axes.fill_between(step, mean - sd, mean + sd, color=COLOURS[0], alpha=0.15, lw=0)
    axes.plot(
        *(step, mean, "o-"),
        color=COLOURS[0],
        lw=1.8,
        ms=3.5,
        label="mean policy, validation ± sd over levels",
    )


def _several(axes: Axes, runs: Mapping[str, Sequence[Row]]) -> None:
    for i, (name, rows) in enumerate(runs.items()):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(*series(rows, "return_mean"), color=colour, lw=0.8, alpha=0.4)
        validation = series(rows, "validation_mean")
        axes.plot(*validation, "o-", color=colour, lw=1.4, ms=2.5, label=name)
    axes.plot([], [], color=MUTED, lw=0.8, label="training, mean")
    step, mean = _mean_over_runs(runs)
    axes.plot(step, mean, color="#14181f", lw=2.4, label=f"mean of {len(runs)} runs")


def _mean_over_runs(runs: Mapping[str, Sequence[Row]]) -> tuple[np.ndarray, np.ndarray]:
    """The validation means' mean, at the iterations that every run has validated."""
    tables = [dict(series(rows, "validation_mean").T) for rows in runs.values()]
    if not tables:
        return np.zeros(0), np.zeros(0)
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    mean = [np.mean([table[step] for table in tables]) for step in shared]
    return np.array(shared), np.array(mean)


def _frames_above(axes: Axes, rows: Sequence[Row]) -> None:
    """Game frames along the upper edge; they are not proportional to iterations."""
    step, frames = series(rows, "frames")
    if not len(step):
        return
    low, high = axes.get_xlim()
    ticks = MaxNLocator(6).tick_values(0, frames[-1])
    at = np.interp(ticks, [0, *frames], [0, *step])
    shown = (ticks <= frames[-1]) & (at >= low) & (at <= high)
    upper = axes.twiny()
    upper.set(xlim=(low, high), xlabel="game frames")
    upper.set_xticks(at[shown], [EngFormatter(sep=" ")(t) for t in ticks[shown]])
    upper.grid(False)


def _heading(axes: Axes, title: str, runs: Mapping[str, Sequence[Row]]) -> None:
    """The title, and the last validation with the wall time that it took."""
    lasts = []
    for rows in runs.values():
        step, mean = series(rows, "validation_mean")
        _, seconds = series(rows, "seconds")
        if len(step):
            lasts.append((mean[-1], seconds[-1] if len(seconds) else None))
    parts = [title] if title else []
    if lasts:
        parts.append(f"validation {np.mean([mean for mean, _ in lasts]):.0f}")
    times = [seconds for _, seconds in lasts if seconds is not None]
    if times:
        parts.append(f"after {duration(float(np.mean(times)))}")
    axes.set_title("  ·  ".join(parts), loc="left", fontsize=10.5, fontweight="bold")
