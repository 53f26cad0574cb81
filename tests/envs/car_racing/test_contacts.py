import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.car_racing import car, contacts, track

touched = jax.jit(jax.vmap(contacts.contacts, (None, None, 0, 0, 0)))


def gaps(tiles, x, y, angle):
    """f64[n], by how much the best axis of a wheel or tile parts the two."""
    side = np.array([np.cos(angle), np.sin(angle)])
    forward = np.array([-side[1], side[0]])
    half = np.outer([1, 1, -1, -1], side * car.WHEEL_HALF_WIDTH)
    half += np.outer([1, -1, -1, 1], forward * car.WHEEL_RADIUS)
    box = np.array([x, y]) + half
    edges = np.roll(tiles, -1, axis=1) - tiles
    normals = np.stack([edges[..., 1], -edges[..., 0]], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    own = np.broadcast_to([side, forward], (len(tiles), 2, 2))
    axes = np.concatenate([normals, own], axis=1)
    tile = np.einsum("nkc,nac->nak", tiles, axes)
    wheel = np.einsum("kc,nac->nak", box, axes)
    above = tile.min(axis=2) - wheel.max(axis=2)
    below = wheel.min(axis=2) - tile.max(axis=2)
    return np.maximum(above, below).max(axis=1)


# 42 and 236 have hairpins whose inner corners leave gaps in a cell's run of tiles.
@pytest.mark.parametrize("seed", [0, 42, 236])
def test_contacts_are_those_of_all_tiles(seed):
    """The map of candidates hides no tile, wherever on or beside the road."""
    roads = track.stack([seed])
    count = int(roads.tracks.count[0])
    tiles = roads.tracks.tiles[0, :count].astype(np.float64)
    rng = np.random.default_rng(seed)
    n = 200
    weights = rng.dirichlet(np.full(4, 0.3), 4 * n)
    places = np.einsum("nk,nkc->nc", weights, tiles[rng.integers(count, size=4 * n)])
    x, y = (places + rng.normal(0, 0.5, places.shape)).T.reshape(2, n, 4)
    angle = rng.uniform(-4, 4, (n, 4))
    contact = jax.device_get(touched(roads, jnp.int32(0), *np.float32((x, y, angle))))
    found = np.zeros((n, 4, track.NOWHERE + track.RUN), bool)
    at, run, wheel = np.nonzero(contact.touch)
    found[at, wheel, contact.tile[at, run, wheel]] = True
    assert found.any(axis=2).mean() > 0.5
    assert not found[..., count:].any()
    for i in range(n):
        for w in range(4):
            gap = gaps(tiles, x[i, w], y[i, w], angle[i, w])
            # Float32 at coordinates of 250 cannot tell what is nearer than this.
            undecided = np.abs(gap - contacts.SKIN) < 1e-3
            expected = gap < contacts.SKIN
            assert ((found[i, w, :count] == expected) | undecided).all()


def test_nothing_is_touched_far_from_the_road():
    at = np.full((3, 4), [[0.0], [300.0], [-400.0]], np.float32)
    contact = touched(track.stack([0]), jnp.int32(0), at, at, at)
    assert not contact.touch.any()


def test_visits_are_counted_once():
    tile = jnp.array([[0, 31, 32, 415], [1, 32, 33, 416], [2, 33, 34, 417]], jnp.int32)
    touch = jnp.array([[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    tile = jnp.concatenate([tile, tile[:1]])
    touch = jnp.concatenate([touch, touch[:1]])
    visited = jnp.zeros(contacts.WORDS, jnp.uint32).at[0].set(1 | 1 << 7)
    visited, count = jax.jit(contacts.visit)(visited, contacts.Contact(tile, touch))
    bits = np.unpackbits(np.asarray(visited).view(np.uint8), bitorder="little")
    np.testing.assert_array_equal(np.flatnonzero(bits), [0, 7, 31, 32, 415])
    assert count == 5
