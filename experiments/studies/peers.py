"""What `throughput` holds ours against: Gymnasium's and EnvPool's CarRacing-v3."""

import importlib
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from agents.core import Policy

FIRST = 100_000
"""Seed of the first track."""
DRAWN = 256
"""Steps for which actions are drawn; they come again and again."""


class Setting(NamedTuple):
    """What is measured.

    Attributes:
      who: "ours", "gymnasium" or "envpool".
      mode: physics, drawing or policy.
      worlds: in our hands, or in EnvPool's.
      picture: its size and colour.
      repeat: game frames for which an action is held.
      detail: anything else.
      block: worlds that a device of ours steps together, before the next as many; 0
        steps all in lockstep.
    """

    who: str
    mode: str
    worlds: int
    picture: str = "96x96 rgb"
    repeat: int = 1
    detail: str = ""
    block: int = 0


class Sample(NamedTuple):
    """One measurement.

    Attributes:
      frames: game frames played.
      wall: seconds on the clock.
      cpu: seconds of all cores together.
    """

    frames: int
    wall: float
    cpu: float


class Contender(NamedTuple):
    """Something that plays, ready to.

    Attributes:
      setting: what it is.
      compiled: seconds that it compiled for.
      play: seconds -> Sample, of about that length; goes on where it last stopped.
    """

    setting: Setting
    compiled: float
    play: Callable[[float], Sample]


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def random_actions(steps: int, worlds: int) -> np.ndarray:
    """f32[steps, worlds, 3], uniform within the bounds."""
    rng = np.random.default_rng(0)
    return rng.uniform((-1, 0, 0), 1, (steps, worlds, 3)).astype("f4")


def timed(turn: Callable[[], int]) -> Callable[[float], Sample]:
    """Plays turn after turn until the time is over.

    Args:
      turn: () -> game frames played, all of them finished when it returns.
    """

    def play(seconds: float) -> Sample:
        turn()
        frames, wall, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < seconds:
            frames += turn()
        return Sample(frames, time.perf_counter() - wall, time.process_time() - cpu)

    return play


def _player(policy: Policy, worlds: int) -> Callable[[np.ndarray, Any], np.ndarray]:
    """(pictures [n, ...], ids [n]) -> actions [n, 3] of the policy, on the host."""
    params = policy.init(jax.random.key(0))
    act = jax.jit(jax.vmap(policy.act, (None, 0, 0, None)))
    memory = jax.tree.map(
        lambda m: np.zeros((worlds, *m.shape), "f4") + np.asarray(m), policy.start()
    )

    def play(pictures: np.ndarray, ids: Any) -> np.ndarray:
        before = jax.tree.map(lambda m: m[ids], memory)
        after, decision = act(params, before, pictures, None)
        for old, new in zip(
            jax.tree.leaves(memory), jax.tree.leaves(after), strict=True
        ):
            old[ids] = new
        return np.asarray(decision.action)

    return play


def _gymnasium(mode: str) -> Any:
    """Gymnasium's CarRacing-v3; for physics alone, with an empty hand at drawing."""
    import gymnasium

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's types
        env = gymnasium.make("CarRacing-v3")
    if mode == "physics":
        env.unwrapped._render = lambda mode: np.zeros((96, 96, 3), "u1")  # type: ignore
    return env


def gymnasium_turn(mode: str, policy: Policy | None = None) -> Callable[[], int]:
    """Gymnasium's world for some steps."""
    env = _gymnasium(mode)
    picture, _ = env.reset(seed=FIRST)
    actions = random_actions(DRAWN, 1)[:, 0]
    player = _player(policy, 1) if policy is not None else None
    t = 0

    def turn() -> int:
        nonlocal picture, t
        for _ in range(8):
            action = actions[t % DRAWN]
            if mode != "physics":
                picture.sum(dtype="u1")
            if player is not None:
                action = player(picture[None], [0])[0]
            picture, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                picture, _ = env.reset()
            t += 1
        return 8

    return turn


def _worker(ready: Any, asked: Any, answers: Any) -> None:
    """One of several Gymnasiums; plays for as many seconds as it is asked to."""
    play = timed(gymnasium_turn("drawing"))
    while (seconds := asked.get()) is not None:
        ready.wait()
        answers.put(tuple(play(seconds)))


def gymnasium_on_all_cores(setting: Setting) -> Contender:
    """As many Gymnasiums as cores, in processes that never wait for one another.

    No vector environment of Gymnasium can be faster.
    """
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(setting.worlds)
    asked, answers = context.Queue(), context.Queue()
    for _ in range(setting.worlds):
        context.Process(
            target=_worker, args=(ready, asked, answers), daemon=True
        ).start()

    def play(seconds: float) -> Sample:
        for _ in range(setting.worlds):
            asked.put(seconds)
        samples = [Sample(*answers.get()) for _ in range(setting.worlds)]
        frames, _, cpu = map(sum, zip(*samples, strict=True))
        return Sample(frames, max(sample.wall for sample in samples), cpu)

    play(0.1)  # until all of them have started
    return Contender(setting, 0.0, play)


def envpool(setting: Setting, batch: int, policy: Policy | None = None) -> Contender:
    """EnvPool's worlds, on as many threads as there are cores.

    Args:
      setting: how it is played.
      batch: worlds that it hands over at once, those that finish first.
      policy: what chooses the actions, if not chance.

    Raises:
      ImportError: EnvPool is not installed.
    """
    B = setting.worlds
    env = importlib.import_module("envpool").make(
        "CarRacing-v3",
        env_type="gymnasium",
        num_envs=B,
        batch_size=batch,
        num_threads=cores(),
        seed=0,
    )
    env.async_reset()
    actions = random_actions(DRAWN, batch)
    player = _player(policy, B) if policy is not None else None
    t = 0

    def turn() -> int:
        """Every world about once."""
        nonlocal t
        for _ in range(B // batch):
            pictures, _, _, _, info = env.recv()
            pictures.sum(dtype="u1")
            ids = info["env_id"]
            action = player(pictures, ids) if player is not None else actions[t % DRAWN]
            env.send(action, ids)
            t += 1
        return B

    return Contender(setting, 0.0, timed(turn))
