"""What a policy can do, shown: scores on given tracks, and films of them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax

from agents import keys as names
from agents.core import Params
from envs import registry
from experiments import checkpoint, folder
from experiments.arguments import run_folder
from experiments.build import TEST, Parts, build
from experiments.config import Config
from experiments.evaluate import Evaluation, Evaluator, evaluator, level_key
from experiments.folder import RunError
from experiments.overlay import Style
from experiments.record import Film, Recorder, recorder

Filmer: TypeAlias = Callable[[Path, Params, int, str], Film]
"""(path, params, level, subtitle) -> Film."""


def evaluate_run(config: Config) -> None:
    """Plays a run's best policy on `config.episodes` tracks from `config.track` on.

    Raises:
      RunError, ValueError: what is wrong, in one sentence.
    """
    path, parts, best, key = _opened(config)
    levels = range(config.track, config.track + (config.episodes or len(TEST)))
    result = {
        "policy_of_iteration": best.iteration,
        **scores(config, evaluation(parts, levels, key)(best.state)),
        "command": folder.session()["command"],
    }
    file = path / f"evaluation-{config.track}-{len(levels)}.json"
    folder.write_json(file, result)
    print(f"Best policy of {path}, of iteration {best.iteration}.")
    print(sentence(result))
    print(f"Every track's return is in {file}.")


def record_run(config: Config) -> None:
    """Films a run's best policy on `config.episodes` tracks from `config.track` on.

    Raises:
      RunError, ValueError: what is wrong, in one sentence.
    """
    path, parts, best, key = _opened(config)
    film = filmer(config, parts, key)
    for level in range(config.track, config.track + (config.episodes or 3)):
        file = path / folder.VIDEOS / f"track-{level}.mp4"
        made = film(file, best.state, level, f"policy of iteration {best.iteration}")
        print(f"{made.path}: return {made.total:.1f}, {made.decisions} decisions.")


def _opened(config: Config) -> tuple[Path, Parts, checkpoint.Checkpoint, jax.Array]:
    path = run_folder(config.run, config.root)
    parts = build(config)
    return path, parts, best_policy(path, parts), jax.random.key(config.seed)


def best_policy(path: Path, parts: Parts) -> checkpoint.Checkpoint:
    """The policy of a run that did best in validation; its state are the parameters.

    Raises:
      RunError: nothing has been saved yet, or what was does not fit the settings.
    """
    file = path / folder.CHECKPOINTS / checkpoint.BEST
    if not file.exists():
        raise RunError(
            f"{path} has no policy yet; train it at least to its first checkpoint"
        )
    return checkpoint.read(file, jax.eval_shape(parts.policy.init, jax.random.key(0)))


def evaluation(parts: Parts, levels: Sequence[int], key: jax.Array) -> Evaluator:
    """The evaluation of a run's policies on these levels; `key` is the run's root."""
    return evaluator(
        parts.policy,
        lambda levels: parts.env(parts.game(levels)),
        levels,
        names.stream(key, "evaluate"),
        parts.devices,
    )


def scores(config: Config, evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation for a JSON file, with what one must know to compare it."""
    returns = [float(value) for value in evaluation.returns]
    return {
        "env": config.env.name,
        "action_repeat": config.env.action_repeat,
        "mean": evaluation.mean,
        "sd": evaluation.sd,
        "episodes": len(returns),
        "returns": dict(zip(map(str, evaluation.levels), returns, strict=True)),
        "decisions": evaluation.decisions,
        "frames": evaluation.frames,
    }


def sentence(scores: Mapping[str, Any]) -> str:
    """The same for a person."""
    tracks = list(scores["returns"])
    return (
        f"Return {scores['mean']:.1f} ± {scores['sd']:.1f} over {scores['episodes']} "
        f"tracks ({tracks[0]} to {tracks[-1]}), action repeat "
        f"{scores['action_repeat']}, {scores['decisions']:,} decisions and "
        f"{scores['frames']:,} game frames."
    )


def filmer(config: Config, parts: Parts, key: jax.Array) -> Filmer:
    """Makes films of a run's policies; compiles at the first, once.

    The episode filmed on a level is the one that `evaluation` plays there.
    """
    evaluate_key = names.stream(key, "evaluate")

    @functools.cache
    def record() -> Recorder:
        game = parts.game([0])  # for its functions: every film brings its own level
        env = parts.env(game)
        H, W, _ = env.spec.observation.shape
        style = Style(
            image=(H, W),
            window=config.encoder.window,
            stride=config.encoder.stride,
            action=env.spec.action,
            labels=registry.REGISTRY[config.env.name].labels(config.env),
            heat_map=config.heat_map,
        )
        return recorder(game, env, parts.policy, style)

    def film(path: Path, params: Params, level: int, subtitle: str) -> Film:
        return record()(
            path,
            params,
            parts.game([level]).world,
            0,
            level_key(evaluate_key, level),
            title=f"{config.env.name}, track {level}",
            subtitle=subtitle,
            height=config.height,
        )

    return film
