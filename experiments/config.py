"""The settings of a run: what can be chosen, and the defaults.

Every setting is a field of a frozen dataclass beside the code that reads it; this
module only gathers them. `experiments.arguments` fills them from a command line.
"""

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from omegaconf import MISSING, OmegaConf

from agents import es, ppo
from agents.controllers import ControllerConfig, Core
from agents.core import Learner, Policy
from agents.policy import make_actor_critic, make_policy
from envs.registry import REGISTRY
from iap import EncoderConfig, Kernel, Kind, TransConfig


class Agent(NamedTuple):
    """An agent of the registry.

    Attributes:
      config: the dataclass of its settings.
      make: (settings, policy, worlds, levels, devices) -> Learner.
      policy: (spec, encoder, controller) -> Policy, of the kind that it improves.
      worlds: settings -> how many worlds it plays side by side.
      suits: the choices of other groups that go with it where none are typed.
      iteration: what people call one.
    """

    config: type
    make: Callable[..., Learner]
    policy: Callable[..., Policy] = make_policy
    worlds: Callable[[Any], int] = lambda config: config.episodes
    suits: Mapping[str, str] = MappingProxyType({})
    iteration: str = "generation"


AGENTS = {
    "es": Agent(es.ESConfig, es.make),
    "ppo": Agent(
        ppo.PPOConfig,
        ppo.make,
        policy=make_actor_critic,
        worlds=lambda config: config.worlds,
        suits={"encoder": "weighted", "controller": "deep_gru"},
        iteration="iteration",
    ),
}
"""Every agent by name."""

GROUPS: dict[str, dict[str, Any]] = {
    "agent": {name: entry.config for name, entry in AGENTS.items()},
    "env": {name: entry.config for name, entry in REGISTRY.items()},
    "encoder": {
        "default": EncoderConfig(),
        "attention_agent": EncoderConfig.attention_agent(),
        # Where gradients are to say where to look.
        "weighted": EncoderConfig(kernel=Kernel.taylor, content=True, weighted=True),
        # All patches in their places, zeros but for the contents of the chosen ones.
        "mask": EncoderConfig(kind=Kind.mask, content=True),
        # No choice of patches: blocks of attention, and what they say in the mean.
        "trans": TransConfig(),
    },
    "controller": {
        **{core.name: ControllerConfig(core=core) for core in Core},
        "deep": ControllerConfig(core=Core.mlp, size=64, layers=2),
        # What one picture does not show, such as speed, it has to remember.
        "deep_gru": ControllerConfig(core=Core.gru, size=64, layers=2),
    },
}
"""The choices of every group, each a dataclass or an instance of one."""

DEFAULTS = {
    "agent": "es",
    "env": "CarRacing",
    "encoder": "default",
    "controller": ControllerConfig().core.name,
}

PRESETS = {
    path.stem: path
    for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))
}
"""Named experiments: `experiment=NAME` sets what its file says."""

IDENTITY = (*GROUPS, "seed")
"""The settings that make two runs different ones."""

OF_THE_COMMAND = (
    *("mode", "run", "resume", "fresh", "debug"),
    *("devices", "distributed", "workers", "workers_on", "timeout"),
    *("root", "episodes", "track", "height"),
    "heat_map",
)
"""Settings that belong to a command and not to the run it works on."""


LEAST = {
    **{"seed": 0, "iterations": 1, "log_every": 1, "evaluate_every": 0},
    **{"film_every": 0, "save_every": 1, "keep": 1},
    **{"episodes": 0, "track": 0, "devices": 0, "workers": 0},
}
"""The lower bounds of whole numbers."""


class Mode(Enum):
    """What to do."""

    train = "train"
    evaluate = "evaluate"
    record = "record"
    play = "play"


class WorkersOn(Enum):
    """Where the processes of simulators run."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class Config:
    """A run.

    Attributes:
      agent: who learns.
      env: where.
      encoder: what it sees.
      controller: what turns that into actions.
      seed: names every random draw of the run.
      mode: train, evaluate (the best policy of a finished or stopped run, on
        `episodes` tracks), record (films of it) or play (drive yourself; without a
        screen, a film of a driver that reads the track).
      run: the run's folder, for mode=evaluate and mode=record.
      resume: the folder of a run to go on with; the same command does it as well.
      fresh: begin the run anew; the old folder is kept under another name.
      iterations: generations, or updates, to train for; more of them extend a run.
      log_every: iterations from one line of metrics to the next.
      evaluate_every: iterations from one validation to the next; 0 never validates.
      film_every: iterations from one video to the next, made when it validates; the
        first validation is always filmed. 0 films nothing.
      save_every: iterations from one checkpoint to the next.
      keep: how many of the newest checkpoints are kept, beside the best.
      episodes: tracks to evaluate, to record or to film without a screen; 0 stands for
        100, 3 and 1.
      track: Gymnasium seed of the first of them; the others follow it.
      devices: how many to use; 0 uses all (on a CPU, one for each core).
      distributed: train on the devices of several processes, which are all started with
        this command; a launcher that JAX knows (Slurm, Open MPI, Kubernetes) connects
        them, or JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
        JAX_PROCESS_ID in the environment of each. Process 0 keeps the run's folder.
      workers: processes with a simulator each, for worlds that are not JAX; 0 starts
        one for each core. Results do not depend on it.
      workers_on: local (this machine), or ray: all machines of the Ray cluster that
        RAY_ADDRESS names; without that variable, a cluster on this machine alone.
      timeout: seconds that such a simulator may take for its start or for a decision;
        after that it is replaced and its episode begun again.
      height: of films in pixels.
      heat_map: whether films show the attention that every patch receives.
      root: the folder of all runs.
      debug: show where in the program an error arose.
    """

    agent: Any = MISSING
    env: Any = MISSING
    encoder: Any = MISSING
    controller: Any = MISSING
    seed: int = 0
    mode: Mode = Mode.train
    run: str = ""
    resume: str = ""
    fresh: bool = False
    iterations: int = 1400
    log_every: int = 1
    evaluate_every: int = 25
    film_every: int = 100
    save_every: int = 25
    keep: int = 3
    episodes: int = 0
    track: int = 2000
    devices: int = 0
    distributed: bool = False
    workers: int = 0
    workers_on: WorkersOn = WorkersOn.local
    timeout: float = 60.0
    height: int = 720
    heat_map: bool = True
    root: str = "runs"
    debug: bool = False

    def __post_init__(self):
        if self.mode is Mode.train and self.run:
            raise ValueError(
                "run= names a run to evaluate or to record; to go on with its training "
                f"use resume={self.run}"
            )
        if self.mode is Mode.play and self.run:
            raise ValueError(
                "mode=play is driven by hand and takes no run; to see its policy drive "
                f"use mode=record run={self.run}"
            )
        if self.mode in (Mode.evaluate, Mode.record) and not self.run:
            raise ValueError(
                f"mode={self.mode.name} needs the run's folder, for example "
                "run=runs/CarRacing-es-s0-0123abcd"
            )
        if self.distributed and self.mode is not Mode.train:
            raise ValueError(
                f"distributed=true is for training; mode={self.mode.name} takes one "
                "process, leave it out"
            )
        if self.resume and (self.fresh or self.mode is not Mode.train):
            other = "fresh=true" if self.fresh else f"mode={self.mode.name}"
            raise ValueError(f"resume= and {other} exclude each other; leave one out")


def plain(config: Config) -> dict[str, Any]:
    """The settings as nested dicts of strings, numbers and booleans."""
    node = OmegaConf.structured(config)
    return typing.cast(
        dict[str, Any], OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    )


def identified(config: Config) -> dict[str, Any]:
    """The part of the settings that makes two runs different ones, as `plain`."""
    settings = plain(config)
    return {name: settings[name] for name in IDENTITY}
