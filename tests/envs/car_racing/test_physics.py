import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.car_racing import physics, track
from tests.envs.car_racing.driver import record, wild

POSES = jax.jit(physics.reset)


@jax.jit
def rolled(roads, actions):
    """The states after each of the actions [T, 3], on the pool's first track."""

    def body(state, action):
        steer, gas, brake = action
        state, _ = physics.step(roads, state, -steer, gas, brake)
        return state, state

    return jax.lax.scan(body, physics.reset(roads, jnp.int32(0)), actions)[1]


def replay(seed, recording, steps=1000):
    """States after each recorded action; the actions are padded so as to trace once."""
    actions = np.zeros((steps, 3), np.float32)
    actions[: len(recording.actions)] = recording.actions
    states = jax.device_get(rolled(track.stack([seed]), actions))
    return jax.tree.map(lambda a: a[: len(recording.actions)], states)


def distance(states, recording):
    x, y, _ = recording.poses[1:].T
    return np.hypot(states.x - x, states.y - y)


def assert_replayed(seed, recording, tolerance):
    states = replay(seed, recording)
    assert distance(states, recording).max() < tolerance
    assert np.abs(states.angle - recording.poses[1:, 2]).max() < tolerance
    assert np.abs(states.joint - recording.joints[1:]).max() < tolerance
    np.testing.assert_array_equal(states.visited_count, recording.visited[1:])
    # The sum of rewards, in float32: a unit in the last place of 1000 is 6e-5.
    np.testing.assert_allclose(states.score, recording.scores[1:], atol=1e-3)


@pytest.mark.parametrize("seed", [0, 11, 1114, 2000])
def test_a_new_car_stands_where_gymnasiums_does(seed):
    recording = record(seed, 0)
    state = jax.device_get(POSES(track.stack([seed]), jnp.int32(0)))
    # A few roundings at coordinates around 250 and in the wheels' angles.
    np.testing.assert_allclose(
        [state.x, state.y, state.angle], recording.poses[0], atol=5e-5
    )
    np.testing.assert_allclose(state.joint, recording.joints[0], atol=1e-6)
    assert state.visited_count == recording.visited[0]
    np.testing.assert_allclose(state.score, recording.scores[0], atol=1e-5)


# Float32 against Box2D's: over 32 seeds and 1,000 steps the largest distance was 0.01,
# so a tolerance of 0.1 leaves room for another compiler's rounding.
@pytest.mark.parametrize("seed", [1, 2, 1000, 2000])
def test_a_drive_replays_as_in_gymnasium(seed):
    assert_replayed(seed, record(seed, 1000), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1032))
def test_many_drives_replay_as_in_gymnasium(seed):
    assert_replayed(seed, record(seed, 1000), 0.1)


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_wild_driving_replays_as_in_gymnasium(seed):
    act = wild(np.random.default_rng(seed))
    assert_replayed(seed, record(seed, 200, act), 0.05)


def test_random_actions_replay_as_in_gymnasium():
    rng = np.random.default_rng(0)

    def act(step):
        return rng.uniform((-1, 0, 0), 1).astype(np.float32)

    assert_replayed(7, record(7, 200, act), 0.05)


@pytest.mark.parametrize("side", [-1, 1])
def test_the_steering_stop_holds_and_lets_go_as_in_box2d(side):
    """Targets just beyond and just before the stop wind its impulse up and down."""
    targets = side * np.array([1, 0.39, 0.41, 0.38, 0.399, 0.42, 0.3, -1, 0.405])

    def act(step):
        return np.array([targets[step // 5 % 9], 0.3, 0], np.float32)

    recording = record(1, 300, act)
    assert np.abs(recording.joints).max() > 0.43  # It has been pushed into the stop.
    states = replay(1, recording)
    # Angles are sums of some hundred float32 roundings.
    np.testing.assert_allclose(states.joint, recording.joints[1:], atol=1e-4)
    assert distance(states, recording).max() < 0.05


def test_speed_ends_where_box2d_ends_it():
    def act(step):
        return np.array([0, 1, 0], np.float32)

    recording = record(1, 250, act)
    states = replay(1, recording)
    speed = np.hypot(states.vx, states.vy)
    np.testing.assert_allclose(speed.max(), physics.MAX_SPEED, rtol=1e-6)
    assert distance(states, recording).max() < 0.05


def touching(tiles, x, y, angle, slack):
    """bool[n]: the wheel, grown by `slack`, overlaps each tile: all axes of both."""
    side = np.array([np.cos(angle), np.sin(angle)])
    forward = np.array([-side[1], side[0]])
    half = np.outer([1, 1, -1, -1], side * physics.WHEEL_HALF_WIDTH)
    half += np.outer([1, -1, -1, 1], forward * physics.WHEEL_RADIUS)
    box = np.array([x, y]) + half
    edges = np.roll(tiles, -1, axis=1) - tiles
    normals = np.stack([edges[..., 1], -edges[..., 0]], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    axes = [normals[:, k] for k in range(4)]
    axes += [np.broadcast_to(axis, (len(tiles), 2)) for axis in (side, forward)]
    overlap = np.ones(len(tiles), bool)
    for axis in axes:
        tile = np.einsum("nkc,nc->nk", tiles, axis)
        wheel = np.einsum("kc,nc->nk", box, axis)
        overlap &= tile.min(1) <= wheel.max(1) + slack
        overlap &= tile.max(1) >= wheel.min(1) - slack
    return overlap


@pytest.mark.parametrize("seed", [0, 6, 354])
def test_contacts_are_those_of_all_tiles(seed):
    """The map of candidates hides no tile, wherever a wheel is on or beside the road."""
    roads = track.stack([seed])
    count = int(roads.tracks.count[0])
    tiles = roads.tracks.tiles[0, :count].astype(np.float64)
    rng = np.random.default_rng(seed)
    n = 2000
    weights = rng.dirichlet(np.full(4, 0.5), 4 * n)
    on = np.einsum("nk,nkc->nc", weights, tiles[rng.integers(count, size=4 * n)])
    x, y = (on + rng.normal(0, 0.5, on.shape)).T.reshape(2, n, 4)
    angle = rng.uniform(-4, 4, (n, 4))
    contact = jax.jit(jax.vmap(physics.contacts, (None, None, 0, 0, 0)))(
        roads, jnp.int32(0), *np.float32((x, y, angle))
    )
    found = np.zeros((n, 4, track.MAX_TILES + 2 * track.RUN), bool)
    at, run, wheel = np.nonzero(contact.touch)
    found[at, wheel, np.asarray(contact.tile)[at, run, wheel]] = True
    assert not found[..., count:].any()
    for i in range(n):
        for w in range(4):
            place = (tiles, x[i, w], y[i, w], angle[i, w])
            # Float32 cannot tell at coordinates of 250 what is nearer than this.
            surely = touching(*place, physics.SKIN - 1e-3)
            maybe = touching(*place, physics.SKIN + 1e-3)
            assert (found[i, w, :count] >= surely).all()
            assert (found[i, w, :count] <= maybe).all()


def test_nothing_is_touched_far_from_the_road():
    roads = track.stack([0])
    for where in (0.0, 300.0, -400.0):
        at = jnp.full(4, where)
        contact = physics.contacts(roads, jnp.int32(0), at, at, at)
        assert not contact.touch.any()
