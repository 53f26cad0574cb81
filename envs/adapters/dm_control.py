"""Tasks of the DeepMind Control Suite as simulators. Runs in workers; loads no JAX."""

import difflib
import importlib.util
import logging
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.adapters import dm_distractions as distractions
from envs.adapters import opengl
from envs.adapters.gymnasium import seen
from envs.adapters.host_simulator import (
    UNDRAWN,
    Facts,
    Refused,
    Seen,
    Simulator,
    picture_of,
    sensed,
)

JOIN = "+"
"""Joins the cameras that are seen at once, and what is felt."""
_UNBOUNDED = 1e10
"""MuJoCo's largest number, for want of infinity."""
_LIGHT_SHADOWS = 512
"""Height and width of a light picture's map of shadows; the suite's own is 2048."""
_PLAIN = {"shadow": False, "reflection": False}
"""What MuJoCo leaves out of a plain picture."""
_FOLLOWING = {"quadruped": "2"}
"""The usual cameras of domains whose camera 0 stands still far away."""


def simulator(
    domain: str,
    task: str,
    camera: str = "",
    size: int = 84,
    gray: bool = False,
    proprioception: str = "",
    drawing: str = "full",
    wear: distractions.Wear = distractions.Wear(),  # noqa: B008
) -> Simulator:
    """A task of the DeepMind Control Suite, seen by cameras of its model.

    One step is one of the task's own control steps. The last one of an episode that
    the task's time limit ends is truncated; it is terminated where the discount is 0,
    and with the reward 0 where MuJoCo's state has run to infinity.

    Args:
      domain: for example "cheetah".
      task: for example "run".
      camera: number or name; several joined with `JOIN` are seen at once, as further
        channels. "" is 0, and for the quadruped 2, which follows it.
      size: height and width of the picture in pixels.
      gray: whether the agent sees luma, one channel of each camera, instead of colours.
      proprioception: names of the task's own observations, joined with `JOIN`, that are
        known beside the picture, one behind another (`sensed`); "" is none.
      drawing: "full"; "light", with coarse shadows and edges that are not smoothed; or
        "plain", without shadows and reflections besides.
      wear: what distracts from it (`envs.adapters.dm_distractions`).

    Raises:
      Refused: there is no such task, camera or observation, its actions have no
        bounds, dm_control is not installed, nothing can be drawn on this machine, or it
        cannot wear that.
    """
    env = _loaded(domain, task)
    physics = env.physics
    cameras = _cameras(physics, camera or _FOLLOWING.get(domain, "0"), domain)
    low, high = _bounds(env, domain, task)
    felt = _felt(env, proprioception, f"{domain} {task}")
    broken = _physics_error()
    worn = distractions.worn(physics, domain, cameras, wear)
    if drawing != "full":
        physics.model.vis.quality.shadowsize = _LIGHT_SHADOWS
        physics.model.vis.quality.offsamples = 0
    flags = _PLAIN if drawing == "plain" else {}
    views: dict[tuple[int, int, int], Any] = {}
    # Software that draws takes its time for what is outside of the picture too.
    _set_buffer(physics, size)

    def observe() -> Seen:
        pictures = [seen(draw(size, size, each), 0, gray) for each in cameras]
        picture = np.concatenate(pictures, axis=-1)
        if not felt:
            return picture
        readings = env.task.get_observation(physics)
        return picture, sensed([readings[name] for name in felt])

    def draw(height: int, width: int, number: int) -> np.ndarray:
        if max(height, width) > _buffer(physics):
            _set_buffer(physics, max(height, width))
        for each in worn:
            each.show()
        # `physics.render` makes a camera for every picture, with room for a thousand
        # geoms: half the time that a plain picture of a cartpole takes.
        view = height, width, number
        if view not in views:
            views[view] = _camera(physics, *view)
        # The camera's own memory, which its next picture overwrites.
        return views[view].render(render_flag_overrides=flags).copy()

    def reset(seed: int) -> Seen:
        env.task.random.seed(seed)
        env.reset()
        for each in worn:
            each.begin(seed)
        return observe()

    def step(action: np.ndarray) -> tuple[Seen, float, bool, bool]:
        try:
            now = env.step(action)
        except broken:  # from the same seed it would come to the same again
            return UNDRAWN, 0.0, True, False
        for each in worn:
            each.move()
        terminated = now.last() and now.discount == 0
        return UNDRAWN, float(now.reward), terminated, now.last() and not terminated

    try:
        _camera(physics, size, size, cameras[0]).render()
    except Exception as error:
        raise Refused(_undrawable(error)) from None
    limit = env._step_limit
    first = reset(0)
    facts = Facts(
        picture=picture_of(first).shape,  # pyright: ignore[reportArgumentType]
        low=low,
        high=high,
        choices=0,
        max_steps=math.ceil(limit) if math.isfinite(limit) else 0,
        fps=round(1 / env.control_timestep()),
        vector=len(first[1]) if isinstance(first, tuple) else 0,
    )
    return Simulator(
        facts,
        reset,
        step,
        paint=lambda height, width: draw(height, width, cameras[0]),
        close=env.close,
        observe=observe,
    )


# --- the task -----------------------------------------------------------------------


def _loaded(domain: str, task: str) -> Any:
    suite = _suite()
    _check_name("domain", domain, sorted(suite.TASKS_BY_DOMAIN))
    tasks = sorted(suite.TASKS_BY_DOMAIN[domain])
    _check_name("task", task, tasks, f" of env.domain={domain}")
    # It warns of what its own models say, in every worker.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        return suite.load(domain, task, task_kwargs={"random": 0})
    except Exception as error:
        import mujoco

        raise Refused(
            f"dm_control cannot load {domain} {task} with mujoco {mujoco.__version__}: "
            f"{_first_line(error)}; it needs 'mujoco<4'"
        ) from None


def _suite() -> Any:
    if importlib.util.find_spec("dm_control") is None:
        new = sys.version_info >= (3, 13)
        raise Refused(
            "env=dm_control needs the package dm-control, which "
            + (
                "cannot be installed on this version of Python, for want of labmaze; "
                "use Python 3.11 or 3.12 (make PYTHON=python3.12)"
                if new
                else "is not installed; run pip install 'dm-control>=1.0.50,<2'"
            )
        )
    opengl.choose()
    try:
        from dm_control import suite
    except Exception as error:  # of whichever library it chose to draw with
        raise Refused(_undrawable(error)) from None
    return suite


def _physics_error() -> type[Exception]:
    from dm_control.rl.control import PhysicsError

    return PhysicsError


def _check_name(kind: str, name: str, there: Sequence[str], of: str = "") -> None:
    if name in there:
        return
    close = difflib.get_close_matches(name, there, 3, 0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise Refused(
        f"env.{kind} is {name or 'empty'}, and no {kind}{of}; {hint}"
        f"it must be one of {', '.join(there)}"
    )


def _bounds(
    env: Any, domain: str, task: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    spec = env.action_spec()
    largest = max(np.abs(spec.minimum).max(), np.abs(spec.maximum).max())
    if not largest < _UNBOUNDED:
        raise Refused(
            f"the actions of {domain} {task} have no bounds, so that no policy can "
            "play it; choose another task"
        )
    return tuple(map(float, spec.minimum)), tuple(map(float, spec.maximum))


def _felt(env: Any, chosen: str, task: str) -> list[str]:
    names = chosen.split(JOIN) if chosen else []
    there = list(env.observation_spec())
    for name in names:
        if name not in there:
            raise Refused(
                f"env.proprioception is {chosen}, but {task} has no observation "
                f"{name!r}; it has {', '.join(there)}, and several can be joined with "
                f"{JOIN}"
            )
    return names


# --- the picture --------------------------------------------------------------------


def _cameras(physics: Any, chosen: str, domain: str) -> list[int]:
    names = [physics.model.id2name(i, "camera") for i in range(physics.model.ncam)]
    numbers = {**{str(i): i for i in range(len(names))}, **_numbered(names)}
    for name in chosen.split(JOIN):
        if name not in numbers:
            there = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
            raise Refused(
                f"env.camera is {chosen}, but {domain} has no camera {name!r}; it has "
                f"{there}, and several can be joined with {JOIN}"
            )
    return [numbers[name] for name in chosen.split(JOIN)]


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _camera(physics: Any, height: int, width: int, number: int) -> Any:
    from dm_control.mujoco import engine

    return engine.Camera(physics, height, width, number)


def _buffer(physics: Any) -> int:
    return physics.model.vis.global_.offheight


def _set_buffer(physics: Any, size: int) -> None:
    """The largest picture, in pixels; makes what it is drawn with anew."""
    if physics._contexts:
        physics._free_rendering_contexts()
    whole = physics.model.vis.global_
    whole.offheight = whole.offwidth = size


def _undrawable(error: Exception) -> str:
    chosen = os.environ.get("MUJOCO_GL", "its own choice")
    return (
        f"MuJoCo cannot draw here with MUJOCO_GL={chosen}: {_first_line(error)}; "
        f"run {opengl.CURE}, or set another MUJOCO_GL"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
