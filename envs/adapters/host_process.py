"""One worker process as its pool sees it: started, told, listened to, ended."""

import contextlib
import mmap
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import reduction, resource_tracker

import numpy as np

from envs.adapters import host_messages as messages
from envs.adapters.host_simulator import (
    UNDRAWN,
    Facts,
    Maker,
    Playing,
    Refused,
    Seen,
)
from envs.adapters.host_worker import serve
from envs.core import Moment

_GOODBYE = 3.0
"""Seconds that a worker has to close its simulator before it is killed."""


class Lost(Exception):  # noqa: N818
    """A worker is of no more use; says why, as a clause."""


class Worker:
    """A simulator in a process of its own.

    Attributes:
      pipe: can be read where the worker has answered, or died.
      deadline: the time (`time.monotonic`) by which it has to.
    """

    def __init__(self, make: Maker, playing: Playing, timeout: float):
        """Starts the process; `facts` is then its first answer."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._timeout = timeout
        self._process = context.Process(
            target=serve, args=(theirs, make, playing), daemon=True
        )
        with _without_interrupts():
            self._process.start()
        assert self._process.pid is not None, "it has been started"
        self._pid = self._process.pid  # its group's too, once it has founded one
        theirs.close()
        self.deadline = time.monotonic() + timeout
        self._choice = False
        self._seen: Seen = UNDRAWN

    def facts(self) -> Facts:
        """Reads that the simulator stands, and shares the memory of what is seen.

        That memory has no name: it is gone with the last process that sees it, however
        that ends.

        Raises:
          Refused: there is no such simulator.
          Lost: it could not be made this time.
        """
        message = self._hear()
        if message[:1] == messages.REFUSED:
            raise Refused(message[1:].decode())
        facts = messages.read_ready(message)
        size = messages.memory_size(facts)
        where = "/dev/shm" if os.path.isdir("/dev/shm") else None
        with tempfile.TemporaryFile(dir=where) as file, _or_lost():
            file.truncate(size)
            memory = mmap.mmap(file.fileno(), size)
            reduction.send_handle(self.pipe, file.fileno(), self._pid)
        self._seen = messages.in_memory(memory, facts)
        self._choice = facts.choices > 0
        return facts

    def reset(self, seed: int, size: tuple[int, int]) -> None:
        """Begins an episode, with paintings of this size; raises `Lost`."""
        self._tell(messages.reset(seed, *size))

    def step(self, action: np.ndarray) -> None:
        """Plays an action; raises `Lost`."""
        self._tell(messages.step(action, self._choice))

    def moment(self) -> Moment:
        """Reads what that came to; raises `Lost`."""
        answer = messages.read_answer(self._hear())
        shape = answer.height, answer.width, 3
        with _or_lost():
            paintings = [
                np.frombuffer(self.pipe.recv_bytes(), np.uint8).reshape(shape)
                for _ in range(answer.paintings)
            ]
        return Moment(
            self._seen,
            answer.reward,
            answer.terminated,
            answer.truncated,
            answer.frames,
            paintings,
        )

    def end(self, patience: float = _GOODBYE) -> int:
        """Makes sure that the process and its own have ended; returns its exit code."""
        self.hang_up()
        self._process.join(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        if self._process.exitcode is None:
            self._process.kill()  # it may have had no time to found its group
            self._process.join()
        code = self._process.exitcode
        self._process.close()
        return code or 0

    def hang_up(self) -> None:
        """Lets the process end by itself."""
        self.pipe.close()

    def _tell(self, message: bytes) -> None:
        self.deadline = time.monotonic() + self._timeout
        with _or_lost():
            self.pipe.send_bytes(message)

    def _hear(self) -> bytes:
        with _or_lost():
            if not self.pipe.poll():
                raise Lost(f"it gave no answer for {self._timeout:g} s")
            message = self.pipe.recv_bytes()
        if message[:1] == messages.FAILED:
            raise Lost(f"of {message[1:].decode()}")
        return message


@contextlib.contextmanager
def _or_lost() -> Iterator[None]:
    """At the other end of the pipe there may be no one any more."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise Lost("") from error


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C is for this process: one that is started here is born deaf to it."""
    # multiprocessing's own helper, started with the first process, would undo it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
