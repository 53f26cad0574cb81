"""Gymnasium's own game: a driver that reads the track, and what it recorded."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

with warnings.catch_warnings():
    # SWIG's types warn while they are made; where warnings are errors, that crashes.
    warnings.simplefilter("ignore", DeprecationWarning)
    from gymnasium.envs.box2d.car_racing import CarRacing

CRUISE, SLOWEST = 80.0, 34.0


class Pose(NamedTuple):
    x: float
    y: float
    angle: float
    speed: float


class Recording(NamedTuple):
    """An episode of T steps in Gymnasium; poses are of the hull's body origin."""

    actions: np.ndarray  # f32[T, 3] or i32[T]
    rewards: np.ndarray  # f64[T]
    poses: np.ndarray  # f64[T + 1, 3]: x, y, angle
    joints: np.ndarray  # f64[T + 1, 4]
    spins: np.ndarray  # f64[T + 1, 4]
    visited: np.ndarray  # i32[T + 1]
    scores: np.ndarray  # f64[T + 1], as the frame shows it
    terminated: bool


class Gymnasium(CarRacing):
    """CarRacing-v3 that notes the score where it would draw."""

    def _render(self, mode):
        self.drawn = self.reward


def centre_line(env: CarRacing) -> np.ndarray:
    """f64[n, 2]"""
    return np.array([point[2:4] for point in env.track])


def _wrapped(angle):
    return (angle + np.pi) % (2 * np.pi) - np.pi


def follow_road(line: np.ndarray, pose: Pose) -> np.ndarray:
    """Steers for a point ahead on the centre line, at a speed that the bend allows."""
    here = int(np.argmin(np.hypot(*(line - (pose.x, pose.y)).T)))
    ahead = line[(here + np.arange(24)) % len(line)]
    aim = ahead[4 + int(pose.speed / 20)]
    error = _wrapped(np.arctan2(pose.x - aim[0], aim[1] - pose.y) - pose.angle)
    step = np.diff(ahead, axis=0)
    bend = np.abs(_wrapped(np.diff(np.arctan2(step[:, 1], step[:, 0]))))
    bend = np.convolve(bend, np.ones(3) / 3, "valid")[: 8 + int(pose.speed / 6)].max()
    wanted = np.clip(CRUISE - 170 * bend, SLOWEST, CRUISE)
    gas = np.clip((wanted - pose.speed) / 10, 0, 0.6) * (abs(error) < 0.5)
    brake = np.clip((pose.speed - wanted - 3) / 30, 0, 0.4)
    return np.array([np.clip(-2.5 * error, -1, 1), gas, brake], np.float32)


def wild(rng: np.random.Generator) -> Callable[[int], np.ndarray]:
    """Holds random, often extreme controls for a few steps: slides, spins, stops."""
    held = np.zeros(3, np.float32)

    def act(step: int) -> np.ndarray:
        if step % 7 == 0:
            held[:] = (
                rng.choice([-1, 1, 0, rng.uniform(-1, 1)]),
                rng.choice([0, 0.3, 1, rng.uniform()]),
                rng.choice([0, 0, 0, 0, 1, rng.uniform()]),
            )
        return held.copy()

    return act


def record(
    seed: int,
    steps: int,
    act: Callable | None = None,
    continuous: bool = True,
) -> Recording:
    """Plays an episode of at most `steps` steps.

    Args:
      seed: of the track.
      steps: how many at most.
      act: step -> action; None for the driver that follows the road.
      continuous: as in Gymnasium.
    """
    env = Gymnasium(continuous=continuous)
    env.reset(seed=seed)
    line = centre_line(env)
    actions, rewards, states = [], [], [_snapshot(env)]
    terminated = False
    while len(actions) < steps and not terminated:
        if act is None:
            hull = env.car.hull
            speed = float(np.hypot(*hull.linearVelocity))
            action = follow_road(line, Pose(*hull.position, hull.angle, speed))
        else:
            action = act(len(actions))
        _, reward, terminated, _, _ = env.step(action)
        actions.append(action)
        rewards.append(reward)
        states.append(_snapshot(env))
    poses, joints, spins, visited, scores = map(np.array, zip(*states, strict=True))
    env.close()
    return Recording(
        np.array(actions),
        np.array(rewards),
        poses,
        joints,
        spins,
        visited,
        scores,
        terminated,
    )


def _snapshot(env: CarRacing):
    hull, wheels = env.car.hull, env.car.wheels
    return (
        (*hull.position, hull.angle),
        [wheel.joint.angle for wheel in wheels],
        [wheel.omega for wheel in wheels],
        env.tile_visited_count,
        env.drawn,
    )
