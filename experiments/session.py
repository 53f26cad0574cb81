"""Training a run: its folder, its books, its validations, its scores at the end.

Everything here consumes what `train` yields; nothing here is needed to learn.
"""

import contextlib
import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from agents import keys as names
from agents.core import Learner, LearnerState, Params
from agents.placing import agreed, whole
from agents.policy import parameter_count
from experiments import checkpoint, curve, folder, metrics, processes, show
from experiments.arguments import run_folder, stored
from experiments.build import TEST, VALIDATION, Parts, build
from experiments.config import AGENTS, Config, identified, plain
from experiments.folder import RunError
from experiments.metrics import Row
from experiments.signals import Stopped, noting
from experiments.train import Event, train

FILMED = TEST[:3]  # at the end of training


class Totals(NamedTuple):
    """What a run has come to, all its sessions together.

    Attributes:
      decisions: taken in training.
      frames: game frames played in training.
      seconds: of work.
    """

    decisions: int = 0
    frames: int = 0
    seconds: float = 0.0


def train_run(config: Config) -> None:
    """Trains a run to `config.iterations`, then scores and films it; or goes on.

    Raises:
      RunError, ValueError: what is wrong, in one sentence; nothing saved is lost.
      Stopped: a signal stopped the work, and all of it is saved.
    """
    path = folder_of(config)
    with processes.kept():
        processes.check_same(config)
        begun = config.fresh or _scored(path) < config.iterations
        if agreed(np.asarray(begun)):
            (_train if processes.first() else _follow)(config, path)
            processes.highest(0)  # the first one may still have been scoring
    if processes.first():
        _report(path)


def _train(config: Config, path: Path) -> None:
    """All the work of a process that keeps the run's folder."""
    parts = build(config)
    learner = parts.learner()
    if config.fresh:
        _move_aside(path)
    with folder.lock(path):
        folder.write_config(path, plain(config))
        if changes := folder.record_session(path, config.seed):
            _say(folder.describe(changes))
        with noting() as stopped:
            iteration, totals, by = _work(config, path, parts, learner, stopped)
        if by:
            go_on = shlex.quote(f"resume={path}")
            go_on += " distributed=true" if processes.several() else ""
            _say(
                f"Stopped after {iteration} of {config.iterations} iterations; all "
                f"is saved. To go on: python run.py {go_on}"
            )
            raise Stopped(by)
        _finish(config, path, parts, iteration, totals)


def _follow(config: Config, path: Path) -> None:
    """The work of any other: the same updates, without books, validation or films.

    What is collective in `_work` is called here in the same order.
    """
    parts = build(config)
    learner = parts.learner()
    world = learner.place(parts.world())
    fresh = learner.init(names.stream(parts.key, "init"))
    iteration, state = agreed((np.int32(0), fresh))
    train_key = names.stream(parts.key, "train")
    events = train(learner, state, world, train_key, int(iteration), config.iterations)
    by = 0
    with noting() as stopped:
        for event, row, _ in _tallied(events, Totals(), 0.0):
            if row.get("failed"):
                raise RunError(_failure(path, row))
            by = processes.highest(stopped())
            if _saves(config, event.iteration, row, by):
                whole(event.state)
            if by:
                break
        by = by or processes.highest(stopped())
    if by:
        raise Stopped(by)


# --- the work -----------------------------------------------------------------------


def _work(
    config: Config,
    path: Path,
    parts: Parts,
    learner: Learner,
    stopped: Callable[[], int],
) -> tuple[int, Totals, int]:
    """Learns and keeps the books.

    Returns:
      How far it came and is saved, and the number of the signal that stopped it, or 0.
    """
    began = time.monotonic()
    world = learner.place(parts.world())
    iteration, state, totals, best = _restored(path, learner, parts)
    _, state = agreed((np.int32(iteration), state))
    began -= totals.seconds
    train_key = names.stream(parts.key, "train")
    stop = config.iterations
    events = train(learner, state, world, train_key, iteration, stop)
    saved = iteration, totals
    unit, by = AGENTS[config.agent.name].iteration, 0
    with _sinks(path, iteration, stop, unit) as write:
        for event, row, total in _tallied(events, totals, began):
            totals = total
            iteration = event.iteration
            if row.get("failed"):
                write(iteration, row)
                raise RunError(_failure(path, row))
            if _due(iteration, config.evaluate_every):
                params = learner.acting(event.state)
                score = parts.evaluate(params, VALIDATION)
                row |= {"validation_mean": score.mean, "validation_sd": score.sd}
                best = _keep_best(path, iteration, params, score.mean, best)
                write(iteration, row)
                _draw(path)
                if _films(config, iteration) and not stopped():
                    name, level = f"iteration-{iteration:06d}", VALIDATION[0]
                    _film(path, parts, params, level, name, f"iteration {iteration}")
            elif _due(iteration, config.log_every):
                write(iteration, row)
            by = processes.highest(stopped())
            if _saves(config, iteration, row, by):
                meta = {**totals._asdict(), "best": best}
                where, state = path / folder.CHECKPOINTS, whole(event.state)
                checkpoint.save(where, iteration, state, meta, config.keep)
                saved = iteration, totals
                if best is None:  # until the first validation the newest is the best
                    _write_best(path, iteration, learner.acting(event.state), None)
            if by:
                break
    # A signal may have come after the last iteration, or where none was left to do.
    return *saved, by or processes.highest(stopped())


def _saves(config: Config, iteration: int, row: Row, by: int) -> bool:
    """Whether this iteration is saved: at every stop too, but for unsound states."""
    over = by or iteration == config.iterations
    sound = not row.get("skipped_in_a_row")
    return bool(sound and (over or _due(iteration, config.save_every)))


def _restored(
    path: Path, learner: Learner, parts: Parts
) -> tuple[int, LearnerState, Totals, float | None]:
    """Iteration, state, totals and best validation mean of the newest checkpoint."""
    state = learner.init(names.stream(parts.key, "init"))
    found = checkpoint.newest(path / folder.CHECKPOINTS, state, _say)
    if found is None:
        count = parameter_count(learner.acting(state))
        devices = f"{len(parts.devices)} x {parts.devices[0].device_kind}"
        if processes.several():
            devices += f" in each of {jax.process_count()} processes"
        _say(f"A new run in {path}: {count:,} parameters, on {devices}.")
        return 0, state, Totals(), None
    _say(f"Going on from iteration {found.iteration} in {path}.")
    meta = dict(found.meta)
    best = meta.pop("best")
    try:
        show.best_policy(path, parts)
    except RunError as error:
        _say(f"{error}; the policy of iteration {found.iteration} takes its place.")
        _write_best(path, found.iteration, learner.acting(found.state), None)
        best = None
    return found.iteration, found.state, Totals(**meta), best


def _tallied(
    events: Iterable[Event], totals: Totals, began: float
) -> Iterator[tuple[Event, Row, Totals]]:
    """Each event, its numbers on the host, and what the run has come to with it.

    The rates are those of the iteration's own work, without validation and films.
    """
    mark = time.monotonic()
    for event in events:
        learned = {k: v.item() for k, v in jax.device_get(dict(event.metrics)).items()}
        now = time.monotonic()
        elapsed, mark = now - mark, now
        decisions, frames = learned["decisions"], learned["frames"]
        totals = Totals(
            totals.decisions + decisions, totals.frames + frames, now - began
        )
        rates = {
            "decisions_per_second": decisions / elapsed,
            "frames_per_second": frames / elapsed,
        }
        yield event, {**learned, **totals._asdict(), **rates}, totals
        mark = time.monotonic()


def _failure(path: Path, row: Row) -> str:
    saved = checkpoint.numbered(path / folder.CHECKPOINTS)
    kept = f"the last good checkpoint is {saved[0]}" if saved else "nothing is saved"
    return (
        f"the last {row['skipped_in_a_row']} gradient steps had no finite loss or "
        f"gradient and were skipped; {kept}; look for rewards or observations that are "
        "not finite, or choose a lower agent.learning_rate"
    )


def _due(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0


def _films(config: Config, iteration: int) -> bool:
    """Whether this validation is filmed: the first, and the first of every period."""
    period, since = config.film_every, iteration - config.evaluate_every
    return period > 0 and (since == 0 or iteration // period > since // period)


@contextlib.contextmanager
def _sinks(
    path: Path, start: int, stop: int, unit: str
) -> Iterator[Callable[[int, metrics.Metrics], None]]:
    with contextlib.ExitStack() as stack:
        sinks = []
        for sink in (
            lambda: metrics.csv_sink(path / folder.METRICS, start),
            lambda: metrics.tensorboard_sink(path / folder.EVENTS, start),
            lambda: metrics.terminal_sink(stop, start, unit),
        ):
            sinks.append(sink())
            stack.callback(sinks[-1].close)
        yield metrics.combined(*sinks).write


def _draw(path: Path) -> None:
    rows = metrics.read_csv(path / folder.METRICS)
    curve.draw(path / folder.CURVE, {path.name: rows}, path.name)


def _film(
    path: Path, parts: Parts, params: Params, level: int, name: str, subtitle: str
) -> None:
    file = path / folder.VIDEOS / f"{name}-track-{level}.mp4"
    try:
        made = parts.film(file, params, level, subtitle)
    except RunError as error:  # a film is not worth a run
        _say(f"The work goes on without a film: {error}.")
    else:
        _say(f"Filmed {made.path}: return {made.total:.1f}.")


# --- the best policy ----------------------------------------------------------------


def _keep_best(
    path: Path, iteration: int, params: Params, mean: float, best: float | None
) -> float | None:
    if not math.isfinite(mean) or (best is not None and mean <= best):
        return best
    _write_best(path, iteration, params, mean)
    return mean


def _write_best(path: Path, iteration: int, params: Params, mean: float | None) -> None:
    file = path / folder.CHECKPOINTS / checkpoint.BEST
    checkpoint.write(file, iteration, params, {"validation_mean": mean})


# --- the end ------------------------------------------------------------------------


def _finish(
    config: Config, path: Path, parts: Parts, iteration: int, totals: Totals
) -> None:
    """Scores the best policy on the test tracks and films it."""
    best = show.best_policy(path, parts)
    _say(f"Scoring the policy of iteration {best.iteration} {show.announced(TEST)} ...")
    score = parts.evaluate(best.state, TEST)
    if (path / folder.METRICS).exists():
        _draw(path)
    sessions = folder.read_json(path / folder.MANIFEST)["sessions"]
    summary = {
        "iterations": iteration,
        "policy_of_iteration": best.iteration,
        **best.meta,
        **show.scores(config, score),
        "training": totals._asdict(),
        "parameters": parameter_count(best.state),
        "commands": [" ".join(session["command"]) for session in sessions],
    }
    subtitle = f"best policy, of iteration {best.iteration}"
    for level in FILMED if config.film_every else ():
        _film(path, parts, best.state, level, "final", subtitle)
    # Last: it says that all is done.
    folder.write_json(path / folder.SUMMARY, summary)


def _scored(path: Path) -> int:
    """The iteration at which the run was last scored, -1 if it never was."""
    if not (path / folder.SUMMARY).exists():
        return -1
    return folder.read_json(path / folder.SUMMARY)["iterations"]


def _report(path: Path) -> None:
    summary = folder.read_json(path / folder.SUMMARY)
    training = summary["training"]
    _say(
        f"{path}: {summary['iterations']} iterations, {training['decisions']:,} "
        f"decisions ({training['frames']:,} game frames) in "
        f"{metrics.duration(training['seconds'])}."
    )
    _say(show.sentence(summary))
    made = [path / name for name in (folder.CURVE, folder.VIDEOS)]
    there = ", ".join(str(file) for file in made if file.exists())
    _say(f"See {there} and {folder.SUMMARY}." if there else f"See {folder.SUMMARY}.")


# --- the folder ---------------------------------------------------------------------


def folder_of(config: Config) -> Path:
    """Where a run is, or will be.

    Raises:
      RunError: `resume` names no run, or the run of other settings.
    """
    if not config.resume:
        settings = identified(config)
        env, agent = config.env.name, config.agent.name
        name = folder.run_name(env, agent, config.seed, settings)
        return Path(config.root) / name
    path = run_folder(config.resume, config.root)
    mine = _flat(identified(config))
    its = _flat(identified(stored(path)))
    for key in its | mine:
        if mine.get(key) != its.get(key):
            raise RunError(
                f"{key} is {its.get(key)} in {path} and cannot become {mine.get(key)} "
                "there; leave it out, or start another run without resume="
            )
    return path


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _move_aside(path: Path) -> None:
    """Keeps an old run under another name; refuses while a process works on it."""
    if not (path / folder.CONFIG).exists():
        return
    with folder.lock(path):
        number = 1
        while (aside := path.with_name(f"{path.name}.old{number}")).exists():
            number += 1
        path.rename(aside)
    _say(f"The run that was there is now {aside}.")


def _say(sentence: str) -> None:
    print(sentence, flush=True)
