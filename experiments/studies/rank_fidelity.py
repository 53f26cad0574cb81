"""How faithfully each kernel ranks an image's patches: overlap and Spearman.

    python -m experiments.studies.rank_fidelity
    python -m experiments.studies.rank_fidelity --run runs/NAME

Queries and keys of real CarRacing frames, driven by the scripted driver: 7x7 patches at
stride 4 (529), and single pixels with positions (9,216), under random weights of three
scales, anew for every frame as the directions of random features are; with --run also
the patches, pixels and trained weights of that run. Held against the exact scores in
float64. overlap: the share of the chosen k whose exact score is no less than the k-th
largest (up to 1e-6 of it: a frame holds many equal patches). spearman: the rank
correlation over all patches. below -1: the share of centred logits there, where
Taylor's series of order 2 rises again.

Baselines: exact in float32, in blocks (the noise floor); mean query, q_bar . k_j; fixed
filter, the same with the mean query of all frames; random.

Prints a table, and each overlap that was promised (`PROMISED`) beside what is measured;
writes rank_fidelity.csv and rank_fidelity.png.
"""

import argparse
import csv
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax import lax
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import rankdata

from envs.settings import Color
from experiments import checkpoint, folder
from experiments.build import TEST
from experiments.curve import COLOURS, LOOK, MUTED
from experiments.studies.promises import Promise
from experiments.studies.promises import table as promised
from iap import (
    Design,
    EncoderConfig,
    FeatureMap,
    Kernel,
    Position,
    Projection,
    Scale,
    centres,
    chunked_exact_scores,
    linear_scores,
    weights_shape,
)
from iap.cameras import positions
from iap.features import REGISTRY
from iap.parameters import read_parameters

K = 10
SCALES = (0.1, 0.3, 1.0)
DIRECTIONS = (16, 64, 256, 1024)
TIE = 1e-6
BLOCK = 512  # rows of the exact matrix at once
MOST = 2**24  # entries of a feature matrix: wider ones are left out
VIEWS = {
    "96/7/4": EncoderConfig(window=7, stride=4, top_k=K),
    "pixels": EncoderConfig(window=1, stride=1, top_k=K, position=Position.sincos),
}


# --- frames and tokens --------------------------------------------------------------


def driven_frames(count: int) -> np.ndarray:
    """Frames of the scripted driver, u8[count, 96, 96, 3], on as many test tracks.

    On each track one, at times spread over the first 300 of an episode's steps, from
    the 60th on: before, the camera zooms in.
    """
    from envs.car_racing.driver import drive
    from envs.car_racing.env import make

    env = make(TEST[: min(count, len(TEST))])
    episodes = jnp.arange(count) % len(TEST)
    keys = jax.random.split(jax.random.key(0), count)
    stops = jnp.linspace(60, 300, count).astype(jnp.int32)

    @jax.jit
    def play(world):
        def one(args):
            episode, key, stop = args

            def step(_, state):
                action = drive(world.roads, state)
                return env.step(world, state, action, key)[0]

            start = env.reset(world, episode, key)
            return env.observe(world, lax.fori_loop(0, stop, step, start))

        return lax.map(one, (episodes, keys, stops))

    return np.asarray(play(env.world))


def inputs_of(config: EncoderConfig, image: np.ndarray) -> np.ndarray:
    """What is projected of each patch, pixels and place: f64[L, d_in]."""
    height, width, channels = image.shape
    window, stride = config.window, config.stride
    windows = np.lib.stride_tricks.sliding_window_view(
        image / 255, (window, window), axis=(0, 1)
    )[::stride, ::stride]  # [rows, columns, C, window, window]
    pixels = windows.transpose(0, 1, 3, 4, 2).reshape(-1, window * window * channels)
    relative = centres(height, width, window, stride) / [[height, width]]
    return np.concatenate([pixels, positions(relative, config.position)], axis=1)


class Weights(NamedTuple):
    """Projections to queries and keys, one for each frame.

    Attributes:
      name: of their distribution.
      matrix: f64[N, d_in, 2 d].
      bias: f64[N, 2 d].
    """

    name: str
    matrix: np.ndarray
    bias: np.ndarray


def random_weights(
    config: EncoderConfig, scale: float, count: int, rng: np.random.Generator
) -> Weights:
    """Every number N(0, scale^2), biases too, anew for every frame."""
    inputs, outputs = weights_shape(config, 3)
    drawn = scale * rng.standard_normal((count, inputs + 1, outputs))
    return Weights(f"N(0, {scale:g}²)", drawn[:, :-1], drawn[:, -1])


class Tokens(NamedTuple):
    """Queries and keys of N frames, scaled, with what they are ranked by exactly.

    Attributes:
      queries: f64[N, L, d].
      keys: f64[N, L, d].
      scores: f64[N, L], exact.
      below: share of centred logits below -1.
      usual: f64[N, d], each frame's weights applied to the mean patch of all frames.
    """

    queries: np.ndarray
    keys: np.ndarray
    scores: np.ndarray
    below: float
    usual: np.ndarray


def tokens_of(config: EncoderConfig, frames: np.ndarray, weights: Weights) -> Tokens:
    """Queries, keys and exact scores of every frame."""
    d = config.depth
    seen = np.stack([inputs_of(config, frame) for frame in frames])
    divisor = seen.shape[2] if config.scale is Scale.d_in else d
    matrix, bias = (
        part * divisor**-0.25 for part in (weights.matrix, weights.bias[:, None])
    )
    both = seen @ matrix + bias
    usual = seen.mean(axis=(0, 1)) @ matrix[:, :, :d] + bias[:, 0, :d]
    queries, keys = both[:, :, :d], both[:, :, d : 2 * d]
    exact, below = zip(*map(exact64, queries, keys), strict=True)
    return Tokens(queries, keys, np.stack(exact), float(np.mean(below)), usual)


def exact64(queries: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, float]:
    """Row-normalised exact scores, f64[L], and the share of centred logits below -1."""
    scores, below = np.zeros(len(keys)), 0
    centred = keys - keys.mean(axis=0)
    middle = queries.mean(axis=0)
    for start in range(0, len(queries), BLOCK):
        rows = queries[start : start + BLOCK]
        below += np.count_nonzero((rows - middle) @ centred.T < -1)
        matrix = rows @ keys.T
        matrix -= matrix.max(axis=1, keepdims=True)
        np.exp(matrix, out=matrix)
        scores += (1 / matrix.sum(axis=1)) @ matrix
    return scores, below / len(queries) ** 2


# --- rankings -----------------------------------------------------------------------


class Ranking(NamedTuple):
    """A way to score patches.

    Attributes:
      name: the kernel, or the baseline.
      directions: m; 0 where there are none.
      centred: whether exp is estimated around the means.
      scores: Tokens -> [N, L].
    """

    name: str
    directions: int
    centred: bool
    scores: Callable[[Tokens], np.ndarray]


def rankings(
    kernels: Sequence[Kernel], directions: Sequence[int], depth: int, length: int
) -> Iterator[Ranking]:
    """The baselines, then every kernel with every m, raw and centred."""
    yield Ranking("exact in blocks", 0, False, _exact_blocks)
    yield Ranking("mean query", 0, False, _mean_query)
    yield Ranking("fixed filter", 0, False, _fixed_filter)
    yield Ranking("random", 0, False, _random)
    for kernel in kernels:
        for name, design in _designs(kernel, directions, depth):
            if _width(kernel, design) * length > MOST:
                continue
            for centred in (False, True) if REGISTRY[kernel].exponential else (False,):
                count = design.features if name == kernel.value else 0
                scores = functools.partial(_linear, kernel, design, centred)
                yield Ranking(name, count, centred, scores)


def _designs(
    kernel: Kernel, directions: Sequence[int], depth: int
) -> list[tuple[str, Design]]:
    """A name and a design for each variant; those without directions have own names."""
    design = Design(depth)
    if kernel is Kernel.taylor:
        return [(f"taylor {n}", design._replace(order=n)) for n in (2, 4)]
    if kernel is Kernel.elu:
        return [("elu + 1", design)]
    drawn = [(kernel.value, design._replace(features=m)) for m in directions]
    if kernel is Kernel.relu:
        plain = design._replace(projection=Projection.none)
        return [("relu plain", plain), *drawn]
    return drawn


def _width(kernel: Kernel, design: Design) -> int:
    each = {Kernel.trig: 2, Kernel.hyperbolic: 2, Kernel.angular: 4 * (1 + 8)}
    return each.get(kernel, 1) * design.features


def _linear(
    kernel: Kernel, design: Design, centred: bool, tokens: Tokens
) -> np.ndarray:
    """Scores of all frames, each with directions of its own."""
    count = len(tokens.queries)
    entry = REGISTRY[kernel]
    drawn = [entry.constants(design._replace(seed=seed)) for seed in range(count)]
    stacked = [
        np.stack(parts) if isinstance(parts[0], np.ndarray) else None
        for parts in zip(*drawn, strict=True)
    ]
    queries, keys = np.float32(tokens.queries), np.float32(tokens.keys)
    score = _compiled(kernel, design, centred)
    return np.asarray(score(queries, keys, stacked))


@functools.cache
def _compiled(kernel: Kernel, design: Design, centred: bool) -> Callable[..., Any]:
    entry = REGISTRY[kernel]
    fixed = entry.constants(design)

    def one(tokens):
        queries, keys, drawn = tokens
        constants = [
            given if new is None else new
            for given, new in zip(fixed, drawn, strict=True)
        ]
        features = FeatureMap(
            lambda x, y: entry.apply(x, y, *constants),
            exponential=entry.exponential,
            positive=entry.positive,
            rowwise=entry.rowwise(design),
            quadratic=entry.quadratic(design),
        )
        return linear_scores(queries, keys, features, centred=centred)

    return jax.jit(lambda *tokens: lax.map(one, tokens))


def _exact_blocks(tokens: Tokens) -> np.ndarray:
    return np.asarray(_blocks(np.float32(tokens.queries), np.float32(tokens.keys)))


@jax.jit
def _blocks(queries: jax.Array, keys: jax.Array) -> jax.Array:
    return lax.map(lambda pair: chunked_exact_scores(*pair), (queries, keys))


def _mean_query(tokens: Tokens) -> np.ndarray:
    return np.einsum("nd,nld->nl", tokens.queries.mean(axis=1), tokens.keys)


def _fixed_filter(tokens: Tokens) -> np.ndarray:
    return np.einsum("nd,nld->nl", tokens.usual, tokens.keys)


def _random(tokens: Tokens) -> np.ndarray:
    return np.random.default_rng(0).random(tokens.scores.shape)


# --- fidelity -----------------------------------------------------------------------


def overlap(exact: np.ndarray, scores: np.ndarray, k: int = K) -> float:
    """Share of the k chosen whose exact score reaches the k-th largest, ties included.

    Args:
      exact: f64[L].
      scores: [L]; of equal ones the lowest index is chosen, as `iap.select` does.
      k: how many are chosen.
    """
    chosen = np.argsort(-scores, kind="stable")[:k]
    least = np.partition(exact, -k)[-k]
    return float(np.mean(exact[chosen] >= (1 - TIE) * least))


def spearman(exact: np.ndarray, scores: np.ndarray) -> float:
    """Rank correlation; equal scores share their mean rank."""
    return float(np.corrcoef(rankdata(exact), rankdata(scores))[0, 1])


class Row(NamedTuple):
    """The fidelity of one ranking, mean and standard error over frames.

    Attributes:
      view: window and stride, or the run's.
      weights: their distribution.
      below: share of centred logits below -1.
      ranking: kernel or baseline.
      directions: m; 0 where there are none.
      centred: whether exp is estimated around the means.
      overlap: of the k best.
      overlap_se: its standard error.
      spearman: over all patches.
      spearman_se: its standard error.
    """

    view: str
    weights: str
    below: float
    ranking: str
    directions: int
    centred: bool
    overlap: float
    overlap_se: float
    spearman: float
    spearman_se: float


def measure(
    view: str,
    config: EncoderConfig,
    frames: np.ndarray,
    weights: Weights,
    kernels: Sequence[Kernel],
    directions: Sequence[int],
) -> list[Row]:
    """Every ranking's fidelity at one view and one distribution of weights."""
    tokens = tokens_of(config, frames, weights)
    rows = []
    for name, count, centred, score in rankings(
        kernels, directions, config.depth, tokens.scores.shape[1]
    ):
        numbers = []
        scores = score(tokens)
        for measured in (overlap, spearman):
            each = list(map(measured, tokens.scores, scores))
            numbers += [np.mean(each), np.std(each) / max(1, len(each) - 1) ** 0.5]
        rows.append(
            Row(view, weights.name, tokens.below, name, count, centred, *numbers)
        )
    return rows


def trained(path: Path, count: int) -> tuple[str, EncoderConfig, Weights]:
    """The view of a run and its best weights, the same for every frame.

    Raises:
      RunError: there is no such run, it does not look at 96x96 frames in colour, or
        it does not rank patches by one head.
    """
    from experiments.arguments import stored

    config = stored(path)
    env = config.env
    ours = env.name == "CarRacing" and env.size == 96 and env.color is Color.rgb
    if not ours or env.frame_stack > 1:
        raise folder.RunError(
            f"the run {path} does not look at single 96x96 frames in colour, which are "
            "all that this study has; give another run"
        )
    if not isinstance(config.encoder, EncoderConfig) or config.encoder.heads > 1:
        raise folder.RunError(
            f"the run {path} does not rank patches by one head, which is all that this "
            "study holds against the exact ranking; give another run"
        )
    file = path / folder.CHECKPOINTS / checkpoint.BEST
    encoder = dataclasses.replace(config.encoder, content=False)
    try:
        weights, bias = read_parameters(file, encoder)
    except OSError as error:
        raise folder.RunError(f"cannot read {file}: {error.strerror}") from error
    bias = np.zeros(weights.shape[1]) if bias is None else bias
    both = (np.repeat(part[None], count, 0).astype(float) for part in (weights, bias))
    return f"96/{encoder.window}/{encoder.stride}", encoder, Weights("trained", *both)


# --- shown --------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Overlaps as Markdown: a line for each ranking, a column for each setting."""
    settings = list(dict.fromkeys((row.view, row.weights, row.below) for row in rows))
    lines = [
        "| ranking | m | " + " | ".join(f"{v}, {w}" for v, w, _ in settings) + " |",
        "|---|---|" + "---|" * len(settings),
        "| share of logits below -1 | | "
        + " | ".join(f"{below:.2g}" for *_, below in settings)
        + " |",
    ]
    found = {row[:2] + row[3:6]: row for row in rows}
    for ranking in dict.fromkeys(row[3:6] for row in rows):
        name, count, centred = ranking
        cells = []
        for view, weights, _ in settings:
            row = found.get((view, weights, *ranking))
            cells.append(f"{row.overlap:.2f} ({row.spearman:.2f})" if row else "")
        name = f"**{name}, centred**" if centred else name
        lines.append(f"| {name} | {count or ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PROMISED = (
    ("96/7/4", "trained", "taylor 2", 0, 0.99),
    ("96/7/4", "trained", "positive", 64, 0.95),
    ("96/7/4", "N(0, 0.3²)", "taylor 2", 0, 0.95),
    ("pixels", "N(0, 0.1²)", "taylor 2", 0, 0.95),
    ("pixels", "N(0, 0.3²)", "taylor 2", 0, 0.95),
)
"""View, weights, ranking (centred), m and the least overlap of the ten best."""


def promises(rows: Sequence[Row]) -> list[Promise]:
    """Those whose view, weights and ranking were measured."""
    found = {row[:2] + row[3:6]: row.overlap for row in rows}
    return [
        Promise(
            f"{view}, {weights}: overlap of {name}{f', m = {m}' if m else ''}, centred",
            *(bar, True, [found[view, weights, name, m, True]]),
        )
        for view, weights, name, m, bar in PROMISED
        if (view, weights, name, m, True) in found
    ]


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Overlap over m: a panel for each setting."""
    settings = list(dict.fromkeys((row.view, row.weights) for row in rows))
    columns = min(4, len(settings)) if len(settings) > 6 else min(3, len(settings))
    lines = -(-len(settings) // columns)
    figure = Figure(
        figsize=(3.0 * columns, 2.5 * lines + 0.6), dpi=110, layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, (view, weights) in zip(panels, settings, strict=False):
        _panel(axes, [row for row in rows if row[:2] == (view, weights)])
        axes.set_title(f"{view}, {weights}", loc="left")
    for axes in panels[len(settings) :]:
        axes.set_axis_off()
    handles = {}
    for axes in panels[: len(settings)]:
        handles |= dict(
            zip(*reversed(axes.get_legend_handles_labels()), strict=True)  # by label
        )
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=6, fontsize=7
    )
    figure.savefig(path)


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    random = [row for row in rows if row.directions]
    names = list(dict.fromkeys(row.ranking for row in random))
    for i, name in enumerate(names):
        for centred in (False, True):
            own = [
                row for row in random if (row.ranking, row.centred) == (name, centred)
            ]
            if own:
                axes.semilogx(
                    [row.directions for row in own],
                    [row.overlap for row in own],
                    "o-" if centred else "s:",
                    ms=3,
                    lw=1.2,
                    color=[*COLOURS, "#14181f"][i % 7],
                    label=f"{name}, centred" if centred else name,
                )
    styles = {"taylor 2": "-", "exact in blocks": "--", "mean query": "-."}
    for row in rows:
        if row.ranking in styles and (row.centred or row.ranking != "taylor 2"):
            axes.axhline(
                row.overlap,
                color=MUTED,
                ls=styles[row.ranking],
                lw=1,
                label=f"{row.ranking}, centred" if row.centred else row.ranking,
            )
    counts = sorted({row.directions for row in random})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="directions m", ylabel="overlap of the 10 best", ylim=(0, 1.03))


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; writes the numbers and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--frames", type=int, default=40, help="at 7x7 patches and of the run")
    add("--pixel-frames", type=int, default=6, help="at single pixels")
    add("--run", type=Path, help="folder of a trained run")
    add("--scale", default="depth", choices=[s.name for s in Scale], help="of logits")
    add("--directions", type=int, nargs="+", default=DIRECTIONS, help="m")
    kernels = [kernel.value for kernel in REGISTRY]
    add("--kernels", nargs="+", default=kernels, choices=kernels)
    add("--seed", type=int, default=0, help="of the random weights")
    add("--out", type=Path, default=Path(), help="folder to write to")
    arguments = parser.parse_args(argv)
    if min(arguments.frames, arguments.pixel_frames) < 1:
        parser.error("--frames and --pixel-frames must be at least 1")
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [Kernel(name) for name in arguments.kernels]
    try:
        run = arguments.run and trained(arguments.run, arguments.frames)
    except (folder.RunError, ValueError) as error:
        parser.error(str(error))
    frames = driven_frames(max(arguments.frames, arguments.pixel_frames))
    rng = np.random.default_rng(arguments.seed)
    jobs = []
    if run:
        view, config, weights = run
        jobs.append((view, config, frames[: arguments.frames], weights))
    for view, config in VIEWS.items():
        config = dataclasses.replace(config, scale=Scale[arguments.scale])
        count = arguments.pixel_frames if view == "pixels" else arguments.frames
        shown = frames[np.linspace(0, len(frames) - 1, count).astype(int)]
        jobs += [
            (view, config, shown, random_weights(config, scale, count, rng))
            for scale in SCALES
        ]
    rows = []
    for job in jobs:
        rows += measure(*job, kernels=chosen, directions=arguments.directions)
        print(f"{job[0]}, {job[3].name}: done", flush=True)
    print(table(rows))
    print(
        "Overlap (Spearman), means over frames; their standard errors are in the CSV."
    )
    found = promises(rows) if arguments.scale == Scale.depth.name else []
    if found:
        print(f"\n{promised(found)}")
    with open(arguments.out / "rank_fidelity.csv", "w", newline="") as file:
        csv.writer(file).writerows([Row._fields, *rows])
    with matplotlib.rc_context(LOOK):
        draw(arguments.out / "rank_fidelity.png", rows)


if __name__ == "__main__":
    main()
