import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.car_racing import driver, physics, track
from envs.car_racing.driver import Motion, drive
from envs.car_racing.reference import Reference
from envs.car_racing.track import FAR, HALF_WIDTH, ROWS, Roads

LEVELS = range(100_000, 100_006)
drive_one = jax.jit(drive)


@pytest.fixture(scope="module")
def roads():
    return jax.tree.map(jnp.asarray, track.stack(LEVELS))


@pytest.fixture(scope="module")
def laps(roads):
    """(states [T, B], actions [T, B, 3]) of 1,000 steps on each of the tracks."""

    def step(states, _):
        actions = jax.vmap(drive, (None, 0))(roads, states)
        steer, gas, brake = actions.T
        moved, _ = jax.vmap(physics.step, (None, 0, 0, 0, 0))(
            roads, states, -steer, gas, brake
        )
        return moved, (states, actions)

    @jax.jit
    def play():
        start = jax.vmap(physics.reset, (None, 0))(roads, jnp.arange(len(LEVELS)))
        return jax.lax.scan(step, start, None, 1000)[1]

    return jax.device_get(play())


def test_it_visits_all_of_every_track_well_within_the_time(laps, roads):
    states, _ = laps
    done = states.visited_count == np.asarray(roads.tracks.count)
    assert done[-1].all()
    # 1000 for the tiles, less 0.1 a frame.
    assert (1000 - 0.1 * done.argmax(axis=0)).mean() > 900


def test_its_actions_are_within_bounds(laps):
    _, actions = laps
    assert (actions >= [-1, 0, 0]).all() and (actions <= 1).all()


def test_it_never_uses_both_pedals(laps):
    _, actions = laps
    assert not ((actions[..., 1] > 0) & (actions[..., 2] > 0)).any()


def test_alone_and_of_gymnasiums_measures_it_does_the_same(laps, roads):
    states, actions = laps
    for t, i in ((0, 0), (300, 1), (301, 5)):
        state = jax.tree.map(lambda leaf, t=t, i=i: leaf[t, i], states)
        car = Motion(*(getattr(state, field) for field in Motion._fields))
        # Sums over 52 lines may be rounded in another order.
        np.testing.assert_allclose(
            drive_one(roads, state), actions[t, i], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_array_equal(drive_one(roads, state), drive_one(roads, car))


def test_it_drives_gymnasiums_own_car():
    env = Reference()
    env.reset(seed=LEVELS[0])
    roads = jax.tree.map(jnp.asarray, track.stack(LEVELS[:1]))
    total, over = 0.0, False
    while not over:
        hull = env.car.hull
        pose = *hull.position, hull.angle, *hull.linearVelocity, hull.angularVelocity
        car = Motion(jnp.int32(0), *map(jnp.float32, pose))
        _, reward, over, _, _ = env.step(np.asarray(drive_one(roads, car)))
        total += reward
        assert env.t < 20, "the lap should be over long before"
    env.close()
    assert total > 880


# --- on roads made for the purpose --------------------------------------------------


def road_of(x, y):
    """A pool of one closed track whose centre line runs through these points."""
    ahead_x, ahead_y = (np.roll(v, -1) - np.roll(v, 1) for v in (x, y))
    length = np.hypot(ahead_x, ahead_y) / HALF_WIDTH
    right_x, right_y = ahead_y / length, -ahead_x / length
    lines = np.full((1, ROWS, 4), FAR, "f4")
    rows = np.stack([x - right_x, y - right_y, x + right_x, y + right_y], axis=1)
    lines[0, : len(x)] = rows
    tracks = track.stack([0]).tracks._replace(count=np.array([len(x)], "i4"))
    made = Roads(tracks, np.zeros((1, 3), "f4"), lines, np.zeros((1, 1), "u2"))
    return jax.tree.map(jnp.asarray, made)


def car(x, y, angle, speed):
    velocity = -speed * np.sin(angle), speed * np.cos(angle)
    return Motion(jnp.int32(0), *map(jnp.float32, (x, y, angle, *velocity, 0.0)))


def test_at_a_crossing_it_goes_straight_on_whichever_way_it_comes():
    """A figure of eight, whose two ways cross at the origin at a right angle."""
    t = np.linspace(0, 2 * np.pi, 300, endpoint=False) + 0.004
    roads = road_of(110 * np.sin(t), 55 * np.sin(2 * t))
    for angle in (-np.pi / 4, np.pi / 4):
        for off in (-1.0, 0.0, 1.0):
            steer, _, brake = drive_one(roads, car(off, 0.0, angle, 30.0))
            # It steers back towards its line, a unit away at most.
            assert abs(steer) < 0.2
            assert brake == 0


@pytest.fixture
def oval():
    """Straight for 200 units along +y at x = 100, then a half turn to the left."""
    bend = np.linspace(0, np.pi, 28)
    up = np.arange(-100, 100, 3.5)
    x = np.concatenate(
        [np.full(len(up), 30.0), 30 * np.cos(bend), np.full(len(up), -30.0)]
    )
    x = np.concatenate([x, -30 * np.cos(bend)])
    y = np.concatenate([up, 100 + 30 * np.sin(bend), -up, -100 - 30 * np.sin(bend)])
    return road_of(x, y)


def test_it_speeds_up_on_the_straight_and_brakes_for_the_bend(oval):
    _, gas, brake = drive_one(oval, car(30.0, -80.0, 0.0, 50.0))
    assert gas > 0 and brake == 0
    limit = np.sqrt(driver.CORNERING * 30)
    _, gas, brake = drive_one(oval, car(30.0, 95.0, 0.0, 1.5 * limit))
    assert gas == 0 and brake > 0


@pytest.mark.parametrize("side", [-1, 1])
def test_it_steers_back_to_the_road(oval, side):
    steer, _, _ = drive_one(oval, car(30.0 + 5 * side, -50.0, 0.0, 20.0))
    assert side * steer < -0.05
    steer, _, _ = drive_one(oval, car(30.0, -50.0, 0.4 * side, 20.0))
    assert side * steer > 0.05


def test_it_turns_into_the_bend(oval):
    steer, _, _ = drive_one(oval, car(30.0, 100.0, 0.0, 20.0))
    assert steer < -0.05
