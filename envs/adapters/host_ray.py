"""Workers as actors of a Ray cluster, on any of its machines."""

import contextlib
import importlib
import os
import socket
import time
import warnings
from collections.abc import Collection
from typing import Any

import numpy as np

from envs.adapters.host_backend import Backend
from envs.adapters.host_process import Lost
from envs.adapters.host_ray_actor import Actor
from envs.adapters.host_simulator import Facts, Maker, Playing, Refused
from envs.core import Moment

ADDRESS = "RAY_ADDRESS"
"""The variable that names the cluster, as everywhere in Ray."""
_GOODBYE = 3.0
"""Seconds that an actor has to close its simulator before it is killed."""
_SHARE = 0.01
"""Of a core, for Ray's accounts: workers find room on what is left when a machine is
lost, but are not sent to machines that are to get no work and so have no cores."""


def backend() -> Backend:
    """The cluster that RAY_ADDRESS names, else one on this machine for this program.

    Raises:
      ValueError: Ray is not installed, or no cluster answers.
    """
    # Before Ray is loaded, which reads it then: nothing is told to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = _ray()
    except ImportError:
        raise ValueError(
            "workers_on=ray needs the package ray, which is not installed; run "
            "pip install 'ray>=2.40,<3'"
        ) from None
    address = os.environ.get(ADDRESS) or "local"
    if not ray.is_initialized():
        own = {"include_dashboard": False} if address == "local" else {}
        try:
            _knock(address)
            with warnings.catch_warnings():
                # What it starts are new programs, which know nothing of JAX's threads.
                warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
                ray.init(address, log_to_driver=False, configure_logging=False, **own)
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"no Ray cluster answers at {ADDRESS}={address}: {reason}; start one "
                "with ray start --head, or leave the variable unset"
            ) from None

    def cores() -> int:
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    return Backend(Worker, _wait, cores)


def _knock(address: str) -> None:
    """Raises OSError where no one listens; Ray would try for minutes, and exit."""
    host, colon, port = address.split("://")[-1].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


class Worker:
    """A simulator in an actor.

    Attributes:
      answer: what it has been asked for last, a reference of Ray's.
      deadline: the time (`time.monotonic`) by which that has to be there.
    """

    def __init__(self, make: Maker, playing: Playing, timeout: float):
        """Starts the actor; `facts` is then its first answer."""
        ray = _ray()
        remote = ray.remote(num_cpus=_SHARE, scheduling_strategy="SPREAD")(Actor)
        self._actor: Any = remote.remote(make, playing)
        self._timeout = timeout
        self._closed: Any = None
        self._ask(self._actor.facts.remote())

    def facts(self) -> Facts:
        """Reads that the simulator stands; raises `Refused` or `Lost`."""
        return self._hear()

    def reset(self, seed: int, size: tuple[int, int]) -> None:
        """Begins an episode, with paintings of this size."""
        self._ask(self._actor.reset.remote(seed, size))

    def step(self, action: np.ndarray) -> None:
        """Plays an action."""
        self._ask(self._actor.step.remote(np.asarray(action)))

    def moment(self) -> Moment:
        """Reads what that came to; raises `Lost`."""
        return Moment(*self._hear())

    def hang_up(self) -> None:
        """Lets the simulator be closed."""
        ray = _ray()
        # Where Ray has been shut down its actors have ended, and a call would start it.
        if self._closed is None and ray.is_initialized():
            self._closed = self._actor.close.remote()

    def end(self, patience: float = _GOODBYE) -> int:
        """Makes sure that the actor has ended; why it has, `Lost` has said."""
        ray = _ray()
        self.hang_up()
        if ray.is_initialized():
            ray.wait([self._closed], timeout=patience)
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(self._actor)
        return 0

    def _ask(self, answer: Any) -> None:
        self.answer = answer
        self.deadline = time.monotonic() + self._timeout

    def _hear(self) -> Any:
        ray = _ray()
        try:
            return ray.get(
                self.answer, timeout=max(0, self.deadline - time.monotonic())
            )
        except ray.exceptions.GetTimeoutError:
            raise Lost(f"it gave no answer for {self._timeout:g} s") from None
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, Refused):
                raise cause from None
            raise Lost(f"of {type(cause).__name__}: {cause}") from None
        except ray.exceptions.RayError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Lost(f"Ray lost its actor: {reason}") from None


def _ray() -> Any:
    return importlib.import_module("ray")


def _wait(workers: Collection[Worker], seconds: float) -> Collection[Worker]:
    ray = _ray()
    by_answer = {worker.answer: worker for worker in workers}
    asked = list(by_answer)
    ray.wait(asked, timeout=seconds)
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
    return [by_answer[answer] for answer in ready]
