"""`--help`: every setting with its default and one line on what it is."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.arguments import composed
from experiments.config import GROUPS, PRESETS

WIDTH = 88
MARGIN = 28

INTRODUCTION = """\
Learns to act from pixels through implicit attention.

  python run.py agent=es env=CarRacing                  train, or go on training
  python run.py experiment=smoke                        the whole pipeline in a minute
  python run.py agent.population=128 encoder.kernel=positive seed=3
  python run.py -m seed=0,1,2                           several runs, one after another
  python run.py mode=evaluate run=runs/NAME episodes=100
  python run.py mode=evaluate run=runs/NAME env.variant=all      the zero-shot table
  python run.py mode=record run=runs/NAME episodes=3 track=17
  python run.py resume=runs/NAME iterations=2000        the same run, longer

Settings are key=value. GROUP=CHOICE chooses a set of them, GROUP.key=value changes one;
--help after a choice lists the settings that come with it.
"""


def usage(arguments: Sequence[str]) -> str:
    """The help text, with the groups and values that `arguments` choose."""
    config = composed(arguments)
    choices = {**GROUPS, "experiment": PRESETS}
    parts = [
        INTRODUCTION,
        "Groups\n"
        + "\n".join(_entry(name, ", ".join(names)) for name, names in choices.items()),
        "The run\n" + _section(config, "", skip=tuple(GROUPS)),
    ]
    for group in GROUPS:
        section = config[group]
        summary = _summary(OmegaConf.get_type(section) or dict)
        parts.append(f"{group}: {summary}\n" + _section(section, f"{group}."))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _section(config: DictConfig, prefix: str, skip: Sequence[str] = ("name",)) -> str:
    explained = descriptions(OmegaConf.get_type(config) or dict)
    return "\n".join(
        _entry(f"{prefix}{name}={_text(value)}", explained[str(name)] + _options(value))
        for name, value in config.items_ex(resolve=False)
        if name not in skip
    )


def descriptions(kind: type) -> dict[str, str]:
    """A dataclass's fields with what its docstring's "Attributes:" says of each.

    What the docstrings of its base classes say of theirs is there too.
    """
    explained = {}
    for owner in reversed(kind.__mro__):
        doc = inspect.cleandoc(owner.__doc__ or "")
        _, _, attributes = doc.partition("Attributes:\n")
        found = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", attributes, re.MULTILINE)
        explained |= {name: " ".join(text.split()) for name, text in found}
    return explained


def _summary(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0]


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _options(value: Any) -> str:
    if not isinstance(value, Enum):
        return ""
    return f" [{' | '.join(option.name for option in type(value))}]"


def _entry(name: str, text: str) -> str:
    return "\n".join(_lines(name, text))


def _lines(name: str, text: str) -> Iterator[str]:
    wrapped = textwrap.wrap(text, WIDTH - MARGIN)
    if len(name) + 4 > MARGIN:
        yield f"  {name}"
        name = ""
    for number, line in enumerate(wrapped):
        yield f"  {name if number == 0 else '':<{MARGIN - 2}}{line}"
