"""The car's motion in reduced coordinates: hull pose and four steering angles.

Box2D moves five bodies and pulls them together with iterations. Here the joints hold
exactly: one solve gives the velocities that its iterations converge to.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.car_racing.car import (
    ANCHOR_X,
    ANCHOR_Y,
    ARM_Y,
    CENTRE_Y,
    DT,
    HULL_INERTIA,
    HULL_MASS,
    WHEEL_INERTIA,
    WHEEL_MASS,
    WHEEL_RADIUS,
)
from envs.car_racing.contacts import WORDS, Contact, contacts, visit
from envs.car_racing.state import State
from envs.car_racing.track import Roads

MASS = HULL_MASS + 4 * WHEEL_MASS
LEVER = float(WHEEL_MASS * ARM_Y.sum())
"""Mass times the summed arms of the wheels, along the car."""
ARMS = float((ANCHOR_X**2 + ARM_Y**2).sum())
"""Sum of the wheels' squared arms."""
INERTIA = HULL_INERTIA + 4 * WHEEL_INERTIA + WHEEL_MASS * ARMS - LEVER**2 / MASS
"""Of the whole car with its joints, about the hull's centre of mass."""
REAR = np.array([0, 0, 1, 1], np.float32)
FRONT = 1 - REAR
FIRST = np.array([1, 0, 0, 0], np.float32)

SPIN_INERTIA = 1.6
ENGINE_POWER = 40000.0
BRAKE_SPIN = 15.0
"""Spin that a full brake takes away in one step."""
GRIP = 400.0
"""Largest tyre force on the road; 0.6 of it on grass."""
TYRE_STIFFNESS = 82.0
MAX_SPEED = 2.0 / DT
"""Box2D moves no body further than 2 units in a step."""

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


class _Steering(NamedTuple):
    """What the steering motors do in a step, f32[4] each.

    Attributes:
      speed: of the joints.
      side: sign of the stop that a joint is at, 0 where it is free.
      held: impulse left in the stop, towards the middle, not yet within its bounds.
      most: bound of that impulse in a car that does not turn.
      limit: largest joint angle afterwards.
    """

    speed: jax.Array
    side: jax.Array
    held: jax.Array
    most: jax.Array
    limit: jax.Array


def _steered(state: State, steer: jax.Array) -> _Steering:
    """Motors and stops; a stop works from the angle at which a step begins.

    While the motor pushes on it, each of Box2D's iterations adds to the impulses of
    both, up to the motor's strength; turning back, they must first be used up at the
    same rate.
    """
    wanted = jnp.clip(
        MOTOR_GAIN * (steer * FRONT - state.joint), -MOTOR_SPEED, MOTOR_SPEED
    )
    side = jnp.where(jnp.abs(state.joint) >= STEER_STOP, jnp.sign(state.joint), 0.0)
    most = MOTOR_IMPULSE + WHEEL_INERTIA * side * state.joint_speed
    pushed = side * wanted
    first = jnp.minimum(state.stop * side + JOINT_INERTIA * pushed, most)
    held = first + (ITERATIONS - 1) * JOINT_INERTIA * pushed
    # What the last iteration has left of its push when the impulse is used up.
    freed = jnp.clip(held / JOINT_INERTIA, jnp.minimum(pushed, 0.0), 0.0)
    return _Steering(
        speed=jnp.where(side == 0, wanted, side * freed),
        side=side,
        held=held,
        most=most,
        limit=jnp.where(side == 0, np.inf, STEER_STOP + STEER_SLOP),
    )


def _spin(state: State, gas: jax.Array, brake: jax.Array) -> jax.Array:
    """f32[4], spin of the wheels after engine and brake, before the road's pull."""
    power = DT * ENGINE_POWER / SPIN_INERTIA * gas * REAR
    omega = state.omega + power / (jnp.abs(state.omega) + 5.0)
    slowed = jnp.maximum(jnp.abs(omega) - BRAKE_SPIN * brake, 0.0)
    return jnp.where(brake >= 0.9, 0.0, jnp.sign(omega) * slowed)


def _tyres(
    state: State, heading: jax.Array, gas: jax.Array, brake: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(force x, force y, spin, phase), each f32[4]."""
    vx, vy = state.wheel_vx, state.wheel_vy
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


def _worth(roads: Roads, track: jax.Array, visited_count: jax.Array) -> jax.Array:
    """f32[], what visited tiles pay: 1000 for all of them."""
    count = roads.tracks.count.at[track].get(mode="promise_in_bounds")
    return visited_count.astype(jnp.float32) * (1000 / count.astype(jnp.float32))


class _Motion(NamedTuple):
    """Velocities after a step: of the hull's centre of mass, and of the wheels."""

    vx: jax.Array
    vy: jax.Array
    w: jax.Array
    wheel_vx: jax.Array
    wheel_vy: jax.Array


def _solved(
    state: State,
    arm_x: jax.Array,
    arm_y: jax.Array,
    lever_x: jax.Array,
    lever_y: jax.Array,
    force_x: jax.Array,
    force_y: jax.Array,
    joint_speed: jax.Array,
) -> _Motion:
    """The motion in which all joints hold: wheel velocity = v + w x arm.

    What the tyres' impulses, and wheels that do not move with the hull, add to momentum
    and angular momentum about the hull's centre fixes how v and w change. The sums
    themselves would do, but their rounding is a drift of 3e-8 of the speed a step.
    """
    px = DT * force_x + WHEEL_MASS * (state.wheel_vx - state.vx + state.w * arm_y)
    py = DT * force_y + WHEEL_MASS * (state.wheel_vy - state.vy - state.w * arm_x)
    push_x, push_y = px.sum(), py.sum()
    torque = (
        WHEEL_INERTIA * (state.joint_speed - joint_speed) + arm_x * py - arm_y * px
    ).sum()
    faster = (torque - (lever_x * push_y - lever_y * push_x) / MASS) / INERTIA
    vx = state.vx + (push_x + faster * lever_y) / MASS
    vy = state.vy + (push_y - faster * lever_x) / MASS
    w = state.w + faster
    wheel_vx, wheel_vy = _limited(vx - w * arm_y, vy + w * arm_x)
    return _Motion(*_limited(vx, vy), w, wheel_vx, wheel_vy)


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
    cos, sin = jnp.cos(state.angle), jnp.sin(state.angle)
    arm_x, arm_y = cos * ANCHOR_X - sin * ARM_Y, sin * ANCHOR_X + cos * ARM_Y
    lever_x, lever_y = -sin * LEVER, cos * LEVER
    heading = state.angle + state.joint
    wheel_x = state.x - sin * CENTRE_Y + arm_x
    wheel_y = state.y + cos * CENTRE_Y + arm_y
    contact = contacts(roads, state.track, wheel_x, wheel_y, heading)
    visited, visited_count = visit(state.visited, contact)

    gas = jnp.minimum(gas, state.gas + 0.1)
    force_x, force_y, omega, phase = _tyres(state, heading, gas, brake)
    steering = _steered(state, steer)
    motion = _solved(
        state, arm_x, arm_y, lever_x, lever_y, force_x, force_y, steering.speed
    )

    # The stop also makes its wheel turn with the hull.
    most = steering.most - WHEEL_INERTIA * steering.side * (motion.w - state.w)

    # Bodies move along tangents; closing the joints then pulls wheels and hull towards
    # each other by their masses, and turns the hull.
    off_x = DT * (motion.wheel_vx - motion.vx)
    off_y = DT * (motion.wheel_vy - motion.vy)
    turn = DT * motion.w
    swing = jnp.cos(turn) * (arm_x * off_y - arm_y * off_x).sum() - jnp.sin(turn) * (
        ARMS + (arm_x * off_x + arm_y * off_y).sum()
    )
    pulled = WHEEL_MASS / (HULL_INERTIA + WHEEL_MASS * ARMS) * swing
    joint = state.joint + (DT * steering.speed - pulled)
    stopped = jnp.clip(joint, -steering.limit, steering.limit)
    # Pulling wheels back to their stop turns the hull the other way.
    turned = JOINT_INERTIA / HULL_INERTIA * (joint - stopped)
    back = turned.sum()
    # The last joint is closed first: only what those before it do turns a wheel again.
    again = turned[0] * (1 - FIRST) + turned[1] * REAR
    angle = state.angle + (turn + pulled + back)
    new_cos, new_sin = jnp.cos(angle), jnp.sin(angle)
    pull_x = (WHEEL_MASS * off_x.sum() + LEVER * (new_sin - sin)) / MASS
    pull_y = (WHEEL_MASS * off_y.sum() - LEVER * (new_cos - cos)) / MASS

    moved = State(
        track=state.track,
        step=state.step + 1,
        # In one sum, as every rounding at coordinates of 200 costs 1e-5.
        x=state.x + (DT * motion.vx + pull_x + CENTRE_Y * (new_sin - sin)),
        y=state.y + (DT * motion.vy + pull_y - CENTRE_Y * (new_cos - cos)),
        angle=angle,
        vx=motion.vx,
        vy=motion.vy,
        w=motion.w,
        wheel_vx=motion.wheel_vx,
        wheel_vy=motion.wheel_vy,
        joint=stopped - again,
        joint_speed=steering.speed,
        stop=steering.side * jnp.clip(steering.held, 0.0, most),
        omega=omega,
        phase=phase,
        gas=gas,
        road=contact.touch.any(axis=0),
        visited=visited,
        visited_count=visited_count,
        ground=state.ground,
        score=_worth(roads, state.track, visited_count)
        - 0.1 * state.step.astype(jnp.float32),
    )
    return moved, contact


def reset(roads: Roads, track: jax.Array) -> State:
    """A new car at the start of a track, after the step that Gymnasium's reset plays.

    Args:
      roads: the pool.
      track: i32[], index in it.
    """
    # The wheels are created as if the hull stood at angle 0, and touch tiles there.
    created, x, y = roads.tracks.start.at[track].get(mode="promise_in_bounds")
    contact = contacts(roads, track, x + ANCHOR_X, y + ANCHOR_Y, jnp.full(4, created))
    visited, visited_count = visit(jnp.zeros(WORDS, jnp.uint32), contact)
    angle, x, y = roads.parked.at[track].get(mode="promise_in_bounds")
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
        wheel_vx=wheels,
        wheel_vy=wheels,
        joint=jnp.full(4, created - angle),
        joint_speed=wheels,
        stop=wheels,
        omega=wheels,
        phase=wheels,
        gas=zero,
        road=contact.touch.any(axis=0),
        visited=visited,
        visited_count=visited_count,
        ground=roads.tracks.ground.at[track].get(mode="promise_in_bounds"),
        score=_worth(roads, track, visited_count),
    )
