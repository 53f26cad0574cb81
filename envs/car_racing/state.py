"""The state of one car: everything that changes while it drives."""

from typing import NamedTuple

import jax


class State(NamedTuple):
    """One car on one track; arrays are scalars where no shape is given.

    Wheels are ordered front left, front right, rear left, rear right. World units and
    radians, angles counter-clockwise; a car at angle 0 looks along +y.

    Attributes:
      track: i32, index of the track in the pool.
      step: i32, actions taken. Gymnasium's clock reads `(step + 1) / 50` seconds when
        the frame of this state is drawn: its reset already plays one step.
      x, y, angle: f32, pose of the hull's body origin.
      vx, vy: f32, velocity of the hull's centre of mass, units per second.
      w: f32, angular velocity of the hull, radians per second.
      wheel_vx: f32[4], velocity of each wheel's centre, units per second.
      wheel_vy: f32[4].
      joint: f32[4], steering angle of each wheel against the hull.
      joint_speed: f32[4], its rate, radians per second.
      stop: f32[4], impulse with which the steering stop holds each wheel back, signed
        like the steering angle.
      omega: f32[4], spin of each wheel, radians per second.
      phase: f32[4], angle of that spin, not wrapped.
      gas: f32, throttle of the rear wheels in [0, 1].
      road: bool[4], the wheel touched a tile when the last step began.
      visited: u32[13], bit set of visited tiles, tile i is bit i % 32 of word i // 32.
      visited_count: i32, number of bits in it.
      ground: f32[6, 3], RGB in [0, 255] of each kind of ground, as `palette.GROUND`.
      score: f32, the sum of rewards that the frame of this state shows: without the
        -0.1 of the step that led to it.
    """

    track: jax.Array
    step: jax.Array
    x: jax.Array
    y: jax.Array
    angle: jax.Array
    vx: jax.Array
    vy: jax.Array
    w: jax.Array
    wheel_vx: jax.Array
    wheel_vy: jax.Array
    joint: jax.Array
    joint_speed: jax.Array
    stop: jax.Array
    omega: jax.Array
    phase: jax.Array
    gas: jax.Array
    road: jax.Array
    visited: jax.Array
    visited_count: jax.Array
    ground: jax.Array
    score: jax.Array
