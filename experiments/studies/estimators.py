"""How far random features are off exp(x . y): closed forms over Monte-Carlo.

    python -m experiments.studies.estimators

Two figures, each with its numbers. utility: r, the error of trigonometric over that of
positive features, for two vectors of length l at the angle phi, over [-pi, pi] x
[-2, 2], and its slices at l = 1/2 and 1. errors: the mean squared errors of positive,
hyperbolic, trigonometric and oprf features from equal to opposed vectors, where exp is
small. Lines are `iap.theory`, dots the shipped feature maps with independent
directions; a dot is drawn where |x + y|^2 <= 1, since the fourth moment of positive
features, exp(8 |x + y|^2), needs more draws than this beyond. Prints a table, writes
utility.csv, utility.png, errors.csv and errors.png.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from experiments.curve import COLOURS, LOOK
from iap import maps, theory

D, M = 4, 16
TAILS = 1.0  # |x + y|^2 up to which Monte-Carlo is trusted
BATCH = 1000  # draws at once: 250 MB of features at most

Closed = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Estimator(NamedTuple):
    """A feature map and the closed form of its error at m = M.

    Attributes:
      apply: (x, y, omega) -> phi(x), psi(y).
      closed: (x f64[N, d], y f64[N, d]) -> f64[N].
    """

    apply: Callable
    closed: Closed


def estimators(length: float) -> dict[str, Estimator]:
    """The four by name; oprf is made for vectors of one length at any angle."""
    spread = 2 * length**2  # the mean of |x + y|^2
    a = float(maps.tilt(spread, D))
    return {
        "positive": Estimator(maps.positive, lambda x, y: theory.mse_positive(x, y, M)),
        "hyperbolic": Estimator(
            maps.hyperbolic, lambda x, y: theory.mse_hyperbolic(x, y, M)
        ),
        "trigonometric": Estimator(maps.trig, lambda x, y: theory.mse_trig(x, y, M)),
        "oprf": Estimator(
            lambda x, y, omega: maps.oprf(x, y, omega, spread),
            lambda x, y: theory.mse_oprf(x, y, M, a),
        ),
    }


def vectors(angles: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one length at the given angles f64[N]: x, y f64[N, d]."""
    x, y = np.zeros((2, len(angles), D))
    x[:, 0] = length
    y[:, 0], y[:, 1] = length * np.cos(angles), length * np.sin(angles)
    return x, y


def measured(
    apply: Callable,
    x: np.ndarray,
    y: np.ndarray,
    draws: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of an estimator over draws of M directions.

    Args:
      apply: (x, y, omega) -> phi(x), psi(y).
      x: f64[N, d].
      y: f64[N, d].
      draws: how many, in whole batches.
      rng: their source.

    Returns:
      The error f64[N] and its own standard error f64[N].
    """
    exact = np.exp(np.sum(x * y, axis=1))
    x32, y32 = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)

    @jax.jit
    @jax.vmap
    def estimate(omega):
        phi, psi = apply(x32, y32, omega)
        exponent = phi.exponent + psi.exponent
        return jnp.sum(phi.value * psi.value * jnp.exp(exponent), axis=1)

    batches = []
    for _ in range(max(1, draws // BATCH)):
        omega = rng.standard_normal((BATCH, M, D)).astype(np.float32)
        batches.append((np.asarray(estimate(omega), np.float64) - exact) ** 2)
    squares = np.concatenate(batches)
    return squares.mean(axis=0), squares.std(axis=0, ddof=1) / np.sqrt(len(squares))


class Row(NamedTuple):
    """An error at one angle and length; not-a-number where it was not measured.

    Attributes:
      what: the estimator, or r.
      length: of x and of y.
      angle: between them, in radians.
      kernel: exp(x . y).
      theory: by the closed form.
      monte_carlo: measured.
      standard_error: of that.
    """

    what: str
    length: float
    angle: float
    kernel: float
    theory: float
    monte_carlo: float = np.nan
    standard_error: float = np.nan


def compare(
    angles: np.ndarray, length: float, draws: int, rng: np.random.Generator
) -> list[Row]:
    """Every estimator's error at every angle: closed form and Monte-Carlo."""
    x, y = vectors(angles, length)
    kernel = np.exp(np.sum(x * y, axis=1))
    light = np.sum((x + y) ** 2, axis=1) <= TAILS + 1e-9
    rows = []
    for name, (apply, closed) in estimators(length).items():
        mean, error = np.full((2, len(angles)), np.nan)
        if light.any():
            mean[light], error[light] = measured(apply, x[light], y[light], draws, rng)
        columns = (angles, kernel, closed(x, y), mean, error)
        rows += [Row(name, length, *map(float, c)) for c in zip(*columns, strict=True)]
    return rows


def of(rows: Sequence[Row], what: str, length: float) -> dict[str, np.ndarray]:
    """The columns of one estimator at one length."""
    kept = [row for row in rows if row.what == what and row.length == length]
    return {
        name: np.array([getattr(row, name) for row in kept]) for name in Row._fields[2:]
    }


def ratios(rows: Sequence[Row], length: float) -> list[Row]:
    """The rows of r, from those of its two errors."""
    above, below = (of(rows, name, length) for name in ("trigonometric", "positive"))
    r = above["monte_carlo"] / below["monte_carlo"]
    relative = [part["standard_error"] / part["monte_carlo"] for part in (above, below)]
    columns = (
        *(above["angle"], above["kernel"], theory.utility(above["angle"], length)),
        *(r, r * np.hypot(*relative)),
    )
    return [Row("r", length, *map(float, c)) for c in zip(*columns, strict=True)]


def draw_utility(path: Path, rows: Sequence[Row]) -> None:
    """The surface of r and its slices."""
    phi, length = np.linspace(-np.pi, np.pi, 361), np.linspace(-2, 2, 241)
    with np.errstate(divide="ignore"):
        surface = np.log10(theory.utility(phi[None, :], length[:, None]))
    figure, (left, right) = _panels()
    mesh = left.pcolormesh(
        *(phi, length, np.clip(surface, -8, 8)),
        cmap="RdBu_r",
        norm=TwoSlopeNorm(0, -8, 8),
        rasterized=True,
    )
    left.contour(phi, length, surface, [0], colors="#14181f", linewidths=1)
    bar = figure.colorbar(mesh, ax=left, ticks=range(-8, 9, 4), extend="both")
    bar.ax.set_yticklabels([f"$10^{{{n}}}$" for n in range(-8, 9, 4)])
    left.set(xlabel="angle φ", ylabel="length l")
    left.set_title("r(φ, l); black: r = 1", loc="left")
    left.set_xticks(np.pi * np.arange(-1, 2), ["-π", "0", "π"])
    left.grid(False)
    fine = np.linspace(0.05, 3.13, 400)
    for i, size in enumerate((0.5, 1.0)):
        right.semilogy(
            *(fine, theory.utility(fine, size)),
            color=COLOURS[i],
            label=f"l = {size:g}",
        )
        _dots(right, of(rows, "r", size), "angle", COLOURS[i])
    right.axhline(1, color="#14181f", lw=0.8)
    right.set(xlabel="angle φ", ylabel="r = MSE trig / MSE positive")
    right.set_title("slices: theory and Monte-Carlo ± 2 s.e.", loc="left")
    right.set_xlim(0, np.pi)
    right.set_ylim(1e-7, 1e5)
    right.legend(loc="upper left")
    figure.savefig(path)


def draw_errors(path: Path, rows: Sequence[Row]) -> None:
    """Errors over the angle at length 1, and relative ones over exp at length 2."""
    figure, (left, right) = _panels()
    every, opposed = np.linspace(0.01, 3.14, 400), np.linspace(np.pi / 2, 3.14, 400)
    x, y = vectors(opposed, 2.0)
    kernel = np.exp(np.sum(x * y, axis=1))
    for i, name in enumerate(estimators(1.0)):
        near, far = (estimators(length)[name].closed for length in (1.0, 2.0))
        left.semilogy(every, near(*vectors(every, 1.0)), color=COLOURS[i], label=name)
        _dots(left, of(rows, name, 1.0), "angle", COLOURS[i])
        right.loglog(kernel, far(x, y) / kernel**2, color=COLOURS[i])
        _dots(right, relative(of(rows, name, 2.0)), "kernel", COLOURS[i])
    left.set(xlabel="angle φ", ylabel="mean squared error")
    left.set_title(f"|x| = |y| = 1, d = {D}, m = {M}", loc="left")
    left.set_ylim(1e-6, 1e2)
    left.legend(loc="lower left")
    right.set(xlabel="exp(x · y), small values", ylabel="relative mean squared error")
    right.set_title("|x| = |y| = 2; Monte-Carlo ± 2 s.e.", loc="left")
    right.axhline(1, color="#14181f", lw=0.8)
    right.set_ylim(1e-4, 1e7)
    figure.savefig(path)


def relative(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Errors divided by the squares of what is estimated."""
    square = part["kernel"] ** 2
    errors = {name: part[name] / square for name in ("monte_carlo", "standard_error")}
    return {**part, **errors}


def _panels() -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(9.6, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, 2)


def _dots(axes: Axes, part: dict[str, np.ndarray], x: str, colour: str) -> None:
    shown = np.isfinite(part["monte_carlo"])
    axes.errorbar(
        *(part[x][shown], part["monte_carlo"][shown]),
        yerr=2 * part["standard_error"][shown],
        fmt="o",
        ms=3,
        lw=1,
        color=colour,
    )


def table(rows: Sequence[Row]) -> str:
    """The measured rows as Markdown."""
    lines = ["| " + " | ".join(Row._fields) + " |", "|" + "---|" * len(Row._fields)]
    for what, *numbers in (row for row in rows if np.isfinite(row.monte_carlo)):
        lines.append("| " + " | ".join([what, *(f"{n:.4g}" for n in numbers)]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; writes numbers and figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=200_000, help="of 16 directions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    angles = {
        0.5: np.linspace(0.2, 3.0, 15),
        1.0: np.linspace(0, 3, 25),
        2.0: np.linspace(1.6, 3.1, 25),
    }
    rng = np.random.default_rng(arguments.seed)
    errors = [
        row
        for length, at in angles.items()
        for row in compare(at, length, arguments.draws, rng)
    ]
    utility = [row for length in (0.5, 1.0) for row in ratios(errors, length)]
    print(table([*utility, *errors]))
    for name, rows in (("utility", utility), ("errors", errors)):
        with open(arguments.out / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([Row._fields, *rows])
    with matplotlib.rc_context(LOOK):
        draw_utility(arguments.out / "utility.png", utility)
        draw_errors(arguments.out / "errors.png", errors)


if __name__ == "__main__":
    main()
