"""A driver that reads the track: what a clean, quick lap is worth.

A baseline to hold policies against, which see less. It cuts the bends of the centre
line, steers for a point ahead on that path and goes as fast as the tyres can hold what
lies ahead. It remembers nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from envs.car_racing.car import ANCHOR_Y, DT, WHEEL_RADIUS
from envs.car_racing.physics import (
    BRAKE_SPIN,
    ENGINE_POWER,
    GRIP,
    MASS,
    MAX_SPEED,
    SPIN_INERTIA,
)
from envs.car_racing.state import State
from envs.car_racing.track import HALF_WIDTH, Roads

AHEAD = 28
"""Lines across the road that the path leads over, from the nearest on."""
SPREAD = 12
"""Lines on either side that a point of the path is averaged over."""
SOFTNESS = 4.5
"""Standard deviation of that average, in lines: how much it cuts the bends."""
ROOM = 3.5
"""How far the path may leave the centre line, world units; half the road is 6.7."""
SAME_WAY = 50.0
"""Squared units that a line counts as nearer if it crosses the car's way at a right
angle: where the road meets itself, the part that leads the car's way is taken."""
REACH, REACH_TIME = 7.0, 0.13
"""The point that it steers for lies so many units and seconds ahead."""
DAMPING = 0.03
"""Radians that it steers back for each radian a second that the car turns too fast."""
HOLD = 4 * GRIP / MASS
"""Acceleration that four tyres at the limit of their grip give the car."""
CORNERING, BRAKING = 0.9 * HOLD, 0.7 * HOLD
"""What the driver counts on in bends and before them, units per second squared."""
SPUN = SPIN_INERTIA / WHEEL_RADIUS**2
"""Mass whose inertia is that of a wheel's spin."""
HARDEST = (GRIP + SPUN * HOLD) * WHEEL_RADIUS * DT / (SPIN_INERTIA * BRAKE_SPIN)
"""The brake that takes four tyres to the limit: they and the wheels' spin resist it."""
STRONGEST = GRIP + SPUN * 2 * GRIP / (MASS + 2 * SPUN)
"""The engine's push on a rear wheel that takes its tyre to the limit, likewise; the
front wheels' spin resists as well."""
TRACTION = 1.1
"""Share of that push, and of that brake, that the driver uses: a little too much costs
nothing, as a tyre pulls no less when it slips."""
GAS_GAIN, BRAKE_GAIN = 0.45, 0.08
"""Pedals for each unit per second that the car is too slow or too fast."""
WHEELBASE = float(ANCHOR_Y[0] - ANCHOR_Y[2])


class Motion(NamedTuple):
    """All that the driver knows of a car; a `State` has the same fields.

    Attributes:
      track: i32[], index of the track in the pool.
      x, y, angle: f32[], pose of the hull's body origin, world units and radians.
      vx, vy: f32[], velocity of the hull's centre of mass, units per second.
      w: f32[], angular velocity, radians per second.
    """

    track: jax.Array
    x: jax.Array
    y: jax.Array
    angle: jax.Array
    vx: jax.Array
    vy: jax.Array
    w: jax.Array


class _Path(NamedTuple):
    """Points ahead, seen from the car but not turned with it, f32[AHEAD] each.

    Attributes:
      x, y: world units from the hull's origin.
      at: units along the path from the point beside the car.
    """

    x: jax.Array
    y: jax.Array
    at: jax.Array


def _smoothing() -> np.ndarray:
    """f32[AHEAD, AHEAD + 2 * SPREAD], each row the weights of a point of the path."""
    offset = np.arange(-SPREAD, SPREAD + 1)
    weight = np.exp(-0.5 * (offset / SOFTNESS) ** 2)
    rows = np.zeros((AHEAD, AHEAD + 2 * SPREAD), "f4")
    for i, row in enumerate(rows):
        row[i : i + 2 * SPREAD + 1] = weight / weight.sum()
    return rows


SMOOTHING = _smoothing()


def _nearest(lines: jax.Array, state: State | Motion) -> jax.Array:
    """i32[], the line that the car is at, of those that lead its way if it can be.

    Args:
      lines: f32[ROWS, 4], a track's `Roads.lines`.
      state: the car.
    """
    left_x, left_y, right_x, right_y = lines.T
    dx = (left_x + right_x) / 2 - state.x
    dy = (left_y + right_y) / 2 - state.y
    # Cosine of the angle between the road's direction and the car's.
    right = jnp.cos(state.angle) * (right_x - left_x)
    agree = (right + jnp.sin(state.angle) * (right_y - left_y)) / (2 * HALF_WIDTH)
    return jnp.argmin(dx * dx + dy * dy - SAME_WAY * agree).astype(jnp.int32)


def _path(roads: Roads, state: State | Motion) -> _Path:
    lines = roads.lines.at[state.track].get(mode="promise_in_bounds")
    count = roads.tracks.count.at[state.track].get(mode="promise_in_bounds")
    window = np.arange(-SPREAD, AHEAD + SPREAD, dtype=np.int32)
    rows = (_nearest(lines, state) + window) % count
    left_x, left_y, right_x, right_y = lines.at[rows].get(mode="promise_in_bounds").T
    ahead = slice(SPREAD, SPREAD + AHEAD)

    def smooth(centre: jax.Array) -> jax.Array:
        return jnp.matmul(SMOOTHING, centre, precision=lax.Precision.HIGHEST)

    x, y = (left_x + right_x) / 2 - state.x, (left_y + right_y) / 2 - state.y
    cut_x, cut_y = smooth(x) - x[ahead], smooth(y) - y[ahead]
    kept = ROOM / jnp.maximum(jnp.hypot(cut_x, cut_y), ROOM)
    x, y = x[ahead] + kept * cut_x, y[ahead] + kept * cut_y
    step_x, step_y = jnp.diff(x), jnp.diff(y)
    length = jnp.hypot(step_x, step_y)
    first = (x[0] * step_x[0] + y[0] * step_y[0]) / length[0]
    at = first + jnp.concatenate([jnp.zeros(1), jnp.cumsum(length)])
    return _Path(x, y, at)


def _safe_speed(path: _Path) -> jax.Array:
    """f32[], the speed from which every bend ahead can still be braked for.

    v^2 = CORNERING / curvature in the bend, and 2 BRAKING more for each unit before it.
    """
    step_x, step_y = jnp.diff(path.x), jnp.diff(path.y)
    length = jnp.hypot(step_x, step_y)
    turn = step_x[:-1] * step_y[1:] - step_y[:-1] * step_x[1:]
    twice = length[:-1] * length[1:] * (length[:-1] + length[1:])
    curvature = 2 * jnp.abs(turn) / twice
    before = jnp.maximum(path.at[1:-1], 0.0)
    square = CORNERING / jnp.maximum(curvature, 1e-6) + 2 * BRAKING * before
    return jnp.sqrt(square.min())


def drive(roads: Roads, state: State | Motion) -> jax.Array:
    """What the driver does; for one car, to be vmapped over many.

    Args:
      roads: the pool.
      state: the car; of Gymnasium's car its `Motion` is enough.

    Returns:
      f32[3], steer in [-1, 1] to the right, gas and brake in [0, 1].

    Source: pure pursuit as in Coulter, "Implementation of the Pure Pursuit Path
    Tracking Algorithm" (1992).
    """
    path = _path(roads, state)
    speed = jnp.hypot(state.vx, state.vy)
    reach = REACH + REACH_TIME * speed
    aim_x = jnp.interp(reach, path.at, path.x)
    aim_y = jnp.interp(reach, path.at, path.y)
    left = -(jnp.cos(state.angle) * aim_x + jnp.sin(state.angle) * aim_y)
    # Of the arc through the aim that leaves along the car's direction.
    curvature = 2 * left / jnp.maximum(aim_x * aim_x + aim_y * aim_y, 1.0)
    steer = jnp.arctan(WHEELBASE * curvature) - DAMPING * (state.w - speed * curvature)

    bend = jnp.maximum(jnp.abs(curvature), 1e-6)
    wanted = jnp.minimum(_safe_speed(path), jnp.sqrt(CORNERING / bend))
    wanted = jnp.minimum(wanted, MAX_SPEED)
    used = jnp.minimum(speed * speed * bend / CORNERING, 1.0)
    spare = jnp.sqrt(1 - 0.9 * used * used)
    most = TRACTION * spare
    # As a push: the engine's power over the spin of the wheels.
    full = STRONGEST * (speed + 5.0 * WHEEL_RADIUS) / ENGINE_POWER
    gas = jnp.clip(GAS_GAIN * (wanted - speed), 0.0, most * full)
    brake = jnp.clip(BRAKE_GAIN * (speed - wanted), 0.0, most * HARDEST)
    return jnp.stack([jnp.clip(-steer, -1.0, 1.0), jnp.minimum(gas, 1.0), brake])
