"""What the pool and its workers say to each other: bytes of a fixed layout, and JSON.

What the agent sees does not travel: it lies in memory that both see.
"""

import json
import mmap
import struct
from typing import NamedTuple

import numpy as np

from envs.adapters.host_simulator import Facts, Seen

READY, REFUSED, ANSWER, FAILED = b"R", b"N", b"A", b"F"
"""A worker's answers begin with one of these: it stands, with its facts; it cannot be,
and why; an episode's next moment; an exception, and its words."""
RESET, STEP = b"r", b"s"

_RESET = struct.Struct("<qII")  # seed, height and width of paintings (0: none)
_ANSWER = struct.Struct("<d??IIII")


class Answer(NamedTuple):
    """What a step came to; after a reset all zero.

    Attributes:
      reward: sum over the decision's game frames.
      terminated, truncated: whether and how the episode ended.
      frames: game frames that were played.
      paintings: how many pictures for people follow, u8[height, width, 3] each.
      height, width: theirs, in pixels.
    """

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    frames: int = 0
    paintings: int = 0
    height: int = 0
    width: int = 0


def reset(seed: int, height: int, width: int) -> bytes:
    """Begin an episode, and paint every game frame if the height is not 0."""
    return RESET + _RESET.pack(seed, height, width)


def read_reset(message: bytes) -> tuple[int, int, int]:
    """Seed, height, width."""
    return _RESET.unpack(message[1:])


def step(action: np.ndarray, choice: bool) -> bytes:
    """Play an action, f32[A] or one choice."""
    return STEP + np.asarray(action, "<i4" if choice else "<f4").tobytes()


def read_step(message: bytes, choice: bool) -> np.ndarray:
    """The action f32[A], or i32[]."""
    values = np.frombuffer(message[1:], "<i4" if choice else "<f4")
    return values[0] if choice else values


def answer(fields: Answer) -> bytes:
    """A moment of an episode."""
    return ANSWER + _ANSWER.pack(*fields)


def read_answer(message: bytes) -> Answer:
    """The other way."""
    return Answer(*_ANSWER.unpack(message[1:]))


def ready(facts: Facts) -> bytes:
    """A simulator stands."""
    return READY + json.dumps(facts._asdict()).encode()


def read_ready(message: bytes) -> Facts:
    """Its facts."""
    fields = json.loads(message[1:])
    for name in ("picture", "low", "high"):
        fields[name] = tuple(fields[name])
    return Facts(**fields)


def memory_size(facts: Facts) -> int:
    """Bytes of memory that an observation takes."""
    return 4 * facts.vector + int(np.prod(facts.picture))


def in_memory(memory: mmap.mmap, facts: Facts) -> Seen:
    """The observation that lies there; the vector first, so that it is aligned."""
    picture = np.frombuffer(memory, np.uint8, offset=4 * facts.vector)
    picture = picture.reshape(facts.picture)
    if not facts.vector:
        return picture
    return picture, np.frombuffer(memory, np.float32, facts.vector)


def put(memory: Seen, seen: Seen) -> None:
    """Writes an observation where it lies."""
    if isinstance(memory, tuple):
        for there, here in zip(memory, seen, strict=True):
            there[:] = here
    else:
        memory[:] = seen
