"""Learning over seeds: one table and one picture of several runs.

    python -m experiments.studies.learning runs/CarRacing-es-s0-* runs/CarRacing-es-s1-*

For each run: the mean policy's return on the validation tracks after the given time of
work, the best so far, and the score on the test tracks where the run has finished; then
the means over the runs. Writes learning.csv and learning.png.
"""

import argparse
import csv
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import curve, folder
from experiments.metrics import STEP, Row, read_csv


class Result(NamedTuple):
    """One run after some minutes; not-a-number where it had no such value yet.

    Attributes:
      run: name of its folder.
      iteration: of the last validation within the time.
      minutes: of work until then, validations and films included.
      decisions: of training until then.
      decisions_per_second: median over the iterations until then.
      validation: mean return of that validation.
      best: of the validations until then.
      test: mean return on the test tracks, of the best policy at the run's end.
      test_sd: its standard deviation over the tracks.
    """

    run: str
    iteration: float
    minutes: float
    decisions: float
    decisions_per_second: float
    validation: float
    best: float
    test: float
    test_sd: float


def result(path: Path, minutes: float) -> Result:
    """What the run in a folder had come to after `minutes` of work.

    Raises:
      SystemExit: it was not validated within that time.
    """
    rows = [r for r in read_csv(path / folder.METRICS) if r["seconds"] <= 60 * minutes]
    validated = [row for row in rows if "validation_mean" in row]
    if not validated:
        sys.exit(f"{path} holds no validation within {minutes:g} minutes of work.")
    last: Row = validated[-1]
    speed = float(np.median([row["decisions_per_second"] for row in rows]))
    summary = path / folder.SUMMARY
    score = folder.read_json(summary) if summary.exists() else {}
    return Result(
        run=path.name,
        iteration=last[STEP],
        minutes=last["seconds"] / 60,
        decisions=last["decisions"],
        decisions_per_second=speed,
        validation=last["validation_mean"],
        best=max(row["validation_mean"] for row in validated),
        test=score.get("mean", math.nan),
        test_sd=score.get("sd", math.nan),
    )


def table(results: Sequence[Result]) -> str:
    """The results as Markdown, with the mean over the runs below."""
    numbers = np.array([result[1:] for result in results])
    rows = [*results, Result(f"mean of {len(results)}", *numbers.mean(axis=0))]
    lines = ["| " + " | ".join(Result._fields) + " |"]
    lines.append("|" + "---|" * len(Result._fields))
    for row in rows:
        cells = [row.run, *(f"{value:,.0f}" for value in row[1:])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def names(paths: Sequence[Path]) -> list[str]:
    """Names for the picture, without the hash of settings where those tell apart."""
    whole = [path.name for path in paths]
    short = [re.sub(r"-[0-9a-f]{8}$", "", name) for name in whole]
    return short if len({*short}) == len(short) else whole


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; writes it and the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--minutes", type=float, default=math.inf, help="of work")
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to")
    arguments = parser.parse_args(argv)
    results = [result(path, arguments.minutes) for path in arguments.runs]
    print(table(results))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / "learning.csv", "w", newline="") as file:
        csv.writer(file).writerows([Result._fields, *results])
    rows = [read_csv(path / folder.METRICS) for path in arguments.runs]
    runs = dict(zip(names(arguments.runs), rows, strict=True))
    curve.draw(arguments.out / "learning.png", runs)


if __name__ == "__main__":
    main()
