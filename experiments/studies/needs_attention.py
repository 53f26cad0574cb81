"""A task that needs attention: OddOneOut by kernels, and by what has no attention.

    python -m experiments.studies.needs_attention
    python -m experiments.studies.needs_attention --quick

Evolution with the preset odd_one_out, whose ranking is by attention with the Taylor
kernel, by exact softmax, by the ReLU kernel, and by the three baselines with parameters
of the same shapes: the mean query, one fixed filter, random patches. A return of 16 is
the best; always the middle gets 5.9.

Prints a table, writes needs_attention.csv and .png below --root.
"""

from collections.abc import Sequence

from experiments.studies.arms import Arms, compare

STUDY = Arms(
    name="needs_attention",
    settings=("experiment=odd_one_out",),
    arms={
        "taylor": ("encoder.kernel=taylor",),
        "exact": ("encoder.kernel=exact",),
        "relu": ("encoder.kernel=relu",),
        "mean-query": ("encoder.ranking=mean_query",),
        "fixed-filter": ("encoder.ranking=fixed_filter",),
        "random": ("encoder.ranking=random",),
    },
    generations=250,
    every=10,
    quick=("agent.population=8", "agent.episodes=1", "env.tracks=4"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, prints the table, writes needs_attention.csv and .png."""
    compare(STUDY, __doc__ or "", argv)


if __name__ == "__main__":
    main()
