"""The command line -> Config, with Hydra's structured configs.

Hydra composes the chosen groups; keys are then set one by one, so that each refusal is
one sentence about one setting. Hydra's own folders, log file and working directory
never come into play.
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import folder
from experiments.config import (
    AGENTS,
    DEFAULTS,
    GROUPS,
    LEAST,
    OF_THE_COMMAND,
    PRESETS,
    Config,
)
from experiments.folder import RunError
from iap import EncoderConfig, TransConfig

NAMED = 3
"""Runs that are named where a folder is none."""


def settings(config: Any) -> Iterator[str]:
    """The dotted names of all settings of a composed config, in their order."""
    for name, value in config.items_ex(resolve=False):
        if isinstance(value, DictConfig) and dataclasses.is_dataclass(
            OmegaConf.get_type(value)
        ):
            yield from (f"{name}.{rest}" for rest in settings(value))
        elif name != "name":  # chosen with the group
            yield str(name)


def compose(arguments: Sequence[str]) -> Config:
    """The settings that a command line asks for.

    Args:
      arguments: `key=value` each, in Hydra's grammar; later ones win. With `run=` or
        `resume=` they change that run's stored settings, else the defaults.

    Raises:
      RunError: an argument cannot be read, or names no setting, choice or run.
      ValueError: settings that exclude each other or are out of bounds.
    """
    return finished(composed(arguments))


def composed(arguments: Sequence[str]) -> DictConfig:
    """As `compose`, before anything is checked that takes more than one setting."""
    overrides = [_parse(argument) for argument in arguments]
    typed = {override.key_or_group: override.value() for override in overrides}
    run = typed.get("resume") or typed.get("run")
    if not run:
        return _composed(typed, {})
    if "experiment" in typed:
        raise RunError(
            f"experiment={typed['experiment']} cannot change an existing run; leave it "
            "out, or start another run without run= and resume="
        )
    root = str(typed.get("root", Config.root))
    return _composed(typed, _read(run_folder(str(run), root)))


def stored(path: Path) -> Config:
    """The settings of the run in a folder; raises as `compose`."""
    return finished(_composed({}, _read(path)))


def _composed(typed: dict[str, Any], stored: Mapping[str, Any]) -> DictConfig:
    choices = {
        name: _choice(name, typed.pop(name)) for name in _groups() if name in typed
    }
    if not stored:
        choices = {**_suiting(choices), **choices}
    inherited = {name: value for name, value in stored.items() if name not in choices}
    named = {
        name: value["name"]
        for name, value in inherited.items()
        if isinstance(value, Mapping) and "name" in value
    }
    config = _compose({**named, **choices})
    if inherited:
        _inherit(config, inherited)
    if "env" in choices and "env" in stored and choices["env"] != stored["env"]["name"]:
        _lend(config.env, stored["env"])
    known = list(settings(config))
    for key, value in typed.items():
        if key not in known and not _is_free(config, key.rpartition(".")[0]):
            raise RunError(_unknown(key, known))
        _set(config, key, value)
    return config


def _suiting(choices: Mapping[str, str]) -> dict[str, str]:
    """What goes with the agent, where neither typed nor chosen by a preset."""
    preset: dict[str, str] = {}
    if "experiment" in choices:
        file = typing.cast(DictConfig, OmegaConf.load(PRESETS[choices["experiment"]]))
        for entry in file.get("defaults", []):
            preset |= {
                str(key).rpartition("/")[2]: value for key, value in entry.items()
            }
    agent = {**DEFAULTS, **preset, **choices}["agent"]
    suits = AGENTS[agent].suits
    return {group: name for group, name in suits.items() if group not in preset}


def finished(config: DictConfig) -> Config:
    """The dataclass of a composed config; raises as `compose`."""
    try:
        for name, least in LEAST.items():
            if not least <= config[name] < 2**31:
                raise ValueError(
                    f"{name} is {config[name]}; it must be at least {least} and below "
                    "2**31"
                )
        return typing.cast(Config, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise RunError(_first_line(error)) from error


def sweep(arguments: Sequence[str]) -> list[list[str]]:
    """The command lines that a sweep stands for: every combination of its values.

    Raises:
      RunError: an argument cannot be read.
    """
    overrides = [_parse(argument, sweeping=True) for argument in arguments]
    return [list(job) for job in BasicSweeper.split_arguments(overrides, None)[0]]


# --- reading arguments --------------------------------------------------------------


def _parse(argument: str, sweeping: bool = False) -> Override:
    try:
        override = OverridesParser.create().parse_override(argument)
    except (OverrideParseException, HydraException) as error:
        raise RunError(
            f"cannot read the argument {argument!r}; write key=value, and quote a "
            """value with special characters twice: "key='value'" """.rstrip()
        ) from error
    if override.type is not OverrideType.CHANGE or override.package is not None:
        raise RunError(
            f"cannot read the argument {argument!r}; settings are changed with "
            "key=value, without +, ~ or @"
        )
    if override.is_sweep_override() and not sweeping:
        raise RunError(
            f"{argument} asks for several runs; add -m to make them one after another"
        )
    return override


def _choice(group: str, name: Any) -> str:
    options = _options(group)
    if name not in options:
        raise RunError(
            f"{group}={name} is not a choice{_did_you_mean(str(name), options)}; it is "
            f"one of {', '.join(options)}"
        )
    return name


def _is_free(config: DictConfig, section: str) -> bool:
    """Whether a section takes any name: a plain dict, as `agent.params`."""
    try:
        node = OmegaConf.select(config, section) if section else config
    except OmegaConfBaseException:
        return False
    return isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict


def _unknown(key: str, known: Sequence[str]) -> str:
    section, _, name = key.rpartition(".")
    leaves = {other.rpartition(".")[2]: other for other in known}
    close = difflib.get_close_matches(key, known, 1) or [
        leaves[leaf] for leaf in difflib.get_close_matches(name, leaves, 1, 0.75)
    ]
    inside = [other for other in known if other.rpartition(".")[0] == section]
    if section and inside:
        where = f"{section} has"
    else:
        where = "there are"
        inside = [*_groups(), *(other for other in known if "." not in other)]
    names = ", ".join(other.rpartition(".")[2] for other in inside)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{key} is not a setting; {hint}{where} {names}; --help explains them"


def _set(config: DictConfig, key: str, value: Any) -> None:
    try:
        OmegaConf.update(config, key, value)
    except OmegaConfBaseException as error:
        kind = _kind(config, key)
        if isinstance(kind, type) and issubclass(kind, Enum):
            names = [option.name for option in kind]
            wanted = f"one of {', '.join(names)}"
            hint = _did_you_mean(str(value), names)
        else:
            wanted = {
                **{int: "a whole number", float: "a number"},
                **{bool: "true or false", str: "a text"},
            }.get(kind, "names with numbers, {name: 0.1}")
            hint = ""
        raise RunError(f"{key} is {value!r}{hint}; it must be {wanted}") from error


def _kind(config: DictConfig, key: str) -> Any:
    """The type that a setting's dataclass declares."""
    section, _, name = key.rpartition(".")
    owner = OmegaConf.get_type(OmegaConf.select(config, section) if section else config)
    return typing.get_type_hints(owner).get(name) if owner is not dict else float


def _did_you_mean(name: str, options: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, options, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


# --- a run's own settings -----------------------------------------------------------


def run_folder(name: str, root: str = Config.root) -> Path:
    """The folder of a run, given by its path or by its name within `root`.

    Raises:
      RunError: it is not there, or is no run.
    """
    for path in (Path(name), Path(root) / name):
        if (path / folder.CONFIG).is_file():
            return path
    names = sorted(str(path.parent) for path in Path(root).glob(f"*/{folder.CONFIG}"))
    near = difflib.get_close_matches(str(Path(root) / name), names, NAMED, cutoff=0.3)
    there = ", ".join(near or names[:NAMED])
    raise RunError(
        f"{name} is not a run's folder: it holds no {folder.CONFIG}; "
        + (f"choose a run, such as {there}" if there else f"{root}/ holds no run yet")
    )


def _read(run: Path) -> dict[str, Any]:
    """The stored settings of a run, without those of the command that made it."""
    path = run / folder.CONFIG
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(content, dict):
            raise ValueError("it holds no settings")
        for group in ("agent", "env"):
            _choice(group, content[group]["name"])
    # YAML's own errors are not all of one class; whatever they are, the file is bad.
    except Exception as error:
        raise RunError(
            f"cannot read {path}: {_first_line(error)}; restore the file, or name "
            "another run"
        ) from error
    return {str(k): v for k, v in content.items() if k not in OF_THE_COMMAND}


def _inherit(config: DictConfig, stored: Mapping[str, Any]) -> None:
    try:
        config.merge_with(stored)
    except OmegaConfBaseException as error:
        raise RunError(
            f"the run's {folder.CONFIG} does not fit this version of the program: "
            f"{_first_line(error)}"
        ) from error


def _lend(env: DictConfig, trained: Mapping[str, Any]) -> None:
    """Settings that the world of a run's training and another one both have.

    So an agent sees pictures of the size, and holds actions as long, as it learned to.
    """
    for name in set(env) & set(trained) - {"name"}:
        value = trained[name]
        if isinstance(value, bool) or value != 0:  # 0 stands for a world's own
            OmegaConf.update(env, str(name), value)


# --- Hydra --------------------------------------------------------------------------


def _groups() -> list[str]:
    return [*GROUPS, "experiment"]


def _options(group: str) -> list[str]:
    return list(PRESETS if group == "experiment" else GROUPS[group])


def _compose(choices: Mapping[str, str]) -> DictConfig:
    _register()
    with hydra.initialize(version_base="1.3", config_path=None):
        config = hydra.compose(
            "main", overrides=[f"{group}={name}" for group, name in choices.items()]
        )
    OmegaConf.set_struct(config, None)
    for section in config.values():
        if isinstance(section, DictConfig):
            _open(section)
    return config


def _register() -> None:
    store = ConfigStore.instance()
    store.store(name="settings", node=_node(Config))
    for group, options in GROUPS.items():
        for name, option in options.items():
            store.store(group=group, name=name, node=_node(option))
    for name, path in PRESETS.items():
        preset = OmegaConf.load(path)
        store.store(group="experiment", name=name, node=preset, package="_global_")
    groups = [{group: name} for group, name in DEFAULTS.items()]
    defaults = ["settings", *groups, {"experiment": None}, "_self_"]
    store.store(name="main", node={"defaults": defaults})


def _node(option: Any) -> DictConfig:
    node = OmegaConf.structured(option)
    # A frozen dataclass makes a read-only node, which Hydra could not merge into.
    OmegaConf.set_readonly(node, None)
    if OmegaConf.get_type(node) in (EncoderConfig, TransConfig):
        # The random features follow the run's seed unless they are given their own.
        node.seed = "${seed}"
    return node


def _open(section: DictConfig) -> None:
    """Lets a plain dict among the settings take new names (`agent.params.c_std`)."""
    for value in section.values():
        if isinstance(value, DictConfig) and OmegaConf.get_type(value) is dict:
            OmegaConf.set_struct(value, False)
