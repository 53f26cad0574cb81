"""The car's measures, and how a new car comes to rest; numpy only."""

import math

import numpy as np

FPS = 50
DT = 1 / FPS

HULL_MASS, HULL_INERTIA = 7.06, 18.2122764
"""Mass and inertia about the centre of mass of the hull."""
CENTRE_Y = -0.0825309
"""The hull's centre of mass lies at (0, CENTRE_Y) from its body origin."""
WHEEL_MASS, WHEEL_INERTIA = 0.06048, 0.0074592
WHEEL_HALF_WIDTH, WHEEL_RADIUS = 0.28, 0.54
ANCHOR_X = np.array([-1.1, 1.1, -1.1, 1.1], np.float32)
ANCHOR_Y = np.array([1.6, 1.6, -1.64, -1.64], np.float32)
"""Wheel centres in the hull's frame, from the body origin."""
ARM_Y = ANCHOR_Y - np.float32(CENTRE_Y)
"""The same from the centre of mass."""


def settled(angle: float, x: float, y: float) -> tuple[float, float, float]:
    """Angle and place of a new car's hull after its joints have closed.

    Gymnasium puts the wheels where they belong at angle 0, whatever the hull's angle.
    In its reset's step Box2D closes one joint after the other, the last one first,
    sharing the way by mass, until no gap is left.

    Args:
      angle: with which the hull is created, radians.
      x: of its body origin, world units.
      y: likewise.
    """
    wheels = [np.array([x + a, y + b]) for a, b in zip(ANCHOR_X, ANCHOR_Y, strict=True)]
    centre = np.array([x - math.sin(angle) * CENTRE_Y, y + math.cos(angle) * CENTRE_Y])
    for _ in range(10):
        for i in reversed(range(4)):
            cos, sin = math.cos(angle), math.sin(angle)
            arm = np.array([[cos, -sin], [sin, cos]]) @ (ANCHOR_X[i], ARM_Y[i])
            across = np.array([-arm[1], arm[0]])
            give = np.eye(2) * (1 / HULL_MASS + 1 / WHEEL_MASS)
            give += np.outer(across, across) / HULL_INERTIA
            impulse = np.linalg.solve(give, wheels[i] - centre - arm)
            centre = centre + impulse / HULL_MASS
            angle += float(across @ impulse) / HULL_INERTIA
            wheels[i] = wheels[i] - impulse / WHEEL_MASS
    x = centre[0] + math.sin(angle) * CENTRE_Y
    y = centre[1] - math.cos(angle) * CENTRE_Y
    return angle, float(x), float(y)
