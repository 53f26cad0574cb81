"""Where workers run: as processes of this machine, or elsewhere."""

import os
import time
from collections.abc import Callable, Collection
from multiprocessing import connection
from typing import Any, NamedTuple, Protocol

import numpy as np

from envs.adapters import host_process
from envs.adapters.host_simulator import Facts, Maker, Playing
from envs.core import Moment


class Worker(Protocol):
    """A simulator elsewhere, as its pool sees it (`host_process.Worker` is one).

    It is told one thing at a time. All but `end` and `hang_up` raise
    `host_process.Lost` where it is of no more use.

    Attributes:
      deadline: the time (`time.monotonic`) by which it has to have answered.
    """

    deadline: float

    def facts(self) -> Facts:
        """Its first answer; raises `Refused` too."""
        ...

    def reset(self, seed: int, size: tuple[int, int]) -> None:
        """Begins an episode."""
        ...

    def step(self, action: np.ndarray) -> None:
        """Plays an action."""
        ...

    def moment(self) -> Moment:
        """Its answer to either."""
        ...

    def hang_up(self) -> None:
        """Lets it close by itself."""
        ...

    def end(self, patience: float = ...) -> int:
        """Makes sure of it, after so many seconds; returns its exit code."""
        ...


class Backend(NamedTuple):
    """A place for workers.

    Attributes:
      start: (maker, playing, timeout) -> a worker that is starting.
      wait: (workers, seconds) -> those that have answered or died, as soon as there is
        one, or none after that time.
      cores: () -> how many workers can play side by side.
    """

    start: Callable[[Maker, Playing, float], Worker]
    wait: Callable[[Collection[Any], float], Collection[Any]]
    cores: Callable[[], int]


def _wait(
    workers: Collection[host_process.Worker], seconds: float
) -> Collection[host_process.Worker]:
    by_pipe = {worker.pipe: worker for worker in workers}
    ready = connection.wait(list(by_pipe), seconds)
    return [worker for pipe, worker in by_pipe.items() if pipe in ready]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


LOCAL = Backend(host_process.Worker, _wait, _cores)
"""Processes of this machine."""


def answered(backend: Backend, workers: Collection[Worker]) -> list[Worker]:
    """Waits; gives those who have answered, died or let their time run out."""
    first = min(worker.deadline for worker in workers)
    ready = backend.wait(workers, max(0.0, first - time.monotonic()))
    now = time.monotonic()
    return [w for w in workers if w in ready or w.deadline <= now]
