"""Gymnasium's own game, recorded: what ours is held against.

For studies and tests only; the game itself imports nothing from here.
"""

import warnings
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from envs.car_racing import palette
from envs.car_racing.contacts import WORDS
from envs.car_racing.state import State

with warnings.catch_warnings():
    # SWIG's types warn while they are made; where warnings are errors, that crashes.
    warnings.simplefilter("ignore", DeprecationWarning)
    from gymnasium.envs.box2d.car_racing import CarRacing

CRUISE, SLOWEST = 80.0, 34.0
"""Speeds of `follow_road`, units per second."""


class Reference(CarRacing):
    """CarRacing-v3 that draws chosen frames only: drawing is most of its time.

    Attributes:
      frames: which ones, by the number of actions taken.
      taken: actions taken.
      shown: score that the last frame shows, drawn or not.
      car: Gymnasium's, and `road` its tiles; there once the world has been reset.
    """

    car: Any
    road: Any

    def __init__(self, frames: Collection[int] = (), **settings):
        """As CarRacing; `frames` are those to draw."""
        super().__init__(**settings)
        self.frames = frozenset(frames)

    def reset(self, **arguments):
        """As CarRacing, whose reset plays a step without an action."""
        self.taken = -1
        return super().reset(**arguments)

    def _render(self, mode):
        self.taken += 1
        self.shown = self.reward
        return super()._render(mode) if self.taken in self.frames else None


Act: TypeAlias = Callable[[Reference], np.ndarray]
"""The world, `taken` actions after its reset -> the next action."""


def centre_line(env: CarRacing) -> np.ndarray:
    """f64[n, 2], points in the middle of the road, one a tile."""
    return np.array([point[2:4] for point in env.track])


def _wrapped(angle):
    return (angle + np.pi) % (2 * np.pi) - np.pi


def follow_road(env: Reference) -> np.ndarray:
    """Steers for a point ahead on the centre line, at a speed that the bend allows."""
    hull = env.car.hull
    x, y = hull.position
    speed = float(np.hypot(*hull.linearVelocity))
    line = centre_line(env)
    here = int(np.argmin(np.hypot(*(line - (x, y)).T)))
    ahead = line[(here + np.arange(24)) % len(line)]
    aim = ahead[4 + int(speed / 20)]
    error = _wrapped(np.arctan2(x - aim[0], aim[1] - y) - hull.angle)
    step = np.diff(ahead, axis=0)
    bend = np.abs(_wrapped(np.diff(np.arctan2(step[:, 1], step[:, 0]))))
    bend = np.convolve(bend, np.ones(3) / 3, "valid")[: 8 + int(speed / 6)].max()
    wanted = np.clip(CRUISE - 170 * bend, SLOWEST, CRUISE)
    gas = np.clip((wanted - speed) / 10, 0, 0.6) * (abs(error) < 0.5)
    brake = np.clip((speed - wanted - 3) / 30, 0, 0.4)
    return np.array([np.clip(-2.5 * error, -1, 1), gas, brake], np.float32)


def careless(env: Reference) -> np.ndarray:
    """Follows the road, and now and then steers hard without looking."""
    action = follow_road(env)
    if env.taken % 60 > 45:
        action[0] = 1 - 2 * (env.taken // 60 % 2)
    return action


def uniform(rng: np.random.Generator) -> Act:
    """Other controls at every step."""

    def act(env: Reference) -> np.ndarray:
        return rng.uniform((-1, 0, 0), 1).astype(np.float32)

    return act


def smooth(rng: np.random.Generator) -> Act:
    """Sums of slow waves: gentle to hard steering, gas and a little braking."""
    rate, phase = rng.uniform(0.02, 0.15, (3, 3)), rng.uniform(0, 2 * np.pi, (3, 3))

    def act(env: Reference) -> np.ndarray:
        steer, gas, brake = np.sin(rate * env.taken + phase).mean(axis=1)
        return np.array([1.5 * steer, 0.3 + gas, brake - 0.4], np.float32).clip(
            (-1, 0, 0), 1
        )

    return act


def wild(rng: np.random.Generator) -> Act:
    """Holds random, often extreme controls for a few steps: slides, spins, stops."""
    held = np.zeros(3, np.float32)

    def act(env: Reference) -> np.ndarray:
        if env.taken % 7 == 0:
            held[:] = (
                rng.choice([-1, 1, 0, rng.uniform(-1, 1)]),
                rng.choice([0, 0.3, 1, rng.uniform()]),
                rng.choice([0, 0, 0, 0, 1, rng.uniform()]),
            )
        return held.copy()

    return act


class Recording(NamedTuple):
    """An episode of T steps in Gymnasium, N of its frames drawn.

    Attributes:
      actions: f32[T, 3] or i32[T].
      rewards: f64[T].
      poses: f64[T + 1, 3], x, y and angle of the hull's body origin.
      joints: f64[T + 1, 4], steering angles of the wheels.
      visited: i32[T + 1], tiles visited.
      scores: f64[T + 1], as the frame shows them.
      terminated: whether the last step ended the episode.
      images: u8[N, 96, 96, 3].
      states: what each of these shows.
    """

    actions: np.ndarray
    rewards: np.ndarray
    poses: np.ndarray
    joints: np.ndarray
    visited: np.ndarray
    scores: np.ndarray
    terminated: bool
    images: np.ndarray
    states: tuple[State, ...]


def state_of(env: Reference, track: int = 0) -> State:
    """The state of Gymnasium's car, as ours.

    Args:
      env: the world.
      track: index that the state is to name.
    """
    hull, wheels = env.car.hull, env.car.wheels
    visited = np.zeros(WORDS, "u4")
    for tile in env.road:
        visited[tile.idx // 32] |= np.uint32(tile.road_visited << tile.idx % 32)
    ground = palette.GROUND.astype("f4")
    kinds = [palette.ROAD, palette.DARK, palette.LIGHT]
    # pygame cuts fractions off.
    ground[kinds] = np.floor([env.road_color, env.bg_color, env.grass_color])
    (x, y), (vx, vy) = np.array([hull.position, hull.linearVelocity], np.float32)
    wheel_vx, wheel_vy = np.array(
        [wheel.linearVelocity for wheel in wheels], np.float32
    ).T
    joints = [wheel.joint for wheel in wheels]
    fields: dict[str, Any] = {
        "track": np.int32(track),
        "step": np.int32(env.taken),
        "x": x,
        "y": y,
        "angle": np.float32(hull.angle),
        "vx": vx,
        "vy": vy,
        "w": np.float32(hull.angularVelocity),
        "wheel_vx": wheel_vx,
        "wheel_vy": wheel_vy,
        "joint": np.array([joint.angle for joint in joints], np.float32),
        "joint_speed": np.array([joint.speed for joint in joints], np.float32),
        "stop": np.array(
            [-joint.GetReactionTorque(1.0) for joint in joints], np.float32
        ),
        "omega": np.array([wheel.omega for wheel in wheels], np.float32),
        "phase": np.array([wheel.phase for wheel in wheels], np.float32),
        "gas": np.float32(wheels[2].gas),
        "road": np.array([len(wheel.tiles) > 0 for wheel in wheels]),
        "visited": visited,
        "visited_count": np.int32(env.tile_visited_count),
        "ground": ground,
        "score": np.float32(env.shown),
    }
    return State(**fields)


def record(
    seed: int,
    steps: int,
    act: Act = follow_road,
    *,
    frames: Collection[int] = (),
    track: int = 0,
    prepare: Callable[[Reference], None] = lambda env: None,
    **settings,
) -> Recording:
    """Plays an episode of at most `steps` steps.

    Args:
      seed: of the track.
      steps: how many at most.
      act: the driver.
      frames: the frames to draw, by the number of actions taken.
      track: index that the states of these frames are to name.
      prepare: called before each action, to change the world.
      **settings: of CarRacing.
    """
    env = Reference(frames, **settings)
    image, _ = env.reset(seed=seed)
    actions, rewards, snapshots, images, states = [], [], [_snapshot(env)], [], []
    terminated = False
    while True:
        if image is not None:
            images.append(image)
            states.append(state_of(env, track))
        if len(actions) == steps or terminated:
            break
        prepare(env)
        action = act(env)
        image, reward, terminated, _, _ = env.step(action)
        actions.append(action)
        rewards.append(reward)
        snapshots.append(_snapshot(env))
    env.close()
    poses, joints, visited, scores = map(np.array, zip(*snapshots, strict=True))
    return Recording(
        actions=np.array(actions),
        rewards=np.array(rewards),
        poses=poses,
        joints=joints,
        visited=visited,
        scores=scores,
        terminated=terminated,
        images=np.array(images, "u1").reshape(-1, 96, 96, 3),
        states=tuple(states),
    )


def _snapshot(env: Reference):
    hull, wheels = env.car.hull, env.car.wheels
    return (
        (*hull.position, hull.angle),
        [wheel.joint.angle for wheel in wheels],
        env.tile_visited_count,
        env.shown,
    )
