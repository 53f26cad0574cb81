"""Several processes that train one run: `distributed=true`.

All run the same command. Process 0 alone touches the run's folder, speaks, validates
and films; the others learn beside it and wait where it is busy.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.config import Config, identified
from experiments.folder import RunError, identity

ADDRESS = "JAX_COORDINATOR_ADDRESS"
COUNT = "JAX_NUM_PROCESSES"
NUMBER = "JAX_PROCESS_ID"
NAMES = (ADDRESS, COUNT, NUMBER)
"""The environment of each process where no launcher that JAX knows started it."""

OWN = "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"
"""What JAX's errors begin with where the fault is this process's own."""

CURE = (
    f"set {ADDRESS}=host:port of process 0, {COUNT} and {NUMBER} for each process, or "
    "start them by a launcher that JAX knows (Slurm, Open MPI, Kubernetes)"
)


def join() -> None:
    """Makes this process one of several, as its environment says.

    Raises:
      RunError: the environment does not say how, or the others cannot be reached.
    """
    if jax.distributed.is_initialized():
        return
    found = {name: os.environ[name] for name in NAMES if name in os.environ}
    given: dict[str, Any] = {}
    if COUNT in found or NUMBER in found:
        if missing := [name for name in NAMES if name not in found]:
            raise RunError(f"distributed=true, but {missing[0]} is not set; {CURE}")
        given = {
            "num_processes": _whole(COUNT, found[COUNT], 1, 2**31),
            "process_id": _whole(NUMBER, found[NUMBER], 0, int(found[COUNT])),
        }
    if ADDRESS in found and not re.fullmatch(r".+:\d{1,5}", found[ADDRESS]):
        raise RunError(f"{ADDRESS} is {found[ADDRESS]!r}; it must be host:port")
    # Its handler would take SIGTERM from ours.
    jax.config.update("jax_enable_preemption_service", False)
    # Two programs in flight could meet each other's messages.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        raise RunError(
            f"distributed=true, but the processes did not find each other: "
            f"{_first_line(error)}; {CURE}"
        ) from error


def several() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
    """Whether this process is the one that keeps the run's folder."""
    return not several() or jax.process_index() == 0


def highest(number: int) -> int:
    """The highest of all processes' numbers, below 2**31. Collective."""
    if not several():
        return number
    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def check_same(config: Config) -> None:
    """Refuses processes that were started with different settings. Collective.

    Raises:
      RunError: naming one of them.
    """
    if not several():
        return
    together = "iterations", "save_every", "fresh", "devices"
    settings = {name: getattr(config, name) for name in together}
    number = np.uint32(int(identity({**identified(config), **settings}), 16))
    all_ = multihost_utils.process_allgather(number)
    if others := np.flatnonzero(all_ != all_[0]).tolist():
        raise RunError(
            f"process {others[0]} was started with other settings than process 0; give "
            "all the same command"
        )


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What JAX says when a process is lost, in one sentence.

    Raises:
      RunError: in place of JAX's own error, where there are several processes.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if isinstance(error, ValueError):
            # A connection that breaks in a gather is one that names Gloo.
            lost = "gloo" in str(error).lower()
        else:
            lost = not str(error).startswith(OWN)
        if not (several() and lost):
            raise
        raise RunError(
            f"the processes lost each other ({_first_line(error)}); end those that "
            "are left and start all again: training goes on from the newest checkpoint"
        ) from error


def leave(status: int) -> int:
    """The exit status; where there are others, ends this process at once.

    An orderly end waits for all, and they may be waiting for this one.
    """
    if several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _whole(name: str, text: str, least: int, below: int) -> int:
    if not text.isdecimal() or not least <= int(text) < below:
        raise RunError(
            f"{name} is {text!r}; it must be a whole number of at least {least}"
            + (f" and below {COUNT}={below}" if name == NUMBER else "")
        )
    return int(text)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
