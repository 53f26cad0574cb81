"""Simulators for tests of worker processes, which import this file and no JAX."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from envs.adapters.host_simulator import Facts, Refused, Simulator, sensed

SIZE = 8


def dot(length=12, limited=True, leaves=True, tells_jax=False):
    """A dot that the action pushes and noise of the seed's generator too.

    The reward is its distance from the middle, or with `tells_jax` whether JAX has been
    loaded. It terminates outside the picture if it `leaves`, and is truncated after
    `length` frames.
    """
    state = {}

    def picture():
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        row, column = np.clip(np.round(state["place"]), 0, SIZE - 1).astype(int)
        image[row, column] = 255
        image[0, 0] = state["frame"]
        return image

    def reset(seed):
        state["generator"] = np.random.default_rng(seed)
        state["place"] = state["generator"].uniform(2, 5, 2)
        state["frame"] = 0
        return picture()

    def step(action):
        noise = state["generator"].normal(0, 0.3, 2)
        state["place"] = state["place"] + np.asarray(action, float) + noise
        state["frame"] += 1
        gone = leaves and bool(np.any((state["place"] < 0) | (state["place"] > 7)))
        reward = float(np.abs(state["place"] - 3.5).max())
        if tells_jax:
            reward = float("jax" in sys.modules)
        return picture(), reward, gone, state["frame"] >= length and not gone

    def paint(height, width):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, :, 0] = state["frame"]
        return image

    bound = (1.0, 1.0)
    facts = Facts(
        (SIZE, SIZE, 3), (-1.0, -1.0), bound, 0, length if limited else 0, fps=10
    )
    return Simulator(facts, reset, step, paint, lambda: None)


def felt(length=12):
    """`dot`, which also says how bright its picture is, its frame, and -1."""
    world = dot(length)

    def with_vector(picture):
        return picture, sensed([picture.mean(), np.sinh([picture[0, 0, 0], -1.0])])

    def step(action):
        picture, *rest = world.step(action)
        return with_vector(picture), *rest

    facts = world.facts._replace(vector=3)
    reset = lambda seed: with_vector(world.reset(seed))  # noqa: E731
    return world._replace(facts=facts, reset=reset, step=step)


def troubled(kind, folder, times, seed=3, length=12):
    """`dot` which in the third frame of one seed's episode, `times` times, has `kind`.

    exit, kill, raise and hang; the files in `folder` count how often.
    """
    world = dot(length, leaves=False)
    state = {"seed": 0, "frame": 0}

    def reset(level):
        state.update(seed=level, frame=0)
        return world.reset(level)

    def step(action):
        state["frame"] += 1
        seen = len(list(Path(folder).iterdir()))
        if (state["seed"], state["frame"]) == (seed, 3) and seen < times:
            (Path(folder) / str(seen)).touch()
            _trouble(kind)
        return world.step(action)

    return world._replace(reset=reset, step=step)


def _trouble(kind):
    if kind == "exit":
        os._exit(3)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        time.sleep(1000)
    raise RuntimeError("the wheels came off")


def refused():
    raise Refused("there is no such world")


def failing():
    raise OSError("no room")


def engined(make, folder):
    """A world that has a process of its own, named by a file, and never ends it."""
    engine = subprocess.Popen(["sleep", "1000"])
    (Path(folder) / str(engine.pid)).touch()
    return make()


def slow():
    """A world whose every step says who plays it, its own process too; takes long."""
    world = dot(1000, leaves=False)
    engine = subprocess.Popen(["sleep", "1000"])

    def step(action):
        print(f"{os.getpid()} {engine.pid}", flush=True)
        time.sleep(1000)

    return world._replace(step=step)


def located(folder):
    """`dot`, where a file is named after the node of Ray's cluster that it runs on."""
    import ray

    (Path(folder) / ray.get_runtime_context().get_node_id()).touch()
    return dot()
