import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.car_racing import (
    camera,
    colour_map,
    draw,
    instruments,
    palette,
    score,
    sprite,
    tint,
    track,
)
from tests.envs.car_racing.frames import DRIVE, ZOOM, apart, recorded, state_at


@functools.cache
def ground(domain_randomize=False):
    tracks = recorded(domain_randomize).tracks
    return colour_map.stack([colour_map.rasterise(t) for t in tracks])


@functools.cache
def canvas(size=96):
    return draw.canvas(ground(), size)


@functools.cache
def observer():
    """One world's `observe`, compiled once."""
    return jax.jit(draw.observe)


def picture(state):
    return np.array(observer()(canvas(), state))


@functools.cache
def drawn(size=96, color="rgb"):
    observe = functools.partial(draw.observe, size=size, color=color)
    batch = jax.jit(jax.vmap(observe, (None, 0)))
    return np.asarray(batch(canvas(size), recorded().states))


def test_looks_as_gymnasium_does():
    # The bars of the project's parity issue; every frame has to pass them.
    mean, near = apart(drawn(), recorded().images)
    zooming = recorded().states.step < ZOOM[-1] + 1
    assert zooming.sum() == 3 * len(ZOOM) and (~zooming).sum() == 3 * len(DRIVE)
    assert mean.max() < 1.0
    assert near[zooming].min() >= 0.97
    assert near[~zooming].min() >= 0.98


def test_randomised_colours_look_as_gymnasiums():
    frames = recorded(domain_randomize=True)
    first = frames.states.ground[:: len(ZOOM + DRIVE)]
    np.testing.assert_array_equal([t.ground for t in frames.tracks], first)
    pool = draw.canvas(ground(domain_randomize=True))
    images = jax.jit(jax.vmap(draw.observe, (None, 0)))(pool, frames.states)
    mean, near = apart(np.asarray(images), frames.images)
    # As for the usual colours: how colours blend does not depend on what they are.
    assert mean.max() < 1.0
    assert near.min() >= 0.97


def test_instruments_look_as_gymnasiums():
    strip = np.s_[:, camera.road_rows(96) :]
    mean, near = apart(drawn()[strip], recorded().images[strip])
    # 1,152 pixels: an edge that lies between two pixels may differ, a missing bar, a
    # wrong digit or a bar of another colour covers at least ten pixels.
    assert near.min() > 1 - 10 / 1152
    assert mean.max() < 0.5


def tints(image):
    """Pixels of road above the strip whose grey is nearest to each tint."""
    road = image[: camera.road_rows(96)]
    grey = road[(road == road[:, :, :1]).all(-1)][:, 0]
    grey = grey[(grey > 98) & (grey < 108)].astype(int)
    nearest = np.abs(grey[:, None] - 100 - np.array(palette.TINT)).argmin(1)
    return np.bincount(nearest, minlength=3)


def test_visited_tiles_lose_their_tint():
    states = recorded().states
    for i in np.flatnonzero(states.step >= DRIVE[1]):
        state = state_at(recorded(), int(i))
        expected = tints(recorded().images[i])
        # Only pixels on a border of two tiles may be taken for either; one unvisited
        # tile too many or too few is about a tenth of the road in view.
        few = 0.05 * expected.sum()
        np.testing.assert_allclose(tints(drawn()[i]), expected, atol=few)
    fresh = tints(picture(state._replace(visited=np.zeros_like(state.visited))))
    assert state.visited.any()
    assert fresh[0] < expected[0] - 200


def test_gray_is_opencvs_luma_of_the_rgb_picture():
    expected = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in drawn()]
    np.testing.assert_array_equal(drawn(color="gray")[..., 0], expected)


@pytest.mark.parametrize("size", [48, 84, 160])
def test_other_sizes_show_the_same_view(size):
    images = drawn(size)
    assert images.shape[1:] == (size, size, 3)
    small = min(size, 48)
    a, b = (
        np.stack(
            [cv2.resize(i, (small, small), interpolation=cv2.INTER_AREA) for i in batch]
        )
        for batch in (images, recorded().images)
    )
    mean, _ = apart(a, b)
    # Moved by one pixel of 48 in any direction, the worst frame differs by over 7.
    assert mean.max() < 2.0


def test_black_far_outside_the_field():
    state = state_at(recorded(), len(ZOOM))
    state = state._replace(x=np.float32(1e9), y=np.float32(-3e4))
    image = picture(state)
    rows, columns = sprite.window(96)
    image[rows, columns] = 0
    assert not image[:84].any()


def test_one_world_equals_its_row_in_a_batch():
    for i in (0, 20):
        np.testing.assert_array_equal(picture(state_at(recorded(), i)), drawn()[i])


def test_pools_of_equal_number_share_shapes():
    tracks = [track.generate(seed) for seed in range(40, 46)]
    maps = [colour_map.rasterise(t) for t in tracks]
    a, b = colour_map.stack(maps[:3]), colour_map.stack(maps[3:])
    assert [x.shape for x in a] == [x.shape for x in b]


def test_color_that_cannot_be():
    with pytest.raises(ValueError, match=r"'bgr'.*rgb.*gray"):
        draw.observe(canvas(), state_at(recorded(), 0), color="bgr")


def test_canvas_of_another_size():
    with pytest.raises(ValueError, match=r"size is 48"):
        draw.observe(canvas(), state_at(recorded(), 0), size=48)


def code(**counts):
    """The code of a mixture of samples."""
    labels = [getattr(palette, kind) for kind in counts]
    assert sum(counts.values()) == palette.SAMPLES
    weights = palette.sample_weights()[labels]
    return palette.code_of_counts()[(weights * list(counts.values())).sum()]


def test_mixtures_are_shares_and_the_nearest_is_chosen():
    table = palette.mixtures()
    np.testing.assert_allclose(table[table.any(1)].sum(1), 1, rtol=1e-6)
    share = table[code(ROAD=5, DARK=11)]
    np.testing.assert_allclose(share, [0, 11 / 16, 0, 5 / 16, 0, 0])
    share = table[code(WHITE=4, ROAD=12)]
    np.testing.assert_allclose(share, [0, 0, 0, 0.75, 0.25, 0])
    # 3 samples of 16 are no step of the white-red blend; 2 and 4 are equally near.
    assert table[code(WHITE=3, RED=13)][palette.WHITE] in (1 / 8, 2 / 8)
    assert code(BLACK=16) == 0
    assert code(ROAD=16) == palette.ROAD_CODE


@pytest.mark.parametrize(
    "kinds", ["ROAD DARK LIGHT", "WHITE RED DARK", "RED ROAD LIGHT"]
)
def test_codes_keep_colours(kinds):
    kinds = kinds.split()
    counts = np.random.default_rng(0).multinomial(palette.SAMPLES, np.ones(3) / 3, 100)
    codes = [code(**dict(zip(kinds, map(int, n), strict=True))) for n in counts]
    ground = palette.GROUND[[getattr(palette, kind) for kind in kinds]]
    error = palette.mixtures()[codes] @ palette.GROUND - counts @ ground / 16
    # Blends of three are cut into sixths: a share is off by at most a twelfth where
    # the others make up for it, and no two colours differ by more than 255.
    assert np.linalg.norm(error, axis=1).max() <= 255 / 12 * np.sqrt(2)


def test_tiles_of_codes_are_the_nearest_along_the_lap():
    for count in (224, 288, 299, 389):
        period = int(tint.PERIODS[count])
        assert period <= palette.ROAD_CODES
        for near in (0, 5, 150, count - 9, count - 1):
            tiles = np.asarray(tint.tiles_of_codes(jnp.int32(near), jnp.int32(count)))
            # The view reaches less than 15 tiles of 3.5 units.
            around = (near + np.arange(-16, 17)) % count
            np.testing.assert_array_equal(tiles[around % period], around)


def test_wheel_patch_follows_gymnasiums_rule():
    def rule(phase):
        """car_dynamics.py, Car.draw."""
        s1, s2 = np.sin(phase), np.sin(phase + 1.2)
        c1, c2 = np.cos(phase), np.cos(phase + 1.2)
        if s1 > 0 and s2 > 0:
            return None
        return (np.sign(c1) if s1 > 0 else c1), (np.sign(c2) if s2 > 0 else c2)

    phases = np.linspace(0.05, 12, 40).astype("f4").reshape(-1, 4)
    for four in phases:
        low, high = map(np.asarray, sprite.patches(jnp.asarray(four)))
        for i, phase in enumerate(four):
            if (ends := rule(phase)) is None:
                assert low[i] == high[i]
            else:
                np.testing.assert_allclose((low[i], high[i]), sorted(ends), atol=1e-5)


def test_bars_end_where_gymnasiums_do():
    readings = jnp.asarray([40.0, 90.0, -3.0, 5e-5, 200.0, -0.2, 1.5], jnp.float32)
    low, high = map(np.asarray, instruments.extents(readings))
    # Upright: 780 - 20 * 0.02 * 40 = 764, to 780 with the last pixel; and so on.
    np.testing.assert_array_equal(low[:3], [764, 762, 780])
    np.testing.assert_array_equal(high[:3], [781, 781, 781])
    assert low[3] == high[3]
    # Sideways: 500 to 500 + 25 * 2; 750 - 25 * 1.2 to 750.
    np.testing.assert_array_equal((low[5:], high[5:]), [(500, 720), (551, 751)])


def test_scores_are_clipped_and_differ():
    table = score.table(96)
    assert len(table) == score.HIGHEST - score.LOWEST + 2
    assert len(np.unique(table.reshape(len(table), -1), axis=0)) > 0.98 * len(table)
    state = state_at(recorded(), 0)
    rows, columns = score.window(96)
    for value, shown in ((5000.0, 1100), (-999.0, -250), (12.4, 12), (0.4, 0)):
        image = picture(state._replace(score=np.float32(value)))
        np.testing.assert_array_equal(
            image[rows, columns, 0], table[shown - score.LOWEST]
        )
    # Python's "04.0f" of -0.4, which Gymnasium writes, is "-000".
    image = picture(state._replace(score=np.float32(-0.4)))
    np.testing.assert_array_equal(image[rows, columns, 0], table[-1])
    assert score.written(-0.4) == "-000"


def at_full_zoom():
    return state_at(recorded(), len(ZOOM) + 2)


def test_background_is_grass_and_nothing_else():
    i = len(ZOOM) + 2
    state, image = at_full_zoom(), drawn()[i].astype(int)
    mask = np.array(jax.jit(draw.background)(canvas(), state))
    assert mask.shape == (96, 96) and mask.dtype == bool
    greenish = image[..., 1] - image[..., [0, 2]].max(-1)
    # Half of a pixel of grass on a grey road is 50 greener than grey.
    road = camera.road_rows(96)
    # A kerb's colours blur that for a few pixels; the road has a rim of 200 or so.
    assert (mask[:road] != (greenish[:road] >= 50)).sum() <= 8
    assert not mask[road:].any()
    assert mask.any() and not mask[:road].all()


def test_the_blob_is_a_red_square_beside_the_car():
    state = at_full_zoom()
    plain = picture(state).astype(int)
    seen = np.array(draw.observe(canvas(), state, with_blob=True)).astype(int)
    changed = np.abs(seen - plain).max(-1) > 2
    # 8 units are 8 * 16.2 of 1000 window pixels across and of 800 down; its middle is
    # 20 units to the right and 10 ahead of the car.
    y, x = np.nonzero((seen == [202, 0, 0]).all(-1) & changed)
    assert x.max() - x.min() + 1 == pytest.approx(8 * 16.2 * 96 / 1000, abs=1.5)
    assert y.max() - y.min() + 1 == pytest.approx(8 * 16.2 * 96 / 800, abs=1.5)
    assert x.mean() == pytest.approx((500 + 20 * 16.2) * 96 / 1000 - 0.5, abs=1)
    assert y.mean() == pytest.approx((600 - 10 * 16.2) * 96 / 800 - 0.5, abs=1)
    # A rim of one pixel at most is mixed.
    assert changed.sum() <= (np.ptp(x) + 3) * (np.ptp(y) + 3)
    open_ground = jax.jit(draw.background, static_argnames="with_blob")
    mask = np.array(open_ground(canvas(), state, with_blob=True))
    assert not mask[y, x].any()
    gray = np.array(draw.observe(canvas(), state, color="gray", with_blob=True))
    red = cv2.cvtColor(np.uint8([[[202, 0, 0]]]), cv2.COLOR_RGB2GRAY)
    assert (gray[y, x] == red[0, 0]).all()
