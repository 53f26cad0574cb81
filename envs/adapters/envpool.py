"""Environments of EnvPool as simulators. Runs in worker processes.

EnvPool itself loads JAX there, where that is installed.
"""

import difflib
import functools
import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from envs.adapters.host_simulator import Refused


def made(id: str, options: Mapping[str, Any]) -> gymnasium.Env:
    """One of EnvPool's worlds, as `envs.adapters.gymnasium.simulator` takes them.

    Args:
      id: its name in EnvPool's list.
      options: of `envpool.make`.

    Raises:
      Refused: EnvPool is not installed, has no such world, or none of these options.
    """
    for name in ("seed", "num_envs", "num_threads", "env_type"):
        if name in options:
            raise Refused(
                f"env.options.{name} is {options[name]}, but each of EnvPool's worlds "
                "is made alone and with its episode's seed; leave it out"
            )
    try:
        envpool = importlib.import_module("envpool")
    except ImportError:
        raise Refused(
            "env.backend=envpool needs the package envpool, which is not installed; "
            "run pip install 'envpool>=1.2,<2'"
        ) from None
    known = envpool.list_all_envs()
    if id not in known:
        close = difflib.get_close_matches(id, known, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise Refused(
            f"EnvPool has no env.id={id}; {hint}env.backend=gymnasium plays what it "
            "lacks"
        )
    try:
        return _Alone(envpool.make, id, options)
    except (AssertionError, TypeError, ValueError, RuntimeError) as refused:
        raise Refused(
            f"EnvPool cannot make env.id={id} with {dict(options) or 'no options'}: "
            f"{(str(refused) or type(refused).__name__).splitlines()[0]}"
        ) from None


class _Alone(gymnasium.Env):
    """A pool of one world, made anew for every episode.

    EnvPool takes a seed only when it makes a world; what it resets to later depends on
    the episodes before.
    """

    def __init__(self, make: Any, id: str, options: Mapping[str, Any]):
        kind = {"env_type": "gymnasium", "num_envs": 1, "num_threads": 1}
        self._make = functools.partial(make, id, **kind, **options)
        with warnings.catch_warnings():
            # Gymnasium warns of the bounds that EnvPool gives in double precision.
            warnings.simplefilter("ignore", UserWarning)
            self._pool = self._make(seed=0)
            self.action_space = self._pool.action_space
            self.observation_space = self._pool.observation_space
        self.metadata = self._pool.metadata
        self.spec = EnvSpec(
            id, max_episode_steps=self._pool.config["max_episode_steps"]
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._pool.close()
        self._pool = self._make(seed=seed)
        observation, _ = self._pool.reset()
        return _only(observation), {}

    def step(self, action: Any) -> Any:
        batch = np.asarray(action, self.action_space.dtype)[None]
        observation, reward, terminated, truncated, _ = self._pool.step(batch)
        return _only(observation), reward[0], terminated[0], truncated[0], {}

    def render(self) -> Any:
        return self._pool.render()[0]

    def close(self) -> None:
        self._pool.close()


def _only(batch: Any) -> Any:
    """What the one world shows."""
    if isinstance(batch, Mapping):
        return {name: _only(entry) for name, entry in batch.items()}
    return batch[0]
