"""Workers side by side: as many as are needed, replaced where they are lost."""

import contextlib
import signal
import weakref
from collections.abc import Collection, Iterator

from envs.adapters.host_backend import LOCAL, Backend, Worker, answered
from envs.adapters.host_process import Lost
from envs.adapters.host_simulator import Facts, Maker, Playing, Refused

RETRIES = 2
"""How often a start, or an episode, is tried again."""


class Pool:
    """At most `size` workers.

    Attributes:
      name: of their world, for messages.
    """

    def __init__(
        self,
        make: Maker,
        size: int,
        name: str,
        playing: Playing,
        timeout: float,
        backend: Backend = LOCAL,
    ):
        """Starts nothing yet."""
        self.name, self._size, self._backend = name, size, backend
        self._start = lambda: backend.start(make, playing, timeout)
        self._workers: list[Worker] = []
        self._starting: list[Worker] = []
        self._failed_starts = 0
        # For a program that ends without closing the pool.
        weakref.finalize(self, _end, self._workers)

    def facts(self) -> Facts:
        """What the simulators have in common; starts the first of them.

        Raises:
          ValueError: there is no such simulator.
          ChildProcessError: it cannot be started.
        """
        with self.closing_on_error():
            while True:
                self.grow(1)
                (worker,) = answered(self._backend, self._starting)
                if (facts := self._stands(worker)) is not None:
                    return facts

    def grow(self, wanted: int) -> None:
        """Starts workers until `wanted` are starting, or there are enough of them."""
        while len(self._starting) < wanted and len(self._workers) < self._size:
            self._starting.append(self._start())
            self._workers.append(self._starting[-1])

    def standing(self) -> list[Worker]:
        """The workers that can play."""
        return [worker for worker in self._workers if worker not in self._starting]

    def listen(self, busy: Collection[Worker]) -> Iterator[Worker]:
        """Waits; gives those of the busy who have answered, died or let time run out.

        Raises as `facts` where new workers cannot be started.
        """
        for worker in answered(self._backend, [*busy, *self._starting]):
            if worker in self._starting:
                self._stands(worker)
            else:
                yield worker

    def remove(self, worker: Worker, lost: Lost) -> str:
        """Ends a lost worker; returns why it was lost, as a clause."""
        self._workers.remove(worker)
        code = worker.end(0.5)
        if str(lost):
            return str(lost)
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"its process ended with {ended}"

    def close(self) -> None:
        """Ends all workers."""
        self._starting.clear()
        _end(self._workers)

    @contextlib.contextmanager
    def closing_on_error(self) -> Iterator[None]:
        """Whatever stops the work midway leaves no worker that expects it to go on."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _stands(self, worker: Worker) -> Facts | None:
        """The facts of a worker that has come to stand; None where it was lost."""
        self._starting.remove(worker)
        try:
            facts = worker.facts()
        except Refused as refused:
            raise ValueError(str(refused)) from None
        except Lost as lost:
            why = self.remove(worker, lost)
            self._failed_starts += 1
            if self._failed_starts > RETRIES:
                raise ChildProcessError(
                    f"{self.name} could not be started {self._failed_starts} times, "
                    f"the last time because {why}"
                ) from None
            return None
        self._failed_starts = 0
        return facts


def _end(workers: list[Worker]) -> None:
    for worker in workers:  # all at once, so that they close side by side
        worker.hang_up()
    while workers:
        workers.pop().end()
