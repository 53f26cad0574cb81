import jax
import numpy as np
import pytest

from envs.car_racing import track
from envs.car_racing.reference import Reference

SEEDS = [*range(8), 1000, 1031, 2000, 2099, 100_000, 2**31, 123_456_789_012]


def gymnasiums(seed):
    """(tiles, kerbs with None where there is none, start) of the original."""
    env = Reference()
    env.reset(seed=seed)
    tiles, kerbs = [], []
    for corners, color in env.road_poly:
        if isinstance(color, tuple):
            kerbs[-1] = (corners, color)
        else:
            tiles.append(corners)
            kerbs.append(None)
    return np.array(tiles), kerbs, np.array(env.track[0][1:4])


def assert_same(seed):
    tiles, kerbs, start = gymnasiums(seed)
    ours = track.generate(seed)
    count = len(tiles)
    assert ours.count == count
    # Both compute in float64; numpy's sine may differ from the C library's in the last
    # bit, which can survive the rounding to float32.
    np.testing.assert_allclose(ours.tiles[:count], tiles, rtol=1e-6)
    np.testing.assert_allclose(ours.start, start, rtol=1e-6)
    assert (ours.tiles[count:] == track.FAR).all()
    has_border = np.array([kerb is not None for kerb in kerbs])
    np.testing.assert_array_equal(ours.has_border[:count], has_border)
    assert not ours.has_border[count:].any()
    for i in np.flatnonzero(has_border):
        corners, color = kerbs[i]
        np.testing.assert_allclose(ours.borders[i], np.array(corners), rtol=1e-6)
        assert color == ((255, 255, 255) if i % 2 == 0 else (255, 0, 0))


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_gymnasiums_track(seed):
    assert_same(seed)


@pytest.mark.slow
def test_equals_gymnasiums_track_on_many_seeds():
    for seed in range(100, 400):
        assert_same(seed)


def test_some_seed_needs_a_second_attempt():
    retried = [s for s in range(100) if track.generate(s).attempts > 1]
    assert retried
    assert_same(retried[0])


def test_too_long_a_track_is_refused(monkeypatch):
    monkeypatch.setattr(track, "MAX_TILES", 200)
    with pytest.raises(ValueError, match=r"seed 0 gives a track of \d+ tiles"):
        track.generate(0)


def test_stack_keeps_every_track_and_closes_its_lines():
    seeds = [3, 1, 4]
    roads = track.stack(seeds)
    for i, seed in enumerate(seeds):
        alone = track.generate(seed)
        jax.tree.map(
            lambda pool, one, i=i: np.testing.assert_array_equal(pool[i], one),
            roads.tracks,
            alone,
        )
        count = int(alone.count)
        lines = roads.lines[i].reshape(-1, 2, 2)
        near_left, near_right = alone.tiles[:count, 0], alone.tiles[:count, 1]
        np.testing.assert_array_equal(lines[1 : count + 1, 0], near_left)
        np.testing.assert_array_equal(lines[1 : count + 1, 1], near_right)
        np.testing.assert_array_equal(lines[count : count + 4], lines[:4])
        assert (lines[count + 4 :] == track.FAR).all()
        assert (roads.lines[i, track.NOWHERE :] == track.FAR).all()
