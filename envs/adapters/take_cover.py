"""VizDoom's TakeCover as a simulator. Runs in worker processes; loads no JAX."""

import contextlib
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

from envs.adapters.gymnasium import seen
from envs.adapters.host_simulator import UNDRAWN, Facts, Refused, Simulator
from envs.adapters.take_cover_settings import TICS

FPS = 35
THRESHOLD = 1 / 3
"""A steering beyond it to either side moves, between them the player stands."""
STAND, LEFT, RIGHT = [False, False], [True, False], [False, True]


def simulator(size: int = 96, gray: bool = False, continuous: bool = True) -> Simulator:
    """TakeCover: monsters on the far wall throw fireballs, the player steps aside.

    Action: f32[1] in [-1, 1], left below -1/3, right above 1/3 (AttentionAgent, arXiv
    2003.08165); or one of stand, left, right. Observation: the screen without the
    instruments, 320x240, resized. Reward: 1 a tic, 35 of which are a second. Start: the
    seed decides all that monsters do. End: terminated when the player dies, truncated
    after 2,100 tics. The picture of the end is the last one before it, as the game then
    has none. Source: VizDoom's scenario take_cover.

    Args:
      size: height and width of the agent's picture.
      gray: luma, one channel, instead of three colours.
      continuous: a steering, or one of three choices.

    Raises:
      Refused: VizDoom is not installed.
    """
    try:
        import vizdoom
    except ModuleNotFoundError:
        raise Refused(
            "env=TakeCover needs the package vizdoom, which is not installed; "
            "pip install vizdoom"
        ) from None

    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / "take_cover.cfg"))
    game.set_doom_config_path(os.devnull)  # where it would save its settings
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    # It makes a folder where it starts, and never looks at it again.
    with tempfile.TemporaryDirectory() as home, contextlib.chdir(home):
        game.init()
    last = {"screen": np.zeros((1, 1, 3), np.uint8)}

    def look() -> None:
        state = game.get_state()
        if state is not None:
            last["screen"] = state.screen_buffer

    def observe() -> np.ndarray:
        return seen(last["screen"], size, gray)

    def reset(seed: int) -> np.ndarray:
        game.set_seed(seed)
        game.new_episode()
        look()
        return observe()

    def step(action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        reward = game.make_action(_buttons(action, continuous))
        look()
        return UNDRAWN, reward, game.is_episode_finished(), False

    def paint(height: int, width: int) -> np.ndarray:
        size = width, height
        return cv2.resize(last["screen"], size, interpolation=cv2.INTER_CUBIC)

    bound = (1.0,) if continuous else ()
    facts = Facts(
        picture=reset(0).shape,  # pyright: ignore[reportArgumentType]
        low=tuple(-x for x in bound),
        high=bound,
        choices=0 if continuous else 3,
        max_steps=TICS,
        fps=FPS,
    )
    return Simulator(facts, reset, step, paint, game.close, observe)


def _buttons(action: np.ndarray, continuous: bool) -> list[bool]:
    """Left and right, pressed or not."""
    if not continuous:
        return (STAND, LEFT, RIGHT)[int(action)]
    steering = float(action[0])
    return LEFT if steering < -THRESHOLD else RIGHT if steering > THRESHOLD else STAND
