"""The arms of a comparison: runs of `run.py` that differ in a setting or two.

Every run has a folder of its own below the study's, so that the same command goes on
where it was stopped, an arm that is finished is not run again, and a larger budget goes
on from a smaller one.
"""

import argparse
import csv
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments import folder
from experiments.arguments import compose
from experiments.curve import COLOURS, LOOK, series
from experiments.main import main as run
from experiments.metrics import STEP, Row, read_csv
from experiments.session import folder_of

DASHES = ("-", "--", ":")
"""Of lines: where the colours are used up they begin again with another dash."""
BAND = 0.15
"""Opacity of what lies between the lowest and the highest seed."""
COLUMNS = ("decisions", "seconds", "return_mean", "validation_mean", "validation_sd")
"""What is kept of every validation in evolution."""


class Arms(NamedTuple):
    """A comparison of runs of evolution.

    Attributes:
      name: of its files.
      settings: of every run, as arguments of `run.py`.
      arms: by name, the settings in which they differ.
      generations: of each run.
      every: generations from one validation to the next.
      quick: settings with which it takes little time and shows nothing but that it
        works.
    """

    name: str
    settings: Sequence[str]
    arms: Mapping[str, Sequence[str]]
    generations: int
    every: int
    quick: Sequence[str]


class Trained(NamedTuple):
    """One run.

    Attributes:
      arm: its name.
      seed: of the run.
      rows: its metrics.
      summary: its scores at the end.
    """

    arm: str
    seed: int
    rows: Sequence[Row]
    summary: Mapping[str, Any]


def trained(arm: str, seed: int, arguments: Sequence[str]) -> Trained:
    """Trains a run, or goes on with it; one that is finished is read only.

    Raises:
      SystemExit: the run failed or was stopped.
    """
    arguments = [*arguments, f"seed={seed}"]
    print(f"--- {arm}, seed {seed}", flush=True)
    if status := run(arguments):
        sys.exit(status)
    path = folder_of(compose(arguments))
    summary = folder.read_json(path / folder.SUMMARY)
    return Trained(arm, seed, read_csv(path / folder.METRICS), summary)


def by_arm(results: Sequence[Trained]) -> dict[str, list[Trained]]:
    """The runs of every arm, in the order in which arms first appear."""
    arms = dict.fromkeys(result.arm for result in results)
    return {arm: [result for result in results if result.arm == arm] for arm in arms}


def write(
    path: Path, results: Sequence[Trained], columns: Sequence[str], title: str = "arm"
) -> None:
    """Every run's numbers as CSV: the rows that hold all of these columns."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([title, "seed", STEP, *columns])
        for arm, seed, rows, _ in results:
            for numbers in series(rows, *columns).T:
                writer.writerow([arm, seed, *numbers])


def draw(
    path: Path, curves: Mapping[str, Sequence[np.ndarray]], x: str, y: str
) -> None:
    """Every arm's mean over its seeds as PNG; lowest to highest shaded of a few arms.

    Args:
      path: of the picture.
      curves: of each arm f64[2, T] for every seed, x and y; drawn where all of its
        seeds have a value.
      x: what the first row is.
      y: what the second is.
    """
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(8.4, 4.2), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for i, (arm, lines) in enumerate(curves.items()):
            at = functools.reduce(np.intersect1d, [line[0] for line in lines])
            values = np.array([line[1, np.isin(line[0], at)] for line in lines])
            colour = COLOURS[i % len(COLOURS)]
            dash = DASHES[i // len(COLOURS) % len(DASHES)]
            label = f"{arm} ({len(lines)} seeds)" if len(lines) > 1 else arm
            axes.plot(
                *(at, values.mean(axis=0)), color=colour, ls=dash, lw=1.6, label=label
            )
            if len(curves) <= len(COLOURS):  # more bands cover each other
                low, high = values.min(axis=0), values.max(axis=0)
                axes.fill_between(at, low, high, color=colour, alpha=BAND, lw=0)
        axes.set(xlabel=x, ylabel=y)
        axes.xaxis.set_major_formatter(EngFormatter())
        figure.legend(loc="outside right upper")
        figure.savefig(path)


# --- evolution ----------------------------------------------------------------------


def table(results: Sequence[Trained]) -> str:
    """Of each arm, what its mean policies return at last, in validation, as Markdown.

    The standard deviation is over the seeds (divided by their number); minutes are of
    work, validations included, and decisions those of training, in the mean.
    """
    lines = ["| ranking | return | sd | each seed | minutes | decisions |"]
    lines.append("|" + "---|" * 6)
    for arm, mine in by_arm(results).items():
        ends = np.array(
            [series(result.rows, *COLUMNS)[1:, -1] for result in mine]
        )  # [seeds, columns]
        decisions, seconds, _, score, _ = ends.T
        each = ", ".join(f"{value:.1f}" for value in score)
        cells = [
            *(arm, f"{score.mean():.1f}", f"{score.std():.1f}", each),
            *(f"{seconds.mean() / 60:.1f}", f"{decisions.mean():,.0f}"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare(study: Arms, doc: str, argv: Sequence[str] | None = None) -> None:
    """The command of a study: trains, prints the table, writes CSV and PNG.

    Args:
      study: what is compared.
      doc: the study's docstring; its first line says what --help does.
      argv: arguments of the command; None takes the program's.
    """
    parser = argparse.ArgumentParser(
        description=doc.splitlines()[0],
        epilog="Further settings are those of run.py, for every run alike.",
    )
    add = parser.add_argument
    add("--arms", nargs="+", choices=study.arms, default=list(study.arms))
    add("--seeds", type=int, default=3, help="runs of each arm (default: 3)")
    add(
        *("--generations",),
        **{"type": int, "default": study.generations},
        help=f"of each run (default: {study.generations})",
    )
    add(
        *("--every",),
        **{"type": int, "default": study.every},
        help=f"generations between validations (default: {study.every})",
    )
    add("--quick", action="store_true", help="see that all works")
    root = Path("runs", study.name)
    add(
        "--root", type=Path, help=f"of all its files (default: {root}, or {root}-quick)"
    )
    add("settings", nargs="*", help="KEY=VALUE, as of run.py")
    given = parser.parse_args(argv)
    seeds, generations, every = given.seeds, given.generations, given.every
    if given.quick:
        seeds, generations, every = 1, 2, 1
        root = Path(f"{root}-quick")
    root = given.root or root
    if min(seeds, generations, every) < 1 or generations % every:
        parser.error(
            f"--seeds {seeds}, --generations {generations} and --every {every} must be "
            "at least 1, and the generations a multiple of --every"
        )
    settings = [
        *(*study.settings, *(study.quick if given.quick else ())),
        *(f"root={root}", "film_every=0", f"log_every={every}"),
        *(f"evaluate_every={every}", f"iterations={generations}", *given.settings),
    ]
    results = []
    for seed in range(seeds):
        for arm in given.arms:
            result = trained(arm, seed, [*settings, *study.arms[arm]])
            # An earlier command may have trained it for longer.
            rows = [row for row in result.rows if row[STEP] <= generations]
            results.append(result._replace(rows=rows))
        report(study.name, root, results)


def report(name: str, root: Path, results: Sequence[Trained]) -> None:
    """Prints the table of what is trained so far, and writes the CSV and the PNG."""
    print(table(results), flush=True)
    root.mkdir(parents=True, exist_ok=True)
    write(root / f"{name}.csv", results, COLUMNS)
    curves = {
        arm: [series(result.rows, "validation_mean") for result in mine]
        for arm, mine in by_arm(results).items()
    }
    draw(root / f"{name}.png", curves, "generation", "mean policy's return, validation")
