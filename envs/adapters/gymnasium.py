"""Environments of Gymnasium as simulators. Runs in worker processes; loads no JAX."""

import difflib
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import gymnasium
import numpy as np
from gymnasium import error, spaces

from envs.adapters.host_simulator import UNDRAWN, Facts, Refused, Simulator

OBSERVATION, RENDER = "observation", "render"
"""Names of the two sources of pictures that are no entry of a dict."""
DEFAULT_FPS = 30


def simulator(
    id: str,
    options: Mapping[str, Any],
    pixels: str = "",
    size: int = 0,
    gray: bool = False,
    painted: str = "",
    made: Callable[[str, Mapping[str, Any]], gymnasium.Env] | None = None,
) -> Simulator:
    """An environment of Gymnasium's registry.

    Args:
      id: its name, perhaps with the module that registers it ("my_world:MyWorld-v0").
      options: keyword arguments of its constructor.
      pixels: what the agent sees: "observation", "render" (what `render` returns) or
        the name of an entry of an observation that is a dict. "" takes the observation
        if it is an image, else its one entry that is an image, else "render".
      size: height and width to which pictures are resized; 0 leaves them.
      gray: whether the agent sees luma, one channel, instead of three colours.
      painted: the same as `pixels`, for people; "" shows them what the agent sees,
        before it is resized and turned grey. It must be the same view.
      made: (id, options) -> the environment, where it is not of Gymnasium's registry.

    Raises:
      Refused: there is no such environment, it lacks a package or an image, or its
        actions are of a kind that no policy of ours has.
    """
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    made = made or _made
    env = made(id, options)
    source = _source(env, id, pixels)
    if RENDER in (source, painted):
        _check_renders(env, id)
        env.close()
        env = made(id, {**options, "render_mode": "rgb_array"})
    view = _view(env, source)
    shown = _view(env, painted or source)
    low, high, choices, to_action = _actions(env, id)
    last: dict[str, Any] = {}

    def picture() -> np.ndarray:
        return seen(view(last["observation"]), size, gray)

    def reset(seed: int) -> np.ndarray:
        last["observation"], _ = env.reset(seed=seed)
        return picture()

    def step(action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        last["observation"], reward, terminated, truncated, _ = env.step(
            to_action(action)
        )
        return UNDRAWN, float(reward), bool(terminated), bool(truncated)

    def paint(height: int, width: int) -> np.ndarray:
        image = _coloured(shown(last["observation"]))
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)

    facts = Facts(
        picture=reset(0).shape,  # pyright: ignore[reportArgumentType]
        low=low,
        high=high,
        choices=choices,
        max_steps=_time_limit(env),
        fps=round(env.metadata.get("render_fps") or DEFAULT_FPS),
    )
    return Simulator(facts, reset, step, paint, env.close, picture)


def seen(image: np.ndarray, size: int, gray: bool) -> np.ndarray:
    """u8[H, W] or u8[H, W, C] as the agent is to see it, u8[size, size, 1 or 3]."""
    if size and image.shape[:2] != (size, size):
        shrinks = size < min(image.shape[:2])
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=how)
    if image.ndim == 2:
        image = image[..., None]
    if gray and image.shape[2] == 3:
        # As `envs.transforms.luma`, which needs JAX.
        shade = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        image = np.round(shade).astype(np.uint8)[..., None]
    return image


def _made(id: str, options: Mapping[str, Any]) -> gymnasium.Env:
    try:
        with warnings.catch_warnings():
            # Box2D's types warn while they are made; where that is an error it crashes.
            warnings.simplefilter("ignore", DeprecationWarning)
            return gymnasium.make(id, disable_env_checker=True, **options)
    except error.DependencyNotInstalled as missing:
        raise Refused(
            f"env.id={id} needs a package that is not installed: {missing}"
        ) from None
    except (error.UnregisteredEnv, error.NamespaceNotFound) as unknown:
        raise Refused(_unknown(id, str(unknown))) from None
    except ModuleNotFoundError as missing:
        raise Refused(
            f"env.id={id} cannot be imported: {str(missing).splitlines()[0]}; install "
            "what is missing, or run where it can be found"
        ) from None
    except (error.Error, TypeError, ValueError, AttributeError) as refused:
        raise Refused(
            f"Gymnasium cannot make env.id={id} with {dict(options) or 'no options'}: "
            f"{str(refused).splitlines()[0]}"
        ) from None


def _unknown(id: str, why: str) -> str:
    known = [name for name in gymnasium.registry if ":" not in name]
    bare = id.rpartition(":")[2]
    close = difflib.get_close_matches(bare, known, 3, 0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else why.splitlines()[0]
    return (
        f"env.id={id} is not registered with Gymnasium; {hint} A world of your own is "
        "named with the module that registers it, my_module:MyWorld-v0"
    )


def _time_limit(env: gymnasium.Env) -> int:
    return (env.spec.max_episode_steps if env.spec else None) or 0


# --- pictures -----------------------------------------------------------------------


def _is_image(space: spaces.Space) -> bool:
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and (
            len(space.shape) == 2
            or (len(space.shape) == 3 and space.shape[2] in (1, 3))
        )
    )


def _source(env: gymnasium.Env, id: str, pixels: str) -> str:
    """Where the pictures come from: `OBSERVATION`, `RENDER` or a dict's entry."""
    space = env.observation_space
    entries = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
    images = [name for name, entry in entries.items() if _is_image(entry)]
    if pixels == RENDER:
        return RENDER
    if pixels:
        wanted = space if pixels == OBSERVATION else entries.get(pixels)
        if wanted is not None and _is_image(wanted):
            return pixels
        is_ = f"is {wanted}" if wanted is not None else "is not there"
        raise Refused(
            f"env.pixels is {pixels}, but this part of an observation of {id} {is_}, "
            "and no image (u8[H, W], u8[H, W, 1] or u8[H, W, 3]); "
            + (f"choose {' or '.join([*images, RENDER])}")
        )
    if _is_image(space):
        return OBSERVATION
    if len(images) > 1:
        raise Refused(
            f"an observation of {id} has several images; name one with env.pixels, "
            f"{' or '.join(images)}"
        )
    return images[0] if images else RENDER


def _check_renders(env: gymnasium.Env, id: str) -> None:
    modes = env.metadata.get("render_modes") or []
    if "rgb_array" not in modes:
        raise Refused(
            f"there are no pixels to be had of {id}: its observation is "
            f"{env.observation_space}, and it renders "
            f"{', '.join(map(str, modes)) or 'nothing'}, not rgb_array"
        )


def _view(env: gymnasium.Env, source: str) -> Callable[[Any], np.ndarray]:
    """Observation -> picture."""
    if source == RENDER:
        return lambda _: np.asarray(env.render())
    if source == OBSERVATION:
        return np.asarray
    return lambda observation: np.asarray(observation[source])


def _coloured(image: np.ndarray) -> np.ndarray:
    image = image[..., None] if image.ndim == 2 else image
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


# --- actions ------------------------------------------------------------------------


def _actions(
    env: gymnasium.Env, id: str
) -> tuple[
    tuple[float, ...], tuple[float, ...], int, Callable[[np.ndarray], np.ndarray | int]
]:
    """Bounds, number of choices, and our action -> the environment's."""
    space = env.action_space
    if isinstance(space, spaces.Discrete):
        return (), (), int(space.n), lambda choice: int(space.start + choice)
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise Refused(f"the actions of {id} have no bounds: {space}")
        low, high = (tuple(map(float, b.ravel())) for b in (space.low, space.high))
        return low, high, 0, lambda action: action.reshape(space.shape)
    raise Refused(
        f"the actions of {id} are {space}; only a Discrete or a Box of numbers with "
        "bounds can be played"
    )
