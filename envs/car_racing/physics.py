"""The car's motion in reduced coordinates: hull pose and four steering angles.

Box2D moves five bodies and pulls them together with iterations. Here the joints hold
exactly: one solve gives the velocities that its iterations converge to.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from envs.car_racing.state import State
from envs.car_racing.track import CELL, GRID, MAX_TILES, RUN, Roads

FPS = 50
DT = 1 / FPS

HULL_MASS, HULL_INERTIA = 7.06, 18.2122764
"""Mass and inertia about the centre of mass of the hull."""
CENTRE_Y = -0.0825309
"""The hull's centre of mass lies at (0, CENTRE_Y) from its body origin."""
WHEEL_MASS, WHEEL_INERTIA = 0.06048, 0.0074592
MASS = HULL_MASS + 4 * WHEEL_MASS
ANCHOR_X = np.array([-1.1, 1.1, -1.1, 1.1], np.float32)
ANCHOR_Y = np.array([1.6, 1.6, -1.64, -1.64], np.float32)
"""Wheel centres in the hull's frame, from the body origin."""
ARM_Y = ANCHOR_Y - np.float32(CENTRE_Y)
"""The same from the centre of mass."""
REAR = np.array([0, 0, 1, 1], np.float32)
FRONT = 1 - REAR

WHEEL_HALF_WIDTH, WHEEL_RADIUS = 0.28, 0.54
SPIN_INERTIA = 1.6
ENGINE_POWER = 40000.0
BRAKE_SPIN = 15.0
"""Spin that a full brake takes away in one step."""
GRIP = 400.0
"""Largest tyre force on the road; 0.6 of it on grass."""
TYRE_STIFFNESS = 82.0
SKIN = 0.02
"""Two polygons touch within this distance: Box2D gives each a skin of 0.01."""
MAX_SPEED = 2.0 / DT
"""Box2D moves no body further than 2 units in a step."""

LEVER = float(WHEEL_MASS * ARM_Y.sum())
INERTIA = float(
    HULL_INERTIA
    + 4 * WHEEL_INERTIA
    + WHEEL_MASS * (ANCHOR_X**2 + ARM_Y**2).sum()
    - LEVER**2 / MASS
)
"""Of the whole car with its joints, about the hull's centre of mass."""
_SWUNG = float(WHEEL_MASS * (ANCHOR_X**2 + ARM_Y**2).sum())
LAG = _SWUNG / (HULL_INERTIA + _SWUNG) / 3
"""Part of the cube of a turn by which the wheels hold it back: moved along tangents,
they only turn by its arctangent before their joints are closed."""

STEER_STOP = 0.4
STEER_SLOP = 2 / 180 * np.pi
"""How far past its stop Box2D lets a joint rest."""
MOTOR_SPEED, MOTOR_GAIN = 3.0, 50.0
MOTOR_IMPULSE = 180 * 900 * 0.02**2 * DT
"""Largest angular impulse of the steering motor in one step."""
JOINT_INERTIA = 1 / (1 / WHEEL_INERTIA + 1 / HULL_INERTIA)
ITERATIONS = 180
"""Velocity iterations of Box2D: each adds to the impulses of motor and stop when the
two work against each other."""


WORDS = MAX_TILES // 32
SWEEPS = 5


class Contact(NamedTuple):
    """The tiles that each wheel touches.

    Attributes:
      tile: i32[RUN, 4], candidate tiles under each wheel.
      touch: bool[RUN, 4], whether the wheel touches them.
    """

    tile: jax.Array
    touch: jax.Array


def _candidates(
    roads: Roads, track: jax.Array, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """First candidate tile, i32[4], and the lines around all, f32[RUN + 1, 4, 4]."""
    column = jnp.clip((x * (1 / CELL) + GRID / 2).astype(jnp.int32), 0, GRID - 1)
    row = jnp.clip((y * (1 / CELL) + GRID / 2).astype(jnp.int32), 0, GRID - 1)
    cell = row * GRID + column
    first = roads.ids.at[track, cell].get(mode="promise_in_bounds").astype(jnp.int32)
    rows = first[None] + np.arange(RUN + 1, dtype=np.int32)[:, None]
    return first, roads.lines.at[track, rows].get(mode="promise_in_bounds")


def contacts(
    roads: Roads, track: jax.Array, x: jax.Array, y: jax.Array, angle: jax.Array
) -> Contact:
    """Exact contacts of four wheels with the road: separating axes of box and quad.

    Args:
      roads: the pool.
      track: i32[], index in it.
      x: f32[4], wheel centres in world units.
      y: f32[4].
      angle: f32[4], their headings in radians.
    """
    first, lines = _candidates(roads, track, x, y)
    cos, sin = jnp.cos(angle), jnp.sin(angle)

    def local(px, py):
        dx, dy = px - x[None], py - y[None]
        return dx * cos[None] + dy * sin[None], dy * cos[None] - dx * sin[None]

    left_x, left_y = local(lines[..., 0], lines[..., 1])
    right_x, right_y = local(lines[..., 2], lines[..., 3])

    def clear(nx, ny, px, py):
        """The box lies wholly on the side of the line through p that n points to."""
        reach = WHEEL_HALF_WIDTH * jnp.abs(nx) + WHEEL_RADIUS * jnp.abs(ny)
        skin = SKIN * jnp.sqrt(nx * nx + ny * ny)
        distance = -(px * nx + py * ny)
        return distance - reach > skin, -distance - reach > skin

    ahead, behind = clear(left_y - right_y, right_x - left_x, left_x, left_y)

    def beside(px, py):
        return clear(py[:-1] - py[1:], px[1:] - px[:-1], px[:-1], py[:-1])

    left, _ = beside(left_x, left_y)
    _, right = beside(right_x, right_y)

    def apart(a, b, half):
        """The tile's corners all lie beyond one side of the box."""
        low, high = jnp.minimum(a, b), jnp.maximum(a, b)
        low = jnp.minimum(low[:-1], low[1:])
        high = jnp.maximum(high[:-1], high[1:])
        return (low > half + SKIN) | (high < -half - SKIN)

    separate = (
        ahead[1:]
        | behind[:-1]
        | left
        | right
        | apart(left_x, right_x, WHEEL_HALF_WIDTH)
        | apart(left_y, right_y, WHEEL_RADIUS)
    )
    count = roads.tracks.count.at[track].get(mode="promise_in_bounds")
    tile = first[None] + np.arange(RUN, dtype=np.int32)[:, None]
    return Contact(tile=jnp.where(tile >= count, tile - count, tile), touch=~separate)


def _steered(state: State, steer: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(joint speed, impulse of the stop, joint angle after the step), each f32[4].

    The stop works from the angle at which a step begins. While the motor pushes on it,
    each of Box2D's iterations adds to both impulses; turning back, they must first be
    used up at the same rate.
    """
    wanted = jnp.clip(
        MOTOR_GAIN * (steer * FRONT - state.joint), -MOTOR_SPEED, MOTOR_SPEED
    )
    side = jnp.where(jnp.abs(state.joint) >= STEER_STOP, jnp.sign(state.joint), 0.0)
    push = ITERATIONS * JOINT_INERTIA * wanted * side
    held = jnp.clip(state.stop * side + push, 0.0, MOTOR_IMPULSE)
    speed = jnp.where(held > 0, 0.0, wanted)
    angle = state.joint + DT * speed
    limit = jnp.where(side == 0, np.inf, STEER_STOP + STEER_SLOP)
    return speed, held * side, jnp.clip(angle, -limit, limit)


def _spin(state: State, gas: jax.Array, brake: jax.Array) -> jax.Array:
    """f32[4], spin of the wheels after engine and brake, before the road's pull."""
    power = DT * ENGINE_POWER / SPIN_INERTIA * gas * REAR
    omega = state.omega + power / (jnp.abs(state.omega) + 5.0)
    slowed = jnp.maximum(jnp.abs(omega) - BRAKE_SPIN * brake, 0.0)
    return jnp.where(brake >= 0.9, 0.0, jnp.sign(omega) * slowed)


def _tyres(
    state: State,
    heading: jax.Array,
    vx: jax.Array,
    vy: jax.Array,
    gas: jax.Array,
    brake: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(force x, force y, spin, phase), each f32[4], of wheels that move at (vx, vy)."""
    omega = _spin(state, gas, brake)
    phase = state.phase + DT * omega
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    forward = TYRE_STIFFNESS * (omega * WHEEL_RADIUS - (cos * vy - sin * vx))
    sideways = -TYRE_STIFFNESS * (cos * vx + sin * vy)
    grip = jnp.where(state.road, GRIP, 0.6 * GRIP).astype(jnp.float32)
    force = jnp.sqrt(forward * forward + sideways * sideways)
    kept = grip / jnp.maximum(force, grip)
    forward, sideways = forward * kept, sideways * kept
    omega = omega - DT * WHEEL_RADIUS / SPIN_INERTIA * forward
    return (
        sideways * cos - forward * sin,
        sideways * sin + forward * cos,
        omega,
        phase,
    )


def _limited(vx: jax.Array, vy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A velocity no faster than Box2D lets anything move."""
    speed = jnp.sqrt(vx * vx + vy * vy)
    kept = MAX_SPEED / jnp.maximum(speed, MAX_SPEED)
    return vx * kept, vy * kept


def _turn(w: jax.Array) -> jax.Array:
    """f32[], how far the hull turns in a step at angular velocity `w`."""
    turn = DT * w
    return turn - LAG * turn * turn * turn


def _worth(roads: Roads, track: jax.Array, visited_count: jax.Array) -> jax.Array:
    """f32[], what visited tiles pay: 1000 for all of them."""
    count = roads.tracks.count.at[track].get(mode="promise_in_bounds")
    return visited_count.astype(jnp.float32) * (1000 / count.astype(jnp.float32))


def _visit(visited: jax.Array, contact: Contact) -> tuple[jax.Array, jax.Array]:
    """The bit set u32[WORDS] with the touched tiles added, and its size i32[]."""
    word, bit = contact.tile // 32, contact.tile % 32
    flag = contact.touch.astype(jnp.uint32) << bit.astype(jnp.uint32)
    slot = np.arange(WORDS, dtype=np.int32)
    for i in range(RUN):
        for wheel in range(4):
            here = slot == word[i, wheel]
            visited = visited | jnp.where(here, flag[i, wheel], np.uint32(0))
    return visited, lax.population_count(visited).sum(dtype=jnp.uint32).astype("int32")


def step(
    roads: Roads, state: State, steer: jax.Array, gas: jax.Array, brake: jax.Array
) -> tuple[State, Contact]:
    """One fiftieth of a second.

    Args:
      roads: the pool.
      state: the car.
      steer: f32[] in [-1, 1], wanted angle of the front wheels, positive to the left.
      gas: f32[] in [0, 1]; the throttle follows it up by at most 0.1 a step.
      brake: f32[] in [0, 1]; from 0.9 on the wheels lock.

    Returns:
      The car afterwards, and what its wheels touched when the step began.

    Source: Gymnasium 1.4 `car_dynamics.py` and Box2D 2.3's order of operations.
    """
    gas = jnp.minimum(gas, state.gas + 0.1)
    cos, sin = jnp.cos(state.angle), jnp.sin(state.angle)
    arm_x = cos * ANCHOR_X - sin * ARM_Y
    arm_y = sin * ANCHOR_X + cos * ARM_Y
    centre_x = state.x - sin * CENTRE_Y
    centre_y = state.y + cos * CENTRE_Y
    heading = state.angle + state.joint

    contact = contacts(roads, state.track, centre_x + arm_x, centre_y + arm_y, heading)
    visited, visited_count = _visit(state.visited, contact)

    # The last step joined the wheels with the arms of its beginning.
    turned = _turn(state.w)
    turned_cos, turned_sin = jnp.cos(turned), jnp.sin(turned)
    old_x = turned_cos * arm_x + turned_sin * arm_y
    old_y = turned_cos * arm_y - turned_sin * arm_x
    wheel_vx, wheel_vy = _limited(
        state.vx - state.w * old_y, state.vy + state.w * old_x
    )

    force_x, force_y, omega, phase = _tyres(
        state, heading, wheel_vx, wheel_vy, gas, brake
    )
    joint_speed, stop, joint = _steered(state, steer)

    # Momentum and angular momentum, about the hull's centre, of all five bodies.
    px = WHEEL_MASS * wheel_vx + DT * force_x
    py = WHEEL_MASS * wheel_vy + DT * force_y
    momentum_x = HULL_MASS * state.vx + px.sum()
    momentum_y = HULL_MASS * state.vy + py.sum()
    spin = (
        (HULL_INERTIA + 4 * WHEEL_INERTIA) * state.w
        + WHEEL_INERTIA * (state.joint_speed - joint_speed).sum()
        + (arm_x * py - arm_y * px).sum()
    )
    # All joints hold: wheel velocity = v + w x arm. `lever` is mass times summed arms.
    lever_x, lever_y = -sin * LEVER, cos * LEVER
    w = (spin - (lever_x * momentum_y - lever_y * momentum_x) / MASS) / INERTIA
    vx = (momentum_x + w * lever_y) / MASS
    vy = (momentum_y - w * lever_x) / MASS
    vx, vy = _limited(vx, vy)

    turn = _turn(w)
    angle = state.angle + turn
    # Positions move along tangents; pulling the wheels back in moves the hull out.
    pull = 0.5 * (DT * w) ** 2 / MASS
    centre_x = centre_x + DT * vx + pull * lever_x
    centre_y = centre_y + DT * vy + pull * lever_y
    moved = State(
        track=state.track,
        step=state.step + 1,
        x=centre_x + jnp.sin(angle) * CENTRE_Y,
        y=centre_y - jnp.cos(angle) * CENTRE_Y,
        angle=angle,
        vx=vx,
        vy=vy,
        w=w,
        joint=joint + (DT * w - turn),
        joint_speed=joint_speed,
        stop=stop,
        omega=omega,
        phase=phase,
        gas=gas,
        road=contact.touch.any(axis=0),
        visited=visited,
        visited_count=visited_count,
        score=_worth(roads, state.track, visited_count)
        - 0.1 * state.step.astype(jnp.float32),
    )
    return moved, contact


def _settled(
    x: jax.Array, y: jax.Array, angle: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pose (x, y, angle) of the hull's body origin after the joints have closed.

    Gymnasium puts the wheels of a new car where they belong at angle 0, whatever the
    angle of the hull. Box2D then closes one joint after the other, the last one
    first, sharing the way by mass; a few sweeps close all of them.
    """
    inverse, inverse_wheel = 1 / HULL_MASS, 1 / WHEEL_MASS
    wheel_x = [x + float(a) for a in ANCHOR_X]
    wheel_y = [y + float(a) for a in ANCHOR_Y]
    cx, cy = x - jnp.sin(angle) * CENTRE_Y, y + jnp.cos(angle) * CENTRE_Y
    for _ in range(SWEEPS):
        for i in reversed(range(4)):
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            ax, ay = float(ANCHOR_X[i]), float(ARM_Y[i])
            rx, ry = cos * ax - sin * ay, sin * ax + cos * ay
            gap_x, gap_y = wheel_x[i] - cx - rx, wheel_y[i] - cy - ry
            kxx = inverse + inverse_wheel + ry * ry / HULL_INERTIA
            kyy = inverse + inverse_wheel + rx * rx / HULL_INERTIA
            kxy = -rx * ry / HULL_INERTIA
            det = kxx * kyy - kxy * kxy
            px = -(kyy * gap_x - kxy * gap_y) / det
            py = -(kxx * gap_y - kxy * gap_x) / det
            cx, cy = cx - inverse * px, cy - inverse * py
            angle = angle - (rx * py - ry * px) / HULL_INERTIA
            wheel_x[i] = wheel_x[i] + inverse_wheel * px
            wheel_y[i] = wheel_y[i] + inverse_wheel * py
    return cx + jnp.sin(angle) * CENTRE_Y, cy - jnp.cos(angle) * CENTRE_Y, angle


def reset(roads: Roads, track: jax.Array) -> State:
    """A new car at the start of a track, after the step that Gymnasium's reset plays.

    Args:
      roads: the pool.
      track: i32[], index in it.
    """
    created, x, y = roads.tracks.start.at[track].get(mode="promise_in_bounds")
    contact = contacts(roads, track, x + ANCHOR_X, y + ANCHOR_Y, jnp.full(4, created))
    visited, visited_count = _visit(jnp.zeros(WORDS, jnp.uint32), contact)
    x, y, angle = _settled(x, y, created)
    zero, wheels = jnp.zeros((), jnp.float32), jnp.zeros(4, jnp.float32)
    return State(
        track=track,
        step=jnp.zeros((), jnp.int32),
        x=x,
        y=y,
        angle=angle,
        vx=zero,
        vy=zero,
        w=zero,
        joint=jnp.full(4, created - angle),
        joint_speed=wheels,
        stop=wheels,
        omega=wheels,
        phase=wheels,
        gas=zero,
        road=contact.touch.any(axis=0),
        visited=visited,
        visited_count=visited_count,
        score=_worth(roads, track, visited_count),
    )
