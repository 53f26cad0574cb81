"""Kernels in training: evolution on CarRacing with each kernel, at one equal budget.

    python -m experiments.studies.kernels_in_training
    python -m experiments.studies.kernels_in_training --arms taylor --generations 120
    python -m experiments.studies.kernels_in_training --root FOLDER agent.std=0.1
    python -m experiments.studies.kernels_in_training --quick

The preset carracing_es from a wide start (agent.std=0.3), where softmax attention can
learn within this budget too; three seeds an arm, with nothing changed but what patches
are ranked by: exact softmax attention; the ReLU kernel of 64 orthogonal directions, and
plain, of no directions; FAVOR+ (positive features) as it is and centred; hyperbolic and
trigonometric features, centred; Taylor's series of order 2, centred; and the baselines
mean query, one fixed filter, and random patches. The return is that of the mean policy
on the 32 validation tracks. Run it on an idle machine: wall times are of one run after
another.

Prints a table after every seed, writes kernels_in_training.csv and .png below --root.
"""

from collections.abc import Sequence

from experiments.studies.arms import Arms, compare

STUDY = Arms(
    name="kernels_in_training",
    settings=("experiment=carracing_es", "agent.std=0.3"),
    arms={
        "exact": ("encoder.kernel=exact",),
        "relu": ("encoder.kernel=relu",),
        "relu-plain": ("encoder.kernel=relu", "encoder.projection=none"),
        "positive": ("encoder.kernel=positive", "encoder.centring=none"),
        "positive-centred": ("encoder.kernel=positive",),
        "hyperbolic": ("encoder.kernel=hyperbolic",),
        "trig": ("encoder.kernel=trig",),
        "taylor": ("encoder.kernel=taylor",),
        "mean-query": ("encoder.ranking=mean_query",),
        "fixed-filter": ("encoder.ranking=fixed_filter",),
        "random": ("encoder.ranking=random",),
    },
    generations=80,
    every=10,
    quick=(
        *("agent.population=8", "agent.episodes=1"),
        *("env.tracks=4", "env.time_limit=64"),
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, prints the tables, writes kernels_in_training.csv and .png."""
    compare(STUDY, __doc__ or "", argv)


if __name__ == "__main__":
    main()
