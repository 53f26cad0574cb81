"""The ways for a policy gradient to learn where to look, and not learning it.

    python -m experiments.studies.learning_to_look
    python -m experiments.studies.learning_to_look --quick
    python -m experiments.studies.learning_to_look --decisions 400000 env.tracks=64

The k best patches hand on where they are and what they show. Which ones those are has
no gradient of its own; queries and keys learn by one of these ways:

  weighted  what is handed on is multiplied by its share of the attention
  score     each patch hands on its share of the attention as one more number
  drawn     patches are drawn, and a policy gradient learns from their log-probability
  trans     no patches are chosen: layers of attention, and what they say in the mean
  unlearned nothing: queries and keys keep their first weights, as a baseline

All else is the preset carracing_ppo's, but for a learning rate that stays as it is.
Every run is one of `run.py`, in a folder below the study's: the same command goes on
where it was stopped, and a larger budget goes on from a smaller one. Prints and writes
returns against decisions, of training episodes, and the scores on the test tracks.
"""

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments import folder
from experiments.arguments import compose
from experiments.curve import COLOURS, LOOK
from experiments.main import main as run
from experiments.metrics import STEP, Row, read_csv
from experiments.session import folder_of

_PLAIN = ("encoder.content=true", "encoder.weighted=false")
WAYS = {
    "weighted": ("encoder.content=true", "encoder.weighted=true"),
    "score": (*_PLAIN, "encoder.score=true"),
    "drawn": (*_PLAIN, "encoder.temperature=1.0"),
    "trans": ("encoder=trans",),
    "unlearned": _PLAIN,
}
"""The settings of each way."""

COLUMNS = ("return_mean", "attention_entropy", "kl", "explained_variance")
LAST = 0.1  # the share of a run's iterations whose mean its table shows
QUICK = (
    *("agent.worlds=4", "agent.steps=16", "agent.minibatches=2", "agent.epochs=1"),
    *("env.tracks=4", "env.time_limit=128"),
)


class Learned(NamedTuple):
    """One run.

    Attributes:
      way: how it learned where to look.
      seed: of the run.
      rows: its metrics.
      test: mean return on the test tracks.
    """

    way: str
    seed: int
    rows: Sequence[Row]
    test: float


def learned(way: str, seed: int, decisions: int, settings: Sequence[str]) -> Learned:
    """Trains one run to that many decisions, or goes on with it.

    Raises:
      SystemExit: the run failed or was stopped.
    """
    arguments = [
        *("experiment=carracing_ppo", "agent.decay=0", "film_every=0"),
        *("evaluate_every=0", f"seed={seed}", *WAYS[way], *settings),
    ]
    config = compose(arguments)
    agent = config.agent
    iterations = math.ceil(decisions / (agent.worlds * agent.steps))
    print(f"--- {way}, seed {seed}", flush=True)
    if status := run([*arguments, f"iterations={iterations}"]):
        sys.exit(status)
    path = folder_of(config)
    rows = read_csv(path / folder.METRICS)
    return Learned(way, seed, rows, folder.read_json(path / folder.SUMMARY)["mean"])


def table(results: Sequence[Learned]) -> str:
    """Of each way, means over its seeds with the lowest and the highest, as Markdown.

    Training returns are means over the last tenth of each run's iterations.
    """
    lines = ["| way | seeds | training | test tracks | attention entropy |"]
    lines.append("|" + "---|" * 5)
    for way in dict.fromkeys(result.way for result in results):
        mine = [result for result in results if result.way == way]
        cells = [
            [_late(result.rows, "return_mean") for result in mine],
            [result.test for result in mine],
            [_late(result.rows, "attention_entropy") for result in mine],
        ]
        said = [f"{np.mean(c):.4g} ({min(c):.4g} to {max(c):.4g})" for c in cells]
        lines.append(" | ".join([f"| {way}", str(len(mine)), *said]) + " |")
    return "\n".join(lines)


def _late(rows: Sequence[Row], name: str) -> float:
    """Mean of a column over the last rows, of those that are numbers."""
    values = [row[name] for row in rows[-max(1, round(LAST * len(rows))) :]]
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def write(path: Path, results: Sequence[Learned]) -> None:
    """Every run's numbers over decisions, as CSV."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["way", "seed", STEP, "decisions", *COLUMNS])
        for way, seed, rows, _ in results:
            for row in rows:
                numbers = [row[name] for name in (STEP, "decisions", *COLUMNS)]
                writer.writerow([way, seed, *numbers])


def draw(path: Path, results: Sequence[Learned]) -> None:
    """Returns over decisions: each way's mean over seeds, lowest to highest shaded."""
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(7.2, 4.2), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for way, colour in zip(WAYS, COLOURS, strict=False):
            mine = [result.rows for result in results if result.way == way]
            if not mine:
                continue
            length = min(map(len, mine))
            x = [row["decisions"] for row in mine[0][:length]]
            y = np.array(
                [[row["return_mean"] for row in rows[:length]] for rows in mine]
            )
            y = np.array([_smooth(line) for line in y])
            label = f"{way} ({len(mine)} seeds)" if len(mine) > 1 else way
            axes.plot(x, y.mean(axis=0), color=colour, lw=1.6, label=label)
            axes.fill_between(
                *(x, y.min(axis=0), y.max(axis=0)), color=colour, alpha=0.15, lw=0
            )
        axes.set(xlabel="decisions", ylabel="return of training episodes")
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.legend(loc="upper left")
        figure.savefig(path)


def _smooth(line: np.ndarray, width: int = 5) -> np.ndarray:
    """The mean of the last iterations, of those in which an episode had ended."""
    known = ~np.isnan(line)
    kernel = np.ones(width)
    total = np.convolve(np.where(known, line, 0), kernel)[: len(line)]
    count = np.convolve(known, kernel)[: len(line)]
    return np.divide(total, count, out=np.full(len(line), np.nan), where=count > 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, prints the table, writes learning_to_look.csv and .png."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="Further settings are those of run.py, for every run alike.",
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way")
    parser.add_argument("--decisions", type=int, default=800_000, help="of each run")
    parser.add_argument("--quick", action="store_true", help="see that all works")
    parser.add_argument("--out", type=Path, default=Path("runs/learning_to_look"))
    parser.add_argument("settings", nargs="*", help="KEY=VALUE, as of run.py")
    given = parser.parse_args(argv)
    settings = [*(QUICK if given.quick else ()), f"root={given.out}", *given.settings]
    seeds, decisions = (1, 128) if given.quick else (given.seeds, given.decisions)
    results = [
        learned(way, seed, decisions, settings)
        for seed in range(seeds)
        for way in given.ways
    ]
    print(table(results))
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "learning_to_look.csv", results)
    draw(given.out / "learning_to_look.png", results)


if __name__ == "__main__":
    main()
