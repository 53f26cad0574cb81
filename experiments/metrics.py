"""Where the numbers of a run go: a CSV file, TensorBoard, the terminal.

A sink takes plain numbers by name. The terminal and the learning curve know the names
below; any other is kept as it is.

frames, decisions: played since the run began, all episodes together.
seconds: of work since the run began, all sessions together.
return_mean, return_best: over the iteration's episodes, as training plays them.
validation_mean, validation_sd: of the mean policy, over the validation levels.
frames_per_second, decisions_per_second: of the iteration, validation and films apart.
"""

import contextlib
import csv
import io
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO, TypeAlias

from experiments.folder import RunError, replacing, unwritable

Metrics: TypeAlias = Mapping[str, float]
Row: TypeAlias = dict[str, float]

STEP = "iteration"
FLUSH = 10.0  # seconds after which TensorBoard's events go to the disk


class Sink(NamedTuple):
    """A place for metrics.

    Attributes:
      write: (iteration, metrics) -> None; values are anything that `float` accepts.
      close: () -> None; afterwards nothing is written.
    """

    write: Callable[[int, Metrics], None]
    close: Callable[[], None]


def combined(*sinks: Sink) -> Sink:
    """Every sink in turn."""

    def write(step: int, metrics: Metrics) -> None:
        for sink in sinks:
            sink.write(step, metrics)

    def close() -> None:
        with contextlib.ExitStack() as all_of_them:  # also where one fails to
            for sink in sinks:
                all_of_them.callback(sink.close)

    return Sink(write, close)


# --- CSV ----------------------------------------------------------------------------


def csv_sink(path: Path, start: int = 0) -> Sink:
    """One row for each report, columns in the order in which they first appeared.

    Rows of iterations after `start` are cut when the file is opened, and so is a row
    that a killed process left unfinished. A name that is new adds a column at the end,
    which rewrites the file. Numbers are written with the nine digits that a float32
    needs to come back exactly; whole numbers in full.

    Args:
      path: the file; made if absent.
      start: the iteration that the run goes on from, 0 for a new one.

    Raises:
      RunError: the file cannot be written or the disk is full, here or in `write`.
    """
    rows = [row for row in read_csv(path) if row[STEP] <= start]
    columns = list(dict.fromkeys([STEP, *(name for row in rows for name in row)]))
    _rewrite(path, columns, rows)
    file = _append(path)

    def write(step: int, metrics: Metrics) -> None:
        nonlocal file
        row = {STEP: step, **metrics}
        if new := [name for name in row if name not in columns]:
            columns.extend(new)
            file.close()
            _rewrite(path, columns, read_csv(path))
            file = _append(path)
        line = (",".join(_text(row.get(name)) for name in columns) + "\n").encode()
        with _said(path):
            while line:
                line = line[file.write(line) :]

    return Sink(write, lambda: file.close())


def read_csv(path: Path) -> list[Row]:
    """The rows of a metrics file without their empty cells; [] where there is none.

    Raises:
      RunError: it is not a table of numbers by iteration.
    """
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        whole = [line for line in file if line.endswith("\n")]
    try:
        rows = [
            {name: float(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(whole)
        ]
        return [{STEP: row[STEP], **row} for row in rows]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise RunError(
            f"{path} is not a table of metrics ({error}); move it away to go on"
        ) from error


def _rewrite(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    with replacing(path) as temporary:
        lines = [[_text(row.get(name)) for name in columns] for row in rows]
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([columns, *lines])


def _append(path: Path) -> io.FileIO:
    """Without a buffer: a row is written at once, and nothing is left to fail later."""
    with _said(path):
        return open(path, "ab", buffering=0)


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(unwritable(path, error)) from error


def _text(value: float | None) -> str:
    if value is None:
        return ""
    value = float(value)
    return str(int(value)) if value.is_integer() else f"{value:.9g}"


# --- TensorBoard --------------------------------------------------------------------


def tensorboard_sink(folder: Path, start: int = 0) -> Sink:
    """Scalars as TensorBoard events.

    Events are written in this thread: tensorboardX's `SummaryWriter` has another, whose
    death on a full disk would leave the run waiting for ever.

    Args:
      folder: the event files' folder; each session adds one.
      start: the iteration that the run goes on from: TensorBoard drops whatever an
        earlier session logged after it.

    Raises:
      RunError: the folder cannot be written or the disk is full, here or in `write`.
    """
    # Their messages are made when they are imported: a type checker sees none.
    from tensorboardX.proto.event_pb2 import (
        Event,  # pyright: ignore[reportAttributeAccessIssue]
        SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
    )
    from tensorboardX.proto.summary_pb2 import (
        Summary,  # pyright: ignore[reportAttributeAccessIssue]
    )
    from tensorboardX.record_writer import RecordWriter

    flushed = time.monotonic()

    def add(step: int, **content: object) -> None:
        event = Event(step=step, wall_time=time.time(), **content)
        with _said(folder):
            file.write(event.SerializeToString())

    def write(step: int, metrics: Metrics) -> None:
        nonlocal flushed
        values = [
            Summary.Value(tag=name, simple_value=float(value))
            for name, value in metrics.items()
        ]
        add(step, summary=Summary(value=values))
        if time.monotonic() - flushed > FLUSH:
            with _said(folder):
                file.flush()
            flushed = time.monotonic()

    def close() -> None:
        with _said(folder):
            file.close()

    with _said(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names.
        file = RecordWriter(str(folder / f"events.out.tfevents.{time.time_ns()}"))
    add(0, file_version="brain.Event:2")
    add(start + 1, session_log=SessionLog(status=SessionLog.START))
    return Sink(write, close)


# --- the terminal -------------------------------------------------------------------


def terminal_sink(
    total: int, start: int = 0, unit: str = "generation", stream: TextIO | None = None
) -> Sink:
    """Progress for people: a live bar on a terminal, else one line for each report.

    Args:
      total: the iteration at which the run ends.
      start: the iteration that it goes on from.
      unit: what an iteration is called.
      stream: where to, standard output by default.
    """
    out = stream or sys.stdout
    left = _time_left(total)
    if out.isatty():
        return _live(total, start, unit, out, left)

    def write(step: int, metrics: Metrics) -> None:
        parts = [f"{unit} {step}/{total}", *phrases(metrics), f"left {left(step)}"]
        print("  ".join(parts), file=out, flush=True)

    return Sink(write, lambda: None)


def _live(
    total: int, start: int, unit: str, stream: TextIO, left: Callable[[int], str]
) -> Sink:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    progress = Progress(
        TextColumn(f"[bold]{unit}"),
        MofNCompleteColumn(),
        BarColumn(bar_width=None),
        TextColumn("left {task.fields[left]}"),
        expand=True,
    )
    task = progress.add_task(unit, total=total, completed=start, left="?")
    numbers = Text("compiling ...")
    live = Live(Group(progress, numbers), console=Console(file=stream))
    live.start()
    latest: dict[str, float] = {}

    def write(step: int, metrics: Metrics) -> None:
        latest.update(metrics)  # validation is rarer: its last numbers stay in sight
        unbroken = (said.replace(" ", "\u00a0") for said in phrases(latest))
        numbers.plain = "  ".join(unbroken)
        progress.update(task, completed=step, left=left(step))

    return Sink(write, live.stop)


def phrases(metrics: Metrics) -> list[str]:
    """What a person wants to read of these metrics, in words."""

    def has(*names: str) -> bool:
        return all(not math.isnan(metrics.get(name, math.nan)) for name in names)

    said = []
    if has("return_mean", "return_best"):
        said.append(f"mean {metrics['return_mean']:.1f}")
        said.append(f"best {metrics['return_best']:.1f}")
    if has("validation_mean", "validation_sd"):
        mean, sd = metrics["validation_mean"], metrics["validation_sd"]
        said.append(f"validation {mean:.1f} ± {sd:.1f}")
    if has("decisions_per_second", "frames_per_second"):
        said.append(f"{metrics['decisions_per_second']:,.0f} decisions/s")
        said.append(f"{metrics['frames_per_second']:,.0f} frames/s")
    if has("frames"):
        said.append(f"{metrics['frames']:,.0f} frames")
    return said


def _time_left(total: int) -> Callable[[int], str]:
    """Iteration -> the time that the rest will take, from reports seen so far."""
    first: list[tuple[int, float]] = []

    def left(step: int) -> str:
        now = time.monotonic()
        if not first:  # compiling happens before the first report
            first.append((step, now))
        begun, then = first[0]
        if step >= total:
            return duration(0)
        if step == begun:
            return "?"
        return duration((now - then) / (step - begun) * (total - step))

    return left


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
