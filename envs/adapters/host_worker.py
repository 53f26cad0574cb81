"""The worker process: one simulator, played as it is told over a pipe. Loads no JAX."""

import contextlib
import mmap
import os
import signal
import threading
from multiprocessing import connection, process, reduction
from multiprocessing.connection import Connection

import numpy as np

from envs.adapters import host_messages as messages
from envs.adapters.host_simulator import (
    Facts,
    Maker,
    Playing,
    Refused,
    Seen,
    Simulator,
    decided,
    in_company,
)


def serve(pipe: Connection, make: Maker, playing: Playing) -> None:
    """Makes the simulator and plays it until the pipe is closed at the other end."""
    os.setpgrp()  # what the simulator starts can then be ended with this process
    threading.Thread(target=_die_with_parent, daemon=True).start()
    in_company()
    # Without the pool at the other end there is no one left to play for.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            simulator = make()
        except Refused as error:
            return pipe.send_bytes(messages.REFUSED + str(error).encode())
        except Exception as error:
            return pipe.send_bytes(messages.FAILED + _words(error))
        try:
            _serve(pipe, simulator, playing)
        finally:
            simulator.close()


def _die_with_parent() -> None:
    """Even where the simulator hangs and the parent was killed outright."""
    parent = process.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def _serve(pipe: Connection, simulator: Simulator, playing: Playing) -> None:
    paintings: list[np.ndarray] = []
    size = (0, 0)

    def watch() -> None:
        if size[0]:
            paintings.append(simulator.paint(*size))

    game, frames = decided(simulator, playing, watch)
    choice = game.facts.choices > 0
    pipe.send_bytes(messages.ready(game.facts))
    shared = _shared(pipe, game.facts)
    while True:
        told = pipe.recv_bytes()
        paintings.clear()
        try:
            if told[:1] == messages.RESET:
                seed, *size = messages.read_reset(told)
                messages.put(shared, game.reset(seed))
                answer = messages.Answer()
            else:
                action = messages.read_step(told, choice)
                seen, reward, terminated, truncated = game.step(action)
                messages.put(shared, seen)
                answer = messages.Answer(
                    float(reward), bool(terminated), bool(truncated), frames()
                )
        except Exception as error:
            pipe.send_bytes(messages.FAILED + _words(error))
            return
        answer = answer._replace(
            paintings=len(paintings), height=size[0], width=size[1]
        )
        pipe.send_bytes(messages.answer(answer))
        for painting in paintings:
            pipe.send_bytes(np.ascontiguousarray(painting).tobytes())


def _shared(pipe: Connection, facts: Facts) -> Seen:
    """The observation that both see, in memory without a name."""
    file = reduction.recv_handle(pipe)
    try:
        memory = mmap.mmap(file, messages.memory_size(facts))
    finally:
        os.close(file)
    return messages.in_memory(memory, facts)


def _words(error: Exception) -> bytes:
    return f"{type(error).__name__}: {error}".encode()
