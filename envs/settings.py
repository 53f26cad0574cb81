"""What the settings of several worlds share."""

from enum import Enum
from typing import Any


class Color(Enum):
    """What a world's picture is made of."""

    rgb = "rgb"
    gray = "gray"


def at_least(config: Any, **least: int) -> None:
    """Raises ValueError for a setting that is below its bound."""
    for name, bound in least.items():
        value = getattr(config, name)
        if value < bound:
            raise ValueError(f"env.{name} is {value}; it must be at least {bound}")


def within(config: Any, *, time_limit: int) -> None:
    """Raises ValueError for a time limit beyond the game's own."""
    if config.time_limit > time_limit:
        raise ValueError(
            f"env.time_limit is {config.time_limit}; it must be at most {time_limit}, "
            "after which the game itself ends, or 0 for that"
        )
