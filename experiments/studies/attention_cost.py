"""What attention costs over the number of patches: exact, exact in blocks, linear.

    python -m experiments.studies.attention_cost

Scores of one image's patches (queries and keys of 4 numbers), forward and forward with
backward. Time is the median wall time of a compiled call, and of that the median over
some rounds; memory the temporary buffers that XLA plans for it beside arguments and
results. What would need more memory than --memory is not run, nor what would take
longer than --limit a call, as the time at the size before predicts it; the memory of
both is known nevertheless. Then the whole encoder, from bytes to the ten best, in CPU
time of a process that has one core to itself, as each core evaluates its part of a
population: one member after another, each with weights of its own and an image from
each of its worlds.

Prints the table of Long Range Arena's form, everything as ratios within the run, and
each number that was promised beside what is measured, with its extremes; writes
attention_cost.csv and attention_cost.png. Nothing else should run beside it.
"""

import argparse
import csv
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.curve import COLOURS, LOOK
from experiments.studies.promises import Promise, shown, table
from iap import (
    Design,
    EncoderConfig,
    Kernel,
    Position,
    Projection,
    chunked_exact_scores,
    encode,
    exact_scores,
    feature_map,
    linear_scores,
    weights_shape,
)

D = 4
SIZES = (529, 1024, 2048, 3072, 4096, 9216, 16384, 65536)
ARENA = (1024, 2048, 3072, 4096)  # tokens of the slides' table
CHUNK = 1024
EXACT, BLOCKS = "exact", "exact in blocks"
QUADRATIC = (EXACT, BLOCKS)  # of which time grows as L^2, of the others as L
PASSES = ("forward", "both")
GB = 1e9
LONG = 2.0  # seconds
TIMES = ("seconds", "seconds_least", "seconds_most")
Result = TypeVar("Result")


def _linear(kernel: Kernel, chunk: int | None = None, **design: Any) -> Callable:
    features = feature_map(kernel, Design(D, **design))
    centred = features.exponential

    def scores(queries, keys):
        return linear_scores(queries, keys, features, centred=centred, chunk=chunk)

    return scores


def methods() -> dict[str, Callable]:
    """Ways to score patches by name: (q f32[L, D], k f32[L, D]) -> f32[L]."""
    return {
        EXACT: exact_scores,
        BLOCKS: chunked_exact_scores,
        "relu, plain": _linear(Kernel.relu, projection=Projection.none),
        "relu, m = 64": _linear(Kernel.relu),
        "FAVOR+, m = 64": _linear(Kernel.positive),
        "taylor 2": _linear(Kernel.taylor),
        "taylor 2, in blocks": _linear(Kernel.taylor, CHUNK),
    }


class Row(NamedTuple):
    """The cost of one call.

    Attributes:
      method: how patches are scored, or the encoder's kernel.
      what: forward, both (with backward) or encoder.
      patches: L.
      times: seconds, in each round the median wall time of a call; CPU time for each
        image of an encoder; none where it was not run.
      bytes: beside arguments and results; of an encoder, for each image in hand.
      left_out: why it was not run; empty where it was.
    """

    method: str
    what: str
    patches: int
    times: tuple[float, ...]
    bytes: float
    left_out: str = ""

    @property
    def seconds(self) -> float:
        """The median over the rounds; not-a-number where there are none."""
        return float(np.median(self.times)) if self.times else math.nan


def passes(scores: Callable) -> dict[str, Callable]:
    """The function alone, and its value with the gradient of a weighted sum."""

    def loss(queries, keys, weight):
        return jnp.vdot(scores(queries, keys), weight)

    return {
        "forward": lambda queries, keys, weight: scores(queries, keys),
        "both": jax.value_and_grad(loss, argnums=(0, 1)),
    }


def planned(function: Callable, arguments: Sequence[Any]) -> tuple[Callable, float]:
    """A function compiled for its arguments, and the bytes that a call sets aside."""
    compiled = jax.jit(function).lower(*arguments).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None, "XLA plans its memory on every backend"
    return compiled, analysis.temp_size_in_bytes


def timed(
    compiled: Callable,
    arguments: Sequence[Any],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median time of a compiled call.

    Args:
      compiled: is called.
      arguments: arrays.
      seconds: calls are made until these are over, 3 at least unless one takes longer.
      clock: what time is read from.
    """
    begun = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))  # first touch of its memory
    if time.perf_counter() - begun > seconds:
        begun, start = time.perf_counter(), clock()
        jax.block_until_ready(compiled(*arguments))
        return clock() - start
    times: list[float] = []
    while len(times) < 3 or time.perf_counter() - begun < seconds:
        start = clock()
        jax.block_until_ready(compiled(*arguments))
        times.append(clock() - start)
    return float(np.median(times))


class Limits(NamedTuple):
    """What a single call may take; what would take more is left out.

    Attributes:
      seconds: as predicted from a smaller size.
      bytes: beside arguments and results.
    """

    seconds: float
    bytes: float


def predicted(rows: Sequence[Row], method: str, what: str, size: int) -> float:
    """Seconds of a call at a size, from the largest size below that was timed.

    0 where there is none.
    """
    below = [
        row
        for row in of(rows, method, what).values()
        if row.patches < size and row.times
    ]
    if not below:
        return 0.0
    last = max(below, key=lambda row: row.patches)
    return last.seconds * (size / last.patches) ** (2 if method in QUADRATIC else 1)


def excess(seconds: float, needed: float, limits: Limits) -> str:
    """Why a call of so many predicted seconds and bytes is left out, or nothing."""
    if needed > limits.bytes:
        return f"over {limits.bytes / GB:g} GB a call"
    if seconds > limits.seconds:
        return f"over {limits.seconds:g} s a call, predicted"
    return ""


def measure_scores(
    sizes: Sequence[int], seconds: float, limits: Limits, rounds: int
) -> list[Row]:
    """Every method at every size, forward and both.

    A machine's slow moments last longer than a measurement. So all is compiled first
    and then gone through in rounds, from the smallest size on; what takes longer than
    `LONG` is called in the first of them alone.
    """
    rows: list[Row] = []
    calls: list[tuple[Callable, Sequence[Any]]] = []
    for size in sorted(sizes):
        rng = np.random.default_rng(size)
        tokens = rng.standard_normal((2, size, D)) / 2
        weight = rng.standard_normal(size)
        arguments = [jnp.asarray(x, jnp.float32) for x in (*tokens, weight)]
        for name, scores in methods().items():
            for what, function in passes(scores).items():
                compiled, needed = planned(function, arguments)
                rows.append(Row(name, what, size, (), needed))
                calls.append((compiled, arguments))
        print(f"{size} patches: compiled", flush=True)
    for number in range(rounds):
        for i, row in enumerate(rows):
            if number == 0:
                expected = predicted(rows, row.method, row.what, row.patches)
                row = row._replace(left_out=excess(expected, row.bytes, limits))
            if not row.left_out and not row.seconds > LONG:
                row = row._replace(times=(*row.times, timed(*calls[i], seconds)))
            rows[i] = row
        print(f"round {number + 1} of {rounds}: done", flush=True)
    return rows


class Sight(NamedTuple):
    """An encoder at one size of image.

    Attributes:
      size: side of the image in pixels.
      window: of patches.
      stride: of patches.
      members: of a population, one after another, each with weights of its own.
      worlds: images of each member, at once.
      promised: microseconds of CPU an image.
    """

    size: int
    window: int
    stride: int
    members: int
    worlds: int
    promised: float


SIGHTS = (
    Sight(96, 7, 4, 16, 4, 120),
    Sight(96, 1, 1, 4, 4, 1_200),
    Sight(256, 1, 1, 1, 1, 10_000),
)
KERNELS = (Kernel.relu, Kernel.taylor, Kernel.positive)


def measure_encoder(sight: Sight, kernel: Kernel, seconds: float, rounds: int) -> Row:
    """CPU time of projection, scores and choice for one image, and memory for it."""
    config = EncoderConfig(
        window=sight.window,
        stride=sight.stride,
        kernel=kernel,
        position=Position.sincos if sight.window == 1 else Position.none,
    )
    rng = np.random.default_rng(0)
    shape = (sight.members, *weights_shape(config, 3))
    weights = jnp.asarray(0.3 * rng.standard_normal(shape), jnp.float32)
    bias = jnp.zeros((sight.members, shape[2]), jnp.float32)
    shape = (sight.members, sight.worlds, sight.size, sight.size, 3)
    images = rng.integers(0, 256, shape, np.uint8)

    def member(own):
        images, weights, bias = own

        def one(image):
            return encode(config, image, weights, bias).features

        return jax.vmap(one)(images)

    def look(*population):
        return jax.lax.map(member, population)

    arguments = (jnp.asarray(images), weights, bias)
    compiled, needed = planned(look, arguments)
    patches = ((sight.size - sight.window) // sight.stride + 1) ** 2
    count = sight.members * sight.worlds
    times = tuple(
        timed(compiled, arguments, seconds, time.process_time) / count
        for _ in range(rounds)
    )
    return Row(kernel.value, "encoder", patches, times, needed / sight.worlds)


def on_one_core(function: Callable[..., Result], *arguments: Any) -> Result:
    """What a function returns in a process of its own that is held on one core.

    On several, a thread that waits for another is counted as CPU time too. Where a
    process cannot be held on a core (macOS), it has all of them.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share JAX's threads
    with ProcessPoolExecutor(1, context, _keep_one_core) as pool:
        return pool.submit(function, *arguments).result()


def _keep_one_core():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


# --- shown --------------------------------------------------------------------------


def legend(rows: Sequence[Row]) -> str:
    """What - stands for, or nothing where all was run."""
    reasons = sorted({row.left_out for row in rows} - {""})
    return f"-: {'; '.join(reasons)}" if reasons else ""


def of(rows: Sequence[Row], method: str, what: str) -> dict[int, Row]:
    """The rows of a method by their number of patches."""
    return {
        row.patches: row for row in rows if (row.method, row.what) == (method, what)
    }


def arena(rows: Sequence[Row]) -> str:
    """Speed and memory of forward and backward in the form of Long Range Arena.

    Speeds are calls a second over those of exact attention at the smallest size; so is
    memory, over its memory.
    """
    sizes = [size for size in ARENA if any(row.patches == size for row in rows)]
    if not sizes:
        return ""
    base = of(rows, EXACT, "both")[sizes[0]]
    heads = [f"{size // 1024}K" for size in sizes]
    lines = [
        "| forward and backward | speed "
        + " | ".join(heads)
        + " | memory "
        + " | ".join(heads)
        + " |",
        "|---|" + "---|" * (2 * len(sizes)),
    ]
    for method in dict.fromkeys(row.method for row in rows if row.what == "both"):
        own = of(rows, method, "both")
        speeds = [shown(base.seconds / own[size].seconds) for size in sizes]
        memory = [shown(own[size].bytes / base.bytes, 2) for size in sizes]
        lines.append(f"| {method} | " + " | ".join([*speeds, *memory]) + " |")
    return "\n".join(lines)


def growth(rows: Sequence[Row]) -> str:
    """Time and memory of every method over exact's, same pass, at the smallest size."""
    sizes = sorted({row.patches for row in rows if row.what in PASSES})
    lines = [
        "| " + " | ".join(["method", "pass", "of", *map(str, sizes)]) + " |",
        "|---|---|---|" + "---|" * len(sizes),
    ]
    for what in PASSES:
        base = of(rows, EXACT, what)[sizes[0]]
        for method in dict.fromkeys(row.method for row in rows if row.what == what):
            own = of(rows, method, what)
            for name, values in (
                ("time", [own[size].seconds / base.seconds for size in sizes]),
                ("memory", [own[size].bytes / base.bytes for size in sizes]),
            ):
                cells = map(shown, values)
                lines.append("| " + " | ".join([method, what, name, *cells]) + " |")
    return "\n".join(lines)


def promises(rows: Sequence[Row]) -> list[Promise]:
    """All of them, those of the encoder for every kernel."""
    found = []
    for row in (row for row in rows if row.what == "encoder"):
        sight = next(
            s
            for s in SIGHTS
            if ((s.size - s.window) // s.stride + 1) ** 2 == row.patches
        )
        name = f"{sight.size}/{sight.window}/{sight.stride}, {row.method}"
        found.append(
            Promise(
                f"{name}: us of CPU an image",
                *(sight.promised, False, [1e6 * time for time in row.times]),
            )
        )
        if row.patches == 65536:
            found.append(
                Promise(f"{name}: MB beyond the image", 64, False, [row.bytes / 1e6])
            )
    linear = [name for name in methods() if name not in QUADRATIC]
    for name in linear:
        for what in PASSES:
            own = of(rows, name, what)
            for small, large in ((1024, 4096), (16384, 65536)):
                if {small, large} <= own.keys():
                    found.append(
                        Promise(
                            f"{name}, {what}: time at {large} over {small}",
                            *(4.4, False, ratios(own[large], own[small])),
                        )
                    )
        for other, bar in ((EXACT, 100), (BLOCKS, 20)):
            both = of(rows, name, "forward"), of(rows, other, "forward")
            if all(9216 in own for own in both):
                found.append(
                    Promise(
                        f"{name} at 9216: times faster than {other}",
                        *(bar, True, ratios(both[1][9216], both[0][9216])),
                    )
                )
    return found


def ratios(above: Row, below: Row) -> list[float]:
    """Of two times, in every round that has both."""
    pairs = zip(above.times, below.times, strict=False)
    return [one / other for one, other in pairs]


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Time and memory over the number of patches, over exact's at the smallest."""
    figure = Figure(figsize=(9.6, 4.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    names = dict.fromkeys(row.method for row in rows if row.what == "forward")
    sizes = sorted({row.patches for row in rows if row.what == "forward"})
    for axes, field, title in zip(
        panels, ("seconds", "bytes"), ("time", "memory"), strict=True
    ):
        base = getattr(of(rows, EXACT, "forward")[sizes[0]], field)
        for i, name in enumerate(names):
            for what, style in zip(PASSES, ("o-", "o:"), strict=True):
                own = of(rows, name, what)
                axes.loglog(
                    *(sizes, [getattr(own[size], field) / base for size in sizes]),
                    style,
                    ms=3,
                    lw=1.2,
                    color=[*COLOURS, "#14181f"][i],
                    label=name if what == "forward" else None,
                )
        axes.set(xlabel="patches", ylabel=f"{title} / exact's forward at {sizes[0]}")
        axes.set_title(f"{title}; dotted: with backward", loc="left")
        axes.set_xticks(sizes[1::2], [str(size) for size in sizes[1::2]])
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].legend(fontsize=8)
    figure.savefig(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables; writes the numbers and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=SIZES, help="numbers of patches")
    add("--seconds", type=float, default=0.1, help="of calls, for each measurement")
    add("--rounds", type=int, default=5, help="through all measurements (default: 5)")
    add("--memory", type=float, default=3.0, help="GB that one call may take")
    add("--limit", type=float, default=60.0, help="seconds that one call may take")
    add("--no-encoder", action="store_true", help="leave out the whole encoder")
    add("--worlds", type=int, help="images at once, of the encoder (default: 4, 4, 1)")
    add("--out", type=Path, default=Path(), help="folder to write to")
    arguments = parser.parse_args(argv)
    if min(arguments.sizes) < 1:
        parser.error("--sizes must be at least 1 patch each")
    for name in ("rounds", "worlds"):
        if (given := getattr(arguments, name)) is not None and given < 1:
            parser.error(f"--{name} {given} must be at least 1")
    arguments.out.mkdir(parents=True, exist_ok=True)
    limits = Limits(arguments.limit, arguments.memory * GB)
    seconds, rounds = arguments.seconds, arguments.rounds
    rows = measure_scores(list(set(arguments.sizes)), seconds, limits, rounds)
    if not arguments.no_encoder:
        for sight in SIGHTS:
            sight = sight._replace(worlds=arguments.worlds or sight.worlds)
            for kernel in KERNELS:
                given = (sight, kernel, 2 * seconds, rounds)
                rows.append(on_one_core(measure_encoder, *given))
    print("Times and memory are over exact's at a table's first size, same pass.")
    for text in (arena(rows), growth(rows), legend(rows), table(promises(rows))):
        if text:
            print(f"{text}\n")
    with open(arguments.out / "attention_cost.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "what", "patches", *TIMES, "bytes", "left_out"])
        for row in rows:
            times = row.times and (row.seconds, min(row.times), max(row.times))
            numbers = times or ("", "", "")
            writer.writerow([*row[:3], *numbers, row.bytes, row.left_out])
    with matplotlib.rc_context(LOOK):
        draw(arguments.out / "attention_cost.png", rows)


if __name__ == "__main__":
    main()
