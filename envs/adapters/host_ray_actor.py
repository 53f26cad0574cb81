"""What a Ray actor does with its simulator. Loads neither JAX nor Ray."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.adapters.host_simulator import Facts, Maker, Playing, decided, in_company


class Actor:
    """One simulator, as the agent plays it.

    `reset` and `step` return the fields of an `envs.core.Moment`, in its order.
    """

    def __init__(self, make: Maker, playing: Playing):
        """Makes nothing yet: what goes wrong then is `facts`' to say."""
        self._make, self._playing = make, playing
        self._size: Sequence[int] = (0, 0)
        self._paintings: list[np.ndarray] = []

    def facts(self) -> Facts:
        """Makes the simulator; raises what its maker raises."""
        in_company()
        self._simulator = self._make()
        self._game, self._frames = decided(self._simulator, self._playing, self._watch)
        return self._game.facts

    def reset(self, seed: int, size: Sequence[int]) -> tuple[Any, ...]:
        """Begins an episode, and paints every game frame if the height is not 0."""
        self._size = size
        self._paintings = []
        picture = self._game.reset(seed)
        return picture, 0.0, False, False, 0, self._paintings

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        """Plays an action f32[A], or a choice."""
        self._paintings = []
        # As a local worker gives it to the simulator.
        kind = np.int32 if self._game.facts.choices else np.float32
        action = np.asarray(action, kind)[()]
        picture, reward, terminated, truncated = self._game.step(action)
        ends = bool(terminated), bool(truncated)
        return picture, float(reward), *ends, self._frames(), self._paintings

    def close(self) -> None:
        """Gives up what the simulator holds."""
        self._simulator.close()

    def _watch(self) -> None:
        if self._size[0]:
            self._paintings.append(self._simulator.paint(*self._size))
