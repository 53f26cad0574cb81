"""What a run's best policy can do, shown: scores on given tracks, and films of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from experiments import checkpoint, folder
from experiments.arguments import run_folder
from experiments.build import TEST, Parts, build
from experiments.config import Config
from experiments.evaluate import Evaluation
from experiments.folder import RunError


def evaluate_run(config: Config) -> None:
    """Plays a run's best policy on `config.episodes` tracks from `config.track` on.

    Raises:
      RunError, ValueError: what is wrong, in one sentence.
    """
    path, parts, best = _opened(config)
    levels = range(config.track, config.track + (config.episodes or len(TEST)))
    result = {
        "policy_of_iteration": best.iteration,
        **scores(config, parts.evaluate(best.state, levels)),
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
    path, parts, best = _opened(config)
    for level in range(config.track, config.track + (config.episodes or 3)):
        file = path / folder.VIDEOS / f"track-{level}.mp4"
        subtitle = f"best policy, of iteration {best.iteration}"
        made = parts.film(file, best.state, level, subtitle)
        print(f"{made.path}: return {made.total:.1f}, {made.decisions} decisions.")


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
        raise RunError(
            f"{path} has no policy yet; train it at least to its first checkpoint"
        )
    return checkpoint.read(file, jax.eval_shape(parts.policy.init, jax.random.key(0)))


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
