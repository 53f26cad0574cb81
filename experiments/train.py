"""Training: a stream of events, and nothing else."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax

from agents import keys as names
from agents.core import Learner, LearnerState
from envs.core import World


class Event(NamedTuple):
    """One iteration of learning.

    Attributes:
      iteration: how many are done, this one included.
      state: the learner's state after it.
      metrics: the learner's own numbers about it, scalars.
    """

    iteration: int
    state: LearnerState
    metrics: Mapping[str, jax.Array]


def train(
    learner: Learner,
    state: LearnerState,
    world: World,
    key: jax.Array,
    start: int,
    stop: int,
) -> Iterator[Event]:
    """Learns from iteration `start` to iteration `stop`.

    Args:
      learner: what learns.
      state: its state after `start` iterations.
      world: the training world's constant data, placed (`Learner.place`).
      key: of the run's training; iteration i uses `keys.at(key, i)`, so that where a
        run was interrupted cannot change it.
      start: iterations done before.
      stop: iterations done at the end.
    """
    for iteration in range(start, stop):
        state, metrics = learner.update(state, world, names.at(key, iteration))
        yield Event(iteration + 1, state, metrics)
