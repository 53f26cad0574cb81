import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.odd_one_out import env as odd
from iap import EncoderConfig, Kernel, Ranking, encode

KEY = jax.random.key(0)
SCENES = 256
game = functools.cache(odd.make)


@functools.cache
def scenes():
    """States and pictures of the first scenes of many levels."""
    env = game(range(SCENES))

    @jax.jit
    def show(world):
        levels = jnp.arange(SCENES)
        states = jax.vmap(lambda level: env.reset(world, level, KEY))(levels)
        return states, jax.vmap(functools.partial(env.observe, world))(states)

    states, pictures = jax.device_get(show(env.world))
    return states, pictures.astype(np.float64)


@functools.cache
def compiled():
    """(world of level 5, reset, step, observe); the functions serve any levels."""
    env = game((5,))
    return env.world, *map(jax.jit, (env.reset, env.step, env.observe))


def begun(world, episode=0, key=KEY):
    return compiled()[1](world, jnp.int32(episode), key)


def cells(pictures):
    """Pictures -> [N, cell, row, column, RGB] as differences from grey."""
    parts = pictures.reshape(-1, 8, 4, 8, 4, 3) - 128
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 64, 4, 4, 3)


# --- the picture --------------------------------------------------------------------


def test_every_cell_is_grey_in_the_mean():
    """To the last bit: what is exact cannot be learned from."""
    np.testing.assert_array_equal(cells(scenes()[1]).mean(axis=(2, 3)), 0)


def test_one_cell_has_perpendicular_hues_of_half_the_saturation():
    states, pictures = scenes()
    corner = cells(pictures)[:, :, 0, 0]  # one field of every cell, [N, 64, 3]
    index = np.arange(SCENES)
    odd_one = corner[index, states.odd]
    usual = corner[index, (states.odd + 1) % 64]
    # Channels are rounded to half a grey level: sqrt(3) / 2 at most of the length.
    np.testing.assert_allclose(np.linalg.norm(usual, axis=1), 120, atol=0.87)
    np.testing.assert_allclose(np.linalg.norm(odd_one, axis=1), 60, atol=0.87)
    cosine = (odd_one * usual).sum(axis=1) / (120 * 60)
    np.testing.assert_allclose(cosine, 0, atol=0.03)
    np.testing.assert_allclose(corner.sum(axis=2), 0, atol=1.5)
    # All others are the same up to their sign, which is drawn.
    others = np.arange(64)[None, :] != states.odd[:, None]
    np.testing.assert_array_equal(
        np.abs(corner)[others], np.repeat(np.abs(usual), 63, axis=0)
    )
    first = (corner * usual[:, None]).sum(axis=2)[others] > 0
    assert 0.48 < first.mean() < 0.52  # of 16,128: standard deviation .004


def test_a_cell_is_a_checkerboard():
    parts = cells(scenes()[1])
    field = parts[:, :, :2, :2]
    assert (field == field[:, :, :1, :1]).all()
    for row, column, sign in ((0, 2, -1), (2, 0, -1), (2, 2, 1)):
        other = parts[:, :, row : row + 2, column : column + 2]
        np.testing.assert_array_equal(other, sign * field)


def test_cells_and_hues_are_drawn_evenly():
    states, _ = scenes()
    # 256 draws: 4 of each cell, 64 of each quarter of the circle (sd 6.9).
    assert np.count_nonzero(np.bincount(states.odd, minlength=64)) > 55
    quarters = np.bincount((states.hue / (np.pi / 2)).astype(int), minlength=4)
    assert len(quarters) == 4 and np.abs(quarters - 64).max() < 28


@pytest.mark.parametrize(("height", "width"), [(32, 32), (720, 720), (50, 90)])
def test_paint_is_the_same_picture_at_any_size(height, width):
    world, _, _, observe = compiled()
    state = begun(world)
    small = np.asarray(observe(world, state))
    large = game((5,)).paint(world, jax.device_get(state), height, width)
    assert large.shape == (height, width, 3) and large.dtype == np.uint8
    rows, columns = (np.arange(n) * 16 // n * 2 for n in (height, width))
    # Sines of jax and numpy can round a channel apart.
    apart = large.astype(int) - small[rows][:, columns]
    assert np.abs(apart).max() <= 1


# --- episodes -----------------------------------------------------------------------


def test_a_level_names_its_scenes_whatever_the_pool_and_the_key():
    shown = []
    for levels, episode, seed in (((5,), 0, 0), ((4, 5), 1, 7)):
        world, key = game(levels).world, jax.random.key(seed)
        state = begun(world, episode, key)
        for _ in range(3):
            shown.append(10 * int(state.odd) + float(state.hue))
            state, _ = compiled()[2](world, state, jnp.full(2, 0.1 * seed), key)
    assert shown[:3] == shown[3:]
    assert len(set(shown)) == 3


def test_an_episode_is_16_scenes():
    world, _, step, _ = compiled()
    state, ends = begun(world), []
    for _ in range(16):
        state, outcome = step(world, state, jnp.zeros(2), KEY)
        ends.append((bool(outcome.terminated), bool(outcome.truncated)))
    assert ends == [(False, False)] * 15 + [(False, True)]
    assert game((5,)).spec.max_steps == 16


def rewarded(cell, *point):
    """Reward and share found of a point, where that cell is the odd one."""
    world, _, step, _ = compiled()
    state = begun(world)._replace(odd=jnp.int32(cell))
    _, outcome = step(world, state, jnp.array(point, jnp.float32), KEY)
    return float(outcome.reward), float(outcome.metrics["found"])


def test_rewards():
    # Cell 11 is the second row's fourth: its middle is (-1 + 3 / 8, -1 + 7 / 8).
    assert rewarded(11, -0.625, -0.125) == (1, 1)
    assert rewarded(11, -0.625 + 0.12, -0.125) == (1, 1)
    # Half a cell, 1 / 8, is free. float32 throughout.
    assert rewarded(11, -0.625, -0.125 - 0.325) == pytest.approx((0.8, 0), abs=1e-6)
    assert rewarded(11, -0.625 + 0.3, -0.125 + 0.4) == pytest.approx((0.625, 0), 1e-6)
    assert rewarded(0, 1, 1) == (0, 0)
    # Beyond the picture counts as its edge: cell 0's middle is 1 / 8 off either.
    assert rewarded(0, -3, -0.875) == (1, 1)
    assert np.isnan(rewarded(0, np.nan, 0)[0])


def test_returns_of_those_who_do_not_look():
    """The numbers of the docstring."""
    world, _, step, _ = compiled()
    state = begun(world)

    def mean(points):
        def reward(cell, point):
            return step(world, state._replace(odd=cell), point, KEY)[1].reward

        every = jax.vmap(jax.vmap(reward, (None, 0)), (0, None))
        return 16 * np.mean(jax.jit(every)(jnp.arange(64), points))

    assert round(float(mean(jnp.zeros((1, 2)))), 1) == 5.9
    points = jax.random.uniform(KEY, (4000, 2), minval=-1.0)
    # A point's mean over the cells has a standard deviation of 1.2: .02 of the mean.
    np.testing.assert_allclose(mean(points), 4.02, atol=0.08)


def test_needs_levels():
    with pytest.raises(ValueError, match="levels is empty"):
        odd.make([])


# --- who can find it ----------------------------------------------------------------


def chosen(angle, window=2, bias=(0.0, 0.0), **settings):
    """The cell of the best patch in every scene.

    Keys are a patch's hue, queries the same turned by an angle, plus a bias.
    """
    config = EncoderConfig(window=window, stride=window, depth=2, top_k=1, **settings)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pixels = np.tile(odd.HUES.T, (window * window, 1)) * 5 / window**2
    weights = jnp.asarray(np.hstack([pixels @ turn, pixels]), jnp.float32)
    grey = jnp.asarray([*bias, 0.0, 0.0], jnp.float32)

    @jax.jit
    def look(pictures):
        seen = jax.vmap(lambda image: encode(config, image, weights, grey))(pictures)
        row, column = jnp.moveaxis(seen.attention.centre[:, 0] // 4, 1, 0)
        return 8 * row + column

    return np.asarray(look(scenes()[1].astype(np.uint8))).astype(int)


def found(cells):
    return np.mean(cells == scenes()[0].odd)


@pytest.mark.parametrize(
    ("kernel", "window"), [(Kernel.exact, 2), (Kernel.taylor, 2), (Kernel.taylor, 1)]
)
def test_attention_that_asks_for_the_perpendicular_hue_finds_it(kernel, window):
    assert found(chosen(np.pi / 2, window, kernel=kernel)) == 1


def test_attention_that_asks_for_its_own_hue_never_does():
    assert found(chosen(0.0, kernel=Kernel.exact)) == 0


@pytest.mark.parametrize("direction", [0.0, 1.0, 2.0])
def test_a_fixed_filter_finds_it_in_three_of_ten_scenes(direction):
    bias = np.cos(direction), np.sin(direction)
    share = found(chosen(0.0, bias=bias, ranking=Ranking.fixed_filter))
    # 2 / pi atan(1 / 2) = .295; 256 scenes: standard deviation .029.
    assert abs(share - 0.295) < 0.1


@pytest.mark.parametrize("angle", [0.0, np.pi / 2])
def test_a_mean_query_is_the_same_in_all_scenes(angle):
    """It is a fixed filter; without a bias it is rounding, and knows nothing."""
    settings = {"angle": angle, "bias": (1.0, 0.5)}
    np.testing.assert_array_equal(
        chosen(**settings, ranking=Ranking.mean_query),
        chosen(**settings, ranking=Ranking.fixed_filter),
    )
    assert found(chosen(angle, ranking=Ranking.mean_query)) < 0.4
