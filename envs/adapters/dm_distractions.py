"""The Distracting Control Suite: what a task of dm_control wears, frame by frame.

Colours, the camera and the background differ from episode to episode, or also move
within one; nothing of the task does. What happens is drawn from the episode's seed, for
each distraction from a stream of its own.

Source: Stone et al., The Distracting Control Suite (arXiv 2101.02722), whose published
settings these are. It draws colours without a seed; here they have one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from envs.adapters import dm_backdrops as backdrops
from envs.adapters.host_simulator import Refused

SCALE = {"easy": 0.1, "medium": 0.2, "hard": 0.3}
"""Of everything that is shifted, by difficulty."""
VIDEOS = {"easy": 4, "medium": 8, "hard": None}
"""How many of the videos are shown, the first ones; None for all."""
GROUND = {
    **{"reacher": 0.0, "walker": 1.0, "cheetah": 1.0},
    **{"cartpole": 0.3, "finger": 0.3, "ball_in_cup": 0.3},
}
"""The domains that it knows, and how opaque the ground is before a background."""
_STREAMS = {"color": 0, "camera": 1, "background": 2}
_SKY = 2  # mjTEXTURE_SKYBOX
_FIXED, _TRACKCOM = 0, 2  # mjCAMLIGHT_*
_NEAR = 4.0
"""Distance of a camera, in metres, for which its speeds are meant."""


class Wear(NamedTuple):
    """What is worn, and how.

    Attributes:
      names: color, camera, background; any of them.
      difficulty: a key of `SCALE`.
      dynamic: whether it also moves within an episode.
      frames: where the videos of the background are (`backdrops.films`); "" for
        drifting waves of colour.
    """

    names: Sequence[str] = ()
    difficulty: str = "easy"
    dynamic: bool = False
    frames: str = ""


class Distraction(NamedTuple):
    """One of them, on one simulator.

    Attributes:
      begin: (seed) -> None, after the task has begun an episode.
      move: () -> None, after every game frame.
      show: () -> None, before a picture is drawn.
    """

    begin: Callable[[int], None]
    move: Callable[[], None]
    show: Callable[[], None] = lambda: None


def worn(
    physics: Any, domain: str, cameras: Sequence[int], wear: Wear
) -> list[Distraction]:
    """What a simulator wears.

    Args:
      physics: of dm_control; of its model only what is seen changes.
      domain: its name, one of `GROUND`.
      cameras: numbers of those that are looked through.
      wear: what, and how.

    Raises:
      Refused: a camera that cannot be moved, or there are no frames.
    """
    scale = SCALE[wear.difficulty]
    made = []
    if "background" in wear.names:
        films = backdrops.films(wear.frames)[: VIDEOS[wear.difficulty]]
        made.append(background(physics, GROUND[domain], films, wear.dynamic))
    if "camera" in wear.names:
        upright = domain != "reacher"  # it is looked at from above
        for number in cameras:
            made.append(camera(physics, number, scale, wear.dynamic, upright))
    if "color" in wear.names:
        made.append(color(physics, scale, wear.dynamic))
    return made


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, _STREAMS[name]])


# --- colours ------------------------------------------------------------------------


def color(physics: Any, scale: float, dynamic: bool) -> Distraction:
    """Every colour of every material, shifted by up to `scale` of full scale."""
    shown = physics.model.mat_rgba
    original = np.array(shown[:, :3])
    low, high = (np.clip(original + d, 0.0, 1.0) for d in (-scale, scale))
    sd = 0.03 * scale
    drawn: dict[str, np.random.Generator] = {}

    def begin(seed: int) -> None:
        generator = drawn["from"] = _generator(seed, "color")
        shown[:, :3] = generator.uniform(low, high)

    def move() -> None:
        if dynamic:
            steps = sd * drawn["from"].standard_normal(original.shape)
            shown[:, :3] = np.clip(shown[:, :3] + steps, low, high)

    return Distraction(begin, move)


# --- the camera ---------------------------------------------------------------------


class Reach(NamedTuple):
    """Where a camera may be, and how fast.

    Attributes:
      low: f64[3], least distance from its centre in metres, azimuth and angle from the
        vertical in radians; that angle is negative beyond the vertical.
      high: f64[3], the most of them.
      roll: most that it is turned about its own axis, in radians.
      speed: most metres that it moves in a game frame.
      speed_sd: of the changes of its velocity, in metres a game frame.
      roll_speed: most radians that it rolls in a game frame.
      roll_speed_sd: of the changes of that.
    """

    low: np.ndarray
    high: np.ndarray
    roll: float
    speed: float
    speed_sd: float
    roll_speed: float
    roll_speed_sd: float


class View(NamedTuple):
    """Where a camera is.

    Attributes:
      place: f64[3], as `Reach.low`.
      velocity: f64[3], metres in a game frame.
      roll: radians.
      roll_speed: radians in a game frame.
    """

    place: np.ndarray
    velocity: np.ndarray
    roll: float
    roll_speed: float


def reach(start: np.ndarray, scale: float, dynamic: bool, upright: bool) -> Reach:
    """How far a camera may go.

    Args:
      start: f64[3], from its centre to its own place in the model, in metres.
      scale: of the difficulty.
      dynamic: whether it moves.
      upright: whether it stays above the ground and on its own side.
    """
    distance, azimuth, polar = spherical(start)
    if azimuth > np.pi / 2:  # from behind, its sign is that of a rounding error
        azimuth -= 2 * np.pi
    angle = np.pi / 2 * scale
    low = np.array([distance * (1 - 0.5 * scale), azimuth - angle, polar - angle])
    high = np.array([distance * (1 + 1.5 * scale), azimuth + angle, polar + angle])
    if upright:
        low = np.maximum(low, [0.0, -np.pi, 0.0])
        high = np.minimum(high, [np.inf, 0.0, np.pi / 2])
    moving = scale if dynamic else 0.0
    near = distance / _NEAR
    return Reach(
        low,
        high,
        roll=angle,
        speed=0.4 * moving * near,
        speed_sd=0.1 * moving * near,
        roll_speed=np.pi / 50 * moving,
        roll_speed_sd=np.pi / 300 * moving,
    )


def first_view(reach: Reach, generator: np.random.Generator) -> View:
    """Anywhere within reach, on its way anywhere."""
    place = generator.uniform(reach.low, reach.high)
    roll = generator.uniform(-reach.roll, reach.roll)
    direction = generator.standard_normal(3)
    speed = generator.uniform(0.0, reach.speed)
    velocity = speed * direction / np.linalg.norm(direction)
    roll_speed = generator.uniform(-reach.roll_speed, reach.roll_speed)
    return View(place, velocity, roll, roll_speed)


def next_view(view: View, reach: Reach, generator: np.random.Generator) -> View:
    """One game frame later: the velocity walks at random, and stops at the bounds."""
    velocity = view.velocity + reach.speed_sd * generator.standard_normal(3)
    speed = np.linalg.norm(velocity)
    if speed > reach.speed:
        velocity = velocity * (reach.speed / speed)
    turn = view.roll_speed + reach.roll_speed_sd * generator.standard_normal()
    turn = np.clip(turn, -reach.roll_speed, reach.roll_speed)
    before = cartesian(view.place)
    place = unwrapped(spherical(before + velocity), view.place[1])
    place = np.clip(place, reach.low, reach.high)
    roll = np.clip(view.roll + turn, -reach.roll, reach.roll)
    return View(place, cartesian(place) - before, float(roll), float(roll - view.roll))


def camera(
    physics: Any, number: int, scale: float, dynamic: bool, upright: bool
) -> Distraction:
    """A camera elsewhere, that looks at what it looked at and is rolled.

    A camera that follows the body keeps on doing so. Raises as `worn`.
    """
    mode = physics.model.cam_mode[number]
    if mode not in (_FIXED, _TRACKCOM):
        raise Refused(
            f"the variant camera cannot move camera {number}, which turns by itself; "
            "choose another with env.camera"
        )
    follows = mode == _TRACKCOM
    data = physics.data
    now: dict[str, Any] = {}

    def centre() -> np.ndarray:
        return np.array(data.subtree_com[1]) if follows else np.zeros(3)

    def target() -> np.ndarray:
        """As far ahead of the model's own camera as the body is away."""
        eye, axes = data.cam_xpos[number], data.cam_xmat[number].reshape(3, 3)
        return eye - axes[:, 2] * np.linalg.norm(eye - data.subtree_com[1])

    def begin(seed: int) -> None:
        start = data.cam_xpos[number] - centre()
        now["from"] = _generator(seed, "camera")
        now["reach"] = reach(start, scale, dynamic, upright)
        now["view"] = first_view(now["reach"], now["from"])
        now["target"] = target()
        move()

    def move() -> None:
        # The task has just put the camera back to where its model has it.
        at = target() if follows else now["target"]
        now["view"] = view = next_view(now["view"], now["reach"], now["from"])
        eye = centre() + cartesian(view.place)
        axes = looking(eye, at, upright) @ _rolled(view.roll)
        data.cam_xpos[number] = eye
        data.cam_xmat[number] = axes.ravel()

    return Distraction(begin, move)


def looking(eye: np.ndarray, target: np.ndarray, upright: bool) -> np.ndarray:
    """A camera's axes, f64[3, 3]: right, up and backwards are the columns.

    Args:
      eye: f64[3], where it is.
      target: f64[3], what is in the middle of its picture.
      upright: whether the horizon is level; else it is turned there from looking
        straight down by the shortest way, which does not whirl about the vertical.
    """
    ahead = (target - eye) / np.linalg.norm(target - eye)
    if upright:
        right = np.cross(ahead, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(right, ahead), -ahead], axis=1)
    x, y, z = np.cross([0.0, 0.0, -1.0], ahead)
    turn = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + turn + turn @ turn / (1.0 - ahead[2])


def _rolled(roll: float) -> np.ndarray:
    c, s = np.cos(roll), np.sin(roll)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def spherical(place: np.ndarray) -> np.ndarray:
    """(x, y, z) -> distance, azimuth, angle from the vertical."""
    x, y, z = place
    return np.array(
        [np.linalg.norm(place), np.arctan2(y, x), np.arctan2(np.hypot(x, y), z)]
    )


def unwrapped(place: np.ndarray, azimuth: float) -> np.ndarray:
    """The same place within a quarter turn of an azimuth.

    Args:
      place: f64[3], as `spherical` has it.
      azimuth: in radians. What is on the other side of the vertical is at a negative
        angle from it.
    """
    half_turns = np.round((place[1] - azimuth) / np.pi)
    sign = 1.0 if half_turns % 2 == 0 else -1.0
    return np.array([place[0], place[1] - half_turns * np.pi, sign * place[2]])


def cartesian(place: np.ndarray) -> np.ndarray:
    """The other way."""
    distance, azimuth, polar = place
    flat = distance * np.sin(polar)
    return np.array(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.cos(polar)]
    )


# --- the background -----------------------------------------------------------------


def background(
    physics: Any, ground: float, films: Sequence[backdrops.Film], dynamic: bool
) -> Distraction:
    """A film on every side of the sky, to and fro, or one frame of it.

    Args:
      physics: of dm_control.
      ground: how opaque the ground is, 0 to 1.
      films: one of which is shown in an episode.
      dynamic: whether it runs, one of its frames in a game frame.
    """
    # Only here is it clear what MuJoCo is to draw with.
    from mujoco import mjr_uploadTexture  # pyright: ignore[reportAttributeAccessIssue]

    model, side = physics.model, backdrops.SIDE
    sky = int(np.flatnonzero(model.tex_type == _SKY)[0])
    # A square texture is MuJoCo's way to say that all sides of the sky are the same.
    model.tex_height[sky] = model.tex_width[sky] = side
    physics.named.model.mat_rgba["grid", "a"] = ground
    first = int(model.tex_adr[sky])
    texture = model.tex_data[first : first + side * side * 3].reshape(side, side, 3)
    now: dict[str, Any] = {"shown": None}

    def begin(seed: int) -> None:
        generator = _generator(seed, "background")
        now["film"] = films[int(generator.integers(len(films)))]
        now["frame"] = int(generator.integers(now["film"].length))
        now["step"] = int(generator.choice([-1, 1]))
        now["shown"] = None

    def move() -> None:
        if not dynamic:
            return
        ahead = now["frame"] + now["step"]
        if not 0 <= ahead < now["film"].length:
            now["step"] = -now["step"]
            ahead = min(max(ahead, 0), now["film"].length - 1)
        now["frame"] = ahead

    def show() -> None:
        contexts = physics.contexts
        shown = (now["frame"], contexts.mujoco)
        if now["shown"] == shown:
            return
        texture[:] = now["film"].frame(now["frame"])
        with contexts.gl.make_current() as context:
            context.call(mjr_uploadTexture, model.ptr, contexts.mujoco.ptr, sky)
        now["shown"] = shown

    return Distraction(begin, move, show)
