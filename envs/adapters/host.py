"""Simulators in processes of their own, behind `HostVectorEnv`."""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs.adapters.host_backend import LOCAL, Backend, Worker
from envs.adapters.host_pool import RETRIES, Pool
from envs.adapters.host_process import Lost
from envs.adapters.host_simulator import Facts, Maker, Playing
from envs.core import Box, Discrete, Episode, HostVectorEnv, Moment, Spec


def host(
    make: Maker,
    size: int,
    name: str,
    playing: Playing = Playing(),  # noqa: B008
    timeout: float = 60.0,
    backend: Backend = LOCAL,
) -> HostVectorEnv:
    """N simulators in spawned processes; one starts here, the others when needed.

    Processes of this machine import the program's main module: it needs a main guard.

    Args:
      make: makes a simulator, in its process.
      size: N.
      name: of the world, for messages.
      playing: action repeat, frame stack and time limit.
      timeout: seconds that a simulator may take for its start or for one decision.
      backend: where the processes are.

    Raises:
      ValueError: the simulator cannot be made, has no time limit, or a setting is out
        of bounds.
      ChildProcessError: it cannot be started. `play` raises it where an episode has
        cost its simulator `RETRIES` + 1 times.
    """
    if size < 1:
        raise ValueError(f"workers is {size}; it must be at least 1")
    if not timeout > 0:
        raise ValueError(f"timeout is {timeout}; it must be more than 0 seconds")
    pool = Pool(make, size, name, playing, timeout, backend)
    facts = pool.facts()
    if not facts.max_steps:
        pool.close()
        raise ValueError(
            f"{name} has no time limit, so that an episode might never end; set "
            "env.time_limit, in game frames"
        )
    spec = Spec(
        observation=_observation(facts),
        action=Discrete(facts.choices)
        if facts.choices
        else Box((len(facts.low),), facts.low, facts.high),
        max_steps=-(-facts.max_steps // playing.action_repeat),
        fps=facts.fps,
        action_repeat=playing.action_repeat,
    )

    def play(
        seeds: Sequence[int],
        begin: Callable[[int, Moment], Episode],
        painted: tuple[int, int] = (0, 0),
    ) -> list[Any]:
        with pool.closing_on_error():
            return _play(pool, seeds, begin, painted)

    return HostVectorEnv(spec, size, play, pool.close)


def _observation(facts: Facts) -> Box | tuple[Box, Box]:
    picture = Box(facts.picture, (0,), (255,), "uint8")
    if not facts.vector:
        return picture
    return picture, Box((facts.vector,), (-math.inf,), (math.inf,))


class _Job(NamedTuple):
    """An episode that is being played: which one, and by whom once it has begun."""

    index: int
    episode: Episode | None = None


def _play(
    pool: Pool,
    seeds: Sequence[int],
    begin: Callable[[int, Moment], Episode],
    painted: tuple[int, int],
) -> list[Any]:
    """As `HostVectorEnv.play`."""
    results: dict[int, Any] = {}
    waiting, failures = deque(range(len(seeds))), Counter()
    busy: dict[Worker, _Job] = {}

    def hand_out(worker: Worker) -> None:
        job = busy[worker] = _Job(waiting.popleft())
        try:
            worker.reset(seeds[job.index], painted)
        except Lost as lost:
            give_back(worker, lost)

    def go_on(worker: Worker) -> None:
        index, episode = busy[worker]
        try:
            moment = worker.moment()
            action, episode = _decided(begin, index, episode, moment)
            busy[worker] = _Job(index, episode)
            worker.step(action)
        except Lost as lost:
            give_back(worker, lost)
        except StopIteration as over:
            results[index] = over.value
            del busy[worker]

    def give_back(worker: Worker, lost: Lost) -> None:
        index, episode = busy.pop(worker)
        if episode is not None:
            episode.close()
        why = pool.remove(worker, lost)
        failures[index] += 1
        if failures[index] > RETRIES:
            raise ChildProcessError(
                f"{pool.name} failed {failures[index]} times in the episode of seed "
                f"{seeds[index]}, the last time because {why}"
            ) from None
        waiting.appendleft(index)

    while waiting or busy:
        for worker in pool.standing():
            if waiting and worker not in busy:
                hand_out(worker)
        pool.grow(len(waiting))
        for worker in pool.listen(busy):
            go_on(worker)
    return [results[index] for index in range(len(seeds))]


def _decided(
    begin: Callable[[int, Moment], Episode],
    index: int,
    episode: Episode | None,
    moment: Moment,
) -> tuple[np.ndarray, Episode]:
    """The next action; raises StopIteration with the result where there is none."""
    if episode is not None:
        return episode.send(moment), episode
    episode = begin(index, moment)
    return next(episode), episode
