"""What a run's best policy can do, shown: scores on given tracks, and films of it."""

import csv
import dataclasses
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import jax

from envs import registry
from envs.variants import ALL, ORIGINAL
from experiments import checkpoint, folder
from experiments.arguments import run_folder, stored
from experiments.build import TEST, Parts, build
from experiments.config import Config
from experiments.evaluate import Evaluation
from experiments.folder import RunError

NAMED = ("name", "id", "domain", "task", "variant", "tracks")
"""Settings of a world that its files' names have anyway, or that change no score."""
LONGEST = 150
"""Characters of a file's name; of what is longer a hash stands for the rest."""


def evaluate_run(config: Config) -> None:
    """Plays a run's best policy on `config.episodes` tracks from `config.track` on.

    Raises:
      RunError, ValueError: what is wrong, in one sentence.
    """
    if registry.variant(config.env) == ALL:
        return _evaluate_variants(config)
    path, parts, best = _opened(config)
    levels = _levels(config)
    print(
        f"Best policy of {path}, of iteration {best.iteration}, in "
        f"{registry.title(config.env)}, {announced(levels)} ...",
        flush=True,
    )
    result = {
        "policy_of_iteration": best.iteration,
        **scores(config, parts.evaluate(best.state, levels)),
        "command": folder.session()["command"],
    }
    name = _name(config, path, f"{config.track}-{len(levels)}")
    file = path / f"evaluation-{name}.json"
    folder.write_json(file, result)
    print(sentence(result))
    print(f"Every track's return is in {file}.")


def _evaluate_variants(config: Config) -> None:
    """The zero-shot table: one policy in every variant, on the same tracks."""
    path = run_folder(config.run, config.root)
    names = registry.REGISTRY[config.env.name].variants
    trained = registry.variant(stored(path).env)
    levels = _levels(config)
    results, best = {}, None
    for number, name in enumerate(names, 1):
        env = registry.as_variant(config.env, name)
        worn = dataclasses.replace(config, env=env)
        began = time.monotonic()
        parts = build(worn)
        if best is None:
            best = best_policy(path, parts)
            print(
                f"Best policy of {path}, of iteration {best.iteration}, trained in "
                f"{trained}; every variant {announced(levels)} ...",
                flush=True,
            )
        results[name] = scores(worn, parts.evaluate(best.state, levels))
        taken = time.monotonic() - began
        print(f"{number} of {len(names)}, {taken:.0f} s, {name}: ", end="")
        print(sentence(results[name]), flush=True)
    assert best is not None, "a world that takes `ALL` has variants"
    name = _name(config, path, f"{config.track}-{len(levels)}")
    file = path / f"variants-{name}.json"
    folder.write_json(
        file,
        {
            "policy_of_iteration": best.iteration,
            "trained_in": trained,
            "variants": results,
            "command": folder.session()["command"],
        },
    )
    _write_table(file.with_suffix(".csv"), results)
    print(f"\n{table(results)}\n")
    print(
        f"Mean ± sd of the return over {len(levels)} tracks, action repeat "
        f"{config.env.action_repeat}. Every track's return is in {file}, the table in "
        f"{file.with_suffix('.csv').name}."
    )


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Scores of one policy by variant, as a table of one row in Markdown."""
    cells = [f"{score['mean']:.0f} ± {score['sd']:.0f}" for score in results.values()]
    rows = [list(results), ["---"] * len(cells), cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _write_table(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    columns = ("mean", "sd", "episodes", "decisions", "frames")
    with (
        folder.replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        write = csv.writer(file).writerow
        write(("variant", *columns))
        for name, score in results.items():
            write((name, *(score[column] for column in columns)))


def record_run(config: Config) -> None:
    """Films a run's best policy on `config.episodes` tracks from `config.track` on.

    Raises:
      RunError, ValueError: what is wrong, in one sentence.
    """
    path, parts, best = _opened(config)
    for level in range(config.track, config.track + (config.episodes or 3)):
        file = path / folder.VIDEOS / f"{_name(config, path, f'track-{level}')}.mp4"
        subtitle = f"best policy, of iteration {best.iteration}"
        made = parts.film(file, best.state, level, subtitle)
        print(f"{made.path}: return {made.total:.1f}, {made.decisions} decisions.")


def _levels(config: Config) -> range:
    return range(config.track, config.track + (config.episodes or len(TEST)))


def _name(config: Config, path: Path, rest: str) -> str:
    """Of a file, with the world, the variant and settings that are not the run's."""
    variant, world = registry.variant(config.env), registry.title(config.env)
    trained = stored(path).env
    parts = [rest] if variant in (ORIGINAL, ALL) else [variant, rest]
    if world != registry.title(trained):
        parts.insert(0, world)
    usual = type(config.env)()  # for what the trained world does not know
    for field in dataclasses.fields(config.env):
        name, value = field.name, getattr(config.env, field.name)
        if name not in NAMED and value != getattr(trained, name, getattr(usual, name)):
            parts.append(f"{name}={value.value if isinstance(value, Enum) else value}")
    named = re.sub(r"[^\w.=+-]+", "-", "-".join(parts))
    if len(named) <= LONGEST:
        return named
    return f"{named[:LONGEST]}-{hashlib.sha256(named.encode()).hexdigest()[:8]}"


def _opened(config: Config) -> tuple[Path, Parts, checkpoint.Checkpoint]:
    path = run_folder(config.run, config.root)
    parts = build(config)
    return path, parts, best_policy(path, parts)


def best_policy(path: Path, parts: Parts) -> checkpoint.Checkpoint:
    """The policy of a run that did best in validation; its state are the parameters.

    Raises:
      RunError: nothing has been saved yet, or what was does not fit the settings.
    """
    file = path / folder.CHECKPOINTS / checkpoint.BEST
    if not file.exists():
        raise RunError(f"{path} has no policy yet; train it to its next checkpoint")
    return checkpoint.read(file, jax.eval_shape(parts.policy.init, jax.random.key(0)))


def scores(config: Config, evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation for a JSON file, with what one must know to compare it."""
    returns = [float(value) for value in evaluation.returns]
    return {
        "env": registry.title(config.env),
        "variant": registry.variant(config.env),
        "manner": registry.manner(config.env),
        "action_repeat": config.env.action_repeat,
        "mean": evaluation.mean,
        "sd": evaluation.sd,
        "episodes": len(returns),
        "returns": dict(zip(map(str, evaluation.levels), returns, strict=True)),
        "decisions": evaluation.decisions,
        "frames": evaluation.frames,
    }


def announced(levels: Sequence[int]) -> str:
    """The tracks that are played, for a person."""
    if len(levels) == 1:
        return f"on track {levels[0]}"
    return f"on {len(levels)} tracks ({levels[0]} to {levels[-1]})"


def sentence(scores: Mapping[str, Any]) -> str:
    """An evaluation's `scores` for a person."""
    levels = [int(level) for level in scores["returns"]]
    variant = scores.get("variant", ORIGINAL)  # older summaries know no other
    variant = f"{variant} {scores.get('manner', '')}".strip()
    return (
        f"Return {scores['mean']:.1f} ± {scores['sd']:.1f} {announced(levels)}, "
        + (f"variant {variant}, " if variant != ORIGINAL else "")
        + f"action repeat {scores['action_repeat']}, {scores['decisions']:,} decisions "
        f"and {scores['frames']:,} game frames."
    )
