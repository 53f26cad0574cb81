"""Worlds by name: the settings of each, and how it is made from them.

A new world is one folder and one line of `REGISTRY`. Nothing of a world but its
settings is imported before it is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from envs import transforms
from envs.adapters import dm_settings, gymnasium_settings, take_cover_settings
from envs.adapters.host_simulator import Maker
from envs.car_racing import settings as car_racing
from envs.core import Environment, HostVectorEnv
from envs.odd_one_out import settings as odd_one_out
from envs.variants import ALL, JOIN, ORIGINAL, worn


class Entry(NamedTuple):
    """A world of the registry.

    Attributes:
      config: the frozen dataclass of its settings; all have `name`, `tracks`,
        `time_limit`, `action_repeat` and `frame_stack`, and may have `variant`.
      make: (settings, levels) -> Environment, without those transforms; level i of its
        episodes is `levels[i]`.
      labels: settings -> a name for each component of an action, or each choice.
      variants: the variants that `ALL` stands for, `ORIGINAL` first; () for a world
        without the setting `variant`.
      simulator: for worlds on the host, settings -> what makes one of its simulators
        (`envs.adapters.host_simulator.Maker`); `make` is then never called.
    """

    config: type
    make: Callable[[Any, Sequence[int]], Environment]
    labels: Callable[[Any], tuple[str, ...]]
    variants: tuple[str, ...] = ()
    simulator: Callable[[Any], Maker] | None = None


def _of_the_host(config: Any, levels: Sequence[int]) -> Environment:
    raise ValueError(f"env={config.name} is simulated on the host, and is no JAX world")


def _nameless(config: Any) -> tuple[str, ...]:
    """Only the simulator knows how many components an action has."""
    return ()


REGISTRY = {
    "CarRacing": Entry(
        car_racing.CarRacingConfig,
        car_racing.world,
        car_racing.labels,
        car_racing.VARIANTS,
    ),
    "OddOneOut": Entry(
        odd_one_out.OddOneOutConfig, odd_one_out.world, odd_one_out.labels
    ),
    "GymnasiumCarRacing": Entry(
        car_racing.GymnasiumCarRacingConfig,
        _of_the_host,
        car_racing.labels,
        simulator=car_racing.maker,
    ),
    "gymnasium": Entry(
        gymnasium_settings.GymnasiumConfig,
        _of_the_host,
        _nameless,
        simulator=gymnasium_settings.maker,
    ),
    "dm_control": Entry(
        dm_settings.DmControlConfig,
        _of_the_host,
        _nameless,
        # The suite's own benchmark is all of them together.
        (*dm_settings.VARIANTS, JOIN.join(dm_settings.VARIANTS[1:])),
        simulator=dm_settings.maker,
    ),
    "TakeCover": Entry(
        take_cover_settings.TakeCoverConfig,
        _of_the_host,
        take_cover_settings.labels,
        simulator=take_cover_settings.maker,
    ),
}
"""Every world by name."""


def variant(config: Any) -> str:
    """The variant that a world's settings name; `ORIGINAL` where it has only that."""
    return getattr(config, "variant", ORIGINAL)


def manner(config: Any) -> str:
    """How a world wears its variant, "" where there is one way only."""
    return "" if variant(config) == ORIGINAL else getattr(config, "manner", "")


def as_variant(config: Any, name: str) -> Any:
    """The same settings for another of the world's variants."""
    changes = {"variant": name}
    for setting, shows in (("video", "video"), ("frames", "background")):
        if getattr(config, setting, "") and shows not in worn(name):
            changes[setting] = ""
    return replace(config, **changes)


def _check_one_variant(config: Any) -> None:
    if variant(config) == ALL:
        raise ValueError(
            f"env.variant={ALL} evaluates every variant, with mode=evaluate; here it "
            f"must be one of {', '.join(REGISTRY[config.name].variants)}, or several "
            f"joined with {JOIN}"
        )


def make(config: Any, levels: Sequence[int]) -> Environment:
    """The game itself, frame by frame, within its time limit.

    Args:
      config: settings, an instance of its entry's `config`.
      levels: the levels that `episode` 0, 1, ... stand for (Gymnasium seeds).

    Raises:
      KeyError: no world has this name.
      ValueError: settings that the world cannot have, or `ALL` variants at once.
    """
    _check_one_variant(config)
    game = REGISTRY[config.name].make(config, levels)
    if config.time_limit:
        return transforms.time_limit(game, config.time_limit)
    return game


def transformed(config: Any, game: Environment) -> Environment:
    """The game as the agent plays it: action repeat, then frame stack."""
    repeated = transforms.action_repeat(game, config.action_repeat)
    return transforms.frame_stack(repeated, config.frame_stack)


def title(config: Any) -> str:
    """What to call a world."""
    return getattr(config, "id", "") or config.name


def on_host(config: Any) -> bool:
    """Whether a world is simulated on the host, and not by JAX."""
    return REGISTRY[config.name].simulator is not None


def host(
    config: Any, workers: int, timeout: float, on_ray: bool = False
) -> HostVectorEnv:
    """A world that is simulated on the host, as the agent plays it.

    Args:
      config: settings, an instance of its entry's `config`.
      workers: how many simulators, each in a process of its own; 0 for as many as
        there are cores.
      timeout: seconds that one may take for its start or for a decision.
      on_ray: whether they are actors of a Ray cluster, and not processes of this
        machine.

    Raises:
      ValueError, ChildProcessError: as `envs.adapters.host.host`; `ALL` variants at
        once; no Ray.
    """
    from envs.adapters.host import host
    from envs.adapters.host_backend import LOCAL
    from envs.adapters.host_simulator import Playing

    make = REGISTRY[config.name].simulator
    assert make is not None, f"{config.name} is a JAX world"
    _check_one_variant(config)
    playing = Playing(config.action_repeat, config.frame_stack, config.time_limit)
    backend = LOCAL
    if on_ray:
        from envs.adapters import host_ray

        backend = host_ray.backend()
    workers = workers or backend.cores()
    return host(make(config), workers, title(config), playing, timeout, backend)
