"""Ctrl-C and SIGTERM, which is treated alike."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818
    """The work was stopped by a signal, and all of it is saved."""

    def __init__(self, number: int):
        super().__init__(number)
        self.signal = number


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Either signal raises KeyboardInterrupt, with its number as the argument."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    with _handling(interrupt):
        yield


@contextlib.contextmanager
def noting() -> Iterator[Callable[[], int]]:
    """Notes the first signal, so that work can end well; obeys the second at once.

    Yields:
      A function that returns the number of the signal received, 0 before there was one.
    """
    received = 0

    def note(number: int, frame: object) -> None:
        nonlocal received
        if received:
            raise KeyboardInterrupt(number)
        received = number
        # Not by `print`: the signal may have come in the middle of one.
        os.write(2, b"Stopping after this iteration; once more to stop at once.\n")

    with _handling(note):
        yield lambda: received


@contextlib.contextmanager
def _handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
