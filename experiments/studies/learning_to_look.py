"""The ways for a policy gradient to learn where to look, and not learning it.

    python -m experiments.studies.learning_to_look
    python -m experiments.studies.learning_to_look --world CarRacing
    python -m experiments.studies.learning_to_look --quick

The k best patches hand on where they are and what they show. Which ones those are has
no gradient of its own; queries and keys learn by one of these ways:

  weighted  what is handed on is multiplied by its share of the attention
  score     each patch hands on its share of the attention as one more number
  drawn     patches are drawn, and a policy gradient learns from their log-probability
  trans     no patches are chosen: layers of attention, and what they say in the mean
  unlearned nothing: queries and keys keep their first weights, as a baseline

In OddOneOut, which no fixed filter solves (always the middle earns 5.9, the best filter
8.9, attention 16), four patches of 2x2 pixels out of 256 are handed on and nothing is
remembered. In CarRacing all is as in the preset carracing_ppo, but for a learning rate
that stays as it is. In both, trans has one narrow layer and patches twice as wide: in
its usual size it would take many times as long.

Every run is one of `run.py`, in a folder below the study's: the same command goes on
where it was stopped, and a larger budget goes on from a smaller one. Prints and writes
returns against decisions, of training episodes, and the scores on the test levels.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.arguments import compose
from experiments.metrics import Row
from experiments.studies.arms import Trained, by_arm, draw, trained, write

_PLAIN = ("encoder.content=true", "encoder.weighted=false")
WAYS = {
    "weighted": ("encoder.content=true", "encoder.weighted=true"),
    "score": (*_PLAIN, "encoder.score=true"),
    "drawn": (*_PLAIN, "encoder.temperature=0.1"),
    "trans": ("encoder=trans",),
    "unlearned": _PLAIN,
}
"""The settings of each way."""


class World(NamedTuple):
    """Where ways are compared.

    Attributes:
      settings: of every run.
      choosing: of those that choose patches.
      trans: of those that do not.
      decisions: of each run, unless told otherwise.
      quick: settings with which it takes little time, beside `QUICK`.
    """

    settings: tuple[str, ...]
    choosing: tuple[str, ...]
    trans: tuple[str, ...]
    decisions: int
    quick: tuple[str, ...] = ()


WORLDS = {
    "OddOneOut": World(
        settings=(
            *("agent=ppo", "env=OddOneOut", "controller=deep", "agent.worlds=256"),
            *("agent.steps=16", "agent.patience=0"),
        ),
        choosing=(
            *("encoder.window=2", "encoder.stride=2", "encoder.depth=2"),
            "encoder.top_k=4",
        ),
        trans=(
            *("encoder.window=4", "encoder.stride=4", "encoder.layers=1"),
            *("encoder.width=16", "encoder.heads=2", "encoder.hidden=32"),
        ),
        decisions=400_000,
    ),
    "CarRacing": World(
        settings=("experiment=carracing_ppo", "agent.decay=0"),
        choosing=(),
        trans=(
            *("encoder.window=8", "encoder.stride=8", "encoder.layers=1"),
            *("encoder.width=16", "encoder.heads=2", "encoder.hidden=32"),
        ),
        decisions=300_000,
        quick=("env.tracks=4", "env.time_limit=128"),
    ),
}

COLUMNS = ("return_mean", "attention_entropy", "kl", "explained_variance")
LAST = 0.1  # the share of a run's iterations whose mean its table shows
QUICK = ("agent.worlds=4", "agent.steps=16", "agent.minibatches=2", "agent.epochs=1")


def learned(
    world: World, way: str, seed: int, decisions: int, settings: Sequence[str]
) -> Trained:
    """Trains one run to that many decisions, or goes on with it, as `trained`."""
    eyes = world.trans if way == "trans" else world.choosing
    arguments = [
        *(*world.settings, *WAYS[way], *eyes),
        *("film_every=0", "evaluate_every=0", *settings),
    ]
    agent = compose(arguments).agent
    iterations = math.ceil(decisions / (agent.worlds * agent.steps))
    return trained(way, seed, [*arguments, f"iterations={iterations}"])


def table(results: Sequence[Trained]) -> str:
    """Of each way, means over its seeds with the lowest and the highest, as Markdown.

    Training returns are means over the last tenth of each run's iterations.
    """
    lines = ["| way | seeds | training | test levels | attention entropy |"]
    lines.append("|" + "---|" * 5)
    for way, mine in by_arm(results).items():
        cells = [
            [_late(result.rows, "return_mean") for result in mine],
            [result.summary["mean"] for result in mine],
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


def curves(results: Sequence[Trained]) -> dict[str, list[np.ndarray]]:
    """Of each way, decisions and smoothed returns of every run, f64[2, T]."""
    return {
        way: [
            np.array(
                [
                    [row["decisions"] for row in result.rows],
                    _smooth(np.array([row["return_mean"] for row in result.rows])),
                ]
            )
            for result in mine
        ]
        for way, mine in by_arm(results).items()
    }


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
    parser.add_argument("--world", choices=WORLDS, default="OddOneOut")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way")
    budgets = ", ".join(f"{name} {one.decisions:,}" for name, one in WORLDS.items())
    parser.add_argument("--decisions", type=int, help=f"of each run ({budgets})")
    parser.add_argument("--quick", action="store_true", help="see that all works")
    root = Path("runs/learning_to_look")
    parser.add_argument("--out", type=Path, help=f"folder (default: below {root})")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE, as of run.py")
    given = parser.parse_args(argv)
    world, out = WORLDS[given.world], given.out or root / given.world
    quick = (*QUICK, *world.quick) if given.quick else ()
    settings = [*quick, f"root={out}", *given.settings]
    decisions = world.decisions if given.decisions is None else given.decisions
    seeds, decisions = (1, 128) if given.quick else (given.seeds, decisions)
    results = [
        learned(world, way, seed, decisions, settings)
        for seed in range(seeds)
        for way in given.ways
    ]
    print(table(results))
    out.mkdir(parents=True, exist_ok=True)
    columns = ("decisions", *COLUMNS)
    write(out / "learning_to_look.csv", results, columns, "way")
    picture = out / "learning_to_look.png"
    draw(picture, curves(results), "decisions", "return of training episodes")


if __name__ == "__main__":
    main()
