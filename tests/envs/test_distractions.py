import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import backdrops, distractions
from envs.testing import check_env
from envs.transforms import action_repeat, frame_stack, grayscale, resize, time_limit
from envs.vector import vectorise
from tests.probes import SIZE, dot_world, far

PLAIN = dot_world()
FIELD = PLAIN._replace(background=far)
LEVEL, KEY = jnp.int32(0), jax.random.key(5)
CLIP = [10, 50, 90, 130, 170, 210]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A lossless video of grey frames, `CLIP`."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    size = (24, 16)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, size)
    assert writer.isOpened()
    for level in CLIP:
        writer.write(np.full((*size[::-1], 3), level, np.uint8))
    writer.release()
    return path


WORN = {
    "bars": distractions.bars,
    "color": distractions.color,
    "channels": functools.partial(distractions.color, channels=True),
    "noise": functools.partial(distractions.noise, alpha=0.5),
    "video": functools.partial(distractions.video, alpha=0.5),
    "file": functools.partial(distractions.video, alpha=0.5),
}


def wear(name, env, clip):
    return WORN[name](env, file=clip) if name == "file" else WORN[name](env)


def episode(env, steps, key=KEY):
    """States and outcomes of the same actions for every world."""
    move = jax.jit(env.step)
    states, outcomes = [jax.jit(env.reset)(env.world, LEVEL, key)], []
    for index in range(steps):
        action = jnp.array([0.4, -0.3]) * (-1) ** index
        step_key = jax.random.fold_in(key, index)
        state, outcome = move(env.world, states[-1], action, step_key)
        states.append(state)
        outcomes.append(outcome)
    return states, outcomes


def pictures(env, steps=0, key=KEY):
    """u8[steps + 1, H, W, C], what the agent sees in that episode."""
    observe = jax.jit(env.observe)
    return np.stack([observe(env.world, s) for s in episode(env, steps, key)[0]])


def paintings(env, height, width, steps=0):
    states = jax.device_get(episode(env, steps)[0])
    return np.stack([env.paint(env.world, s, height, width) for s in states])


def backgrounds(steps=0, key=KEY):
    """bool[steps + 1, H, W], of `FIELD` in that episode."""
    return np.stack([far(None, state) for state in episode(FIELD, steps, key)[0]])


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


# --- what all have in common --------------------------------------------------------


@pytest.mark.parametrize("name", WORN)
def test_the_game_stays_the_same(name, clip):
    """Same keys, same states, rewards and ends, to the bit."""
    states, outcomes = episode(PLAIN, 6)
    worn, same = episode(wear(name, PLAIN, clip), 6)
    equal(outcomes, same)
    equal(states, worn if name == "bars" else [state.inner for state in worn])


@pytest.mark.parametrize("env", [PLAIN, grayscale(FIELD)], ids=["rgb", "grey"])
@pytest.mark.parametrize("name", WORN)
def test_the_contract_holds(name, env, clip):
    check_env(wear(name, env, clip), steps=3)


@pytest.mark.parametrize("name", WORN)
def test_it_goes_with_the_other_transforms(name, clip):
    worn = wear(name, resize(FIELD, 16, 20), clip)
    env = frame_stack(action_repeat(time_limit(worn, 7), 2), 2)
    assert env.spec.observation.shape == (16, 20, 6)
    check_env(env, steps=4)


def test_every_frame_of_a_repeated_action_is_another():
    env = distractions.noise(FIELD)
    state = episode(action_repeat(env, 2), 3)[0][-1]
    np.testing.assert_array_equal(state.steps, 6)


@pytest.mark.parametrize("name", WORN)
def test_worlds_of_a_batch_see_what_they_would_see_alone(name, clip):
    env = wear(name, FIELD, clip)
    batch, keys = vectorise(env, 3), jax.random.split(KEY, 3)
    states = jax.jit(batch.reset)(batch.world, jnp.zeros(3, jnp.int32), keys)
    together = jax.jit(batch.observe)(batch.world, states)
    alone = np.concatenate([pictures(env, key=key) for key in keys])
    # A sum of three sines in another order may be rounded to the next grey level.
    np.testing.assert_allclose(together, alone.astype(int), atol=1)


@pytest.mark.parametrize("name", ["color", "channels", "noise", "video"])
def test_episodes_differ_and_come_again(name, clip):
    env = wear(name, FIELD, clip)
    one, other, again = (pictures(env, 2, jax.random.key(s)) for s in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    behind = backgrounds(2, jax.random.key(1)) & backgrounds(2, jax.random.key(2))
    assert (one[behind] != other[behind]).mean() > 0.9


@pytest.mark.parametrize("name", ["color", "noise", "video"])
def test_stacked_pictures_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} needs .* 1 or 3 .* has 6; .*before"):
        WORN[name](frame_stack(PLAIN, 2))


@pytest.mark.parametrize("alpha", [0.0, 1.5])
@pytest.mark.parametrize("distraction", [distractions.noise, distractions.video])
def test_an_impossible_alpha_is_refused(distraction, alpha):
    with pytest.raises(ValueError, match=f"alpha is {alpha}; .* at most 1"):
        distraction(FIELD, alpha=alpha)
    with pytest.raises(ValueError, match=r"has no background.* an alpha below 1"):
        distraction(PLAIN)


# --- bars ---------------------------------------------------------------------------


def test_bars_are_black_and_nothing_else_changes():
    env = resize(FIELD, 40, 80)
    worn = distractions.bars(env, rows=30)
    bare, seen = pictures(env)[0], pictures(worn)[0]
    covered = np.zeros((40, 80), bool)
    covered[:30, :6] = covered[:30, -6:] = True  # 3/40 of 80
    assert (seen[covered] == 0).all()
    np.testing.assert_array_equal(seen[~covered], bare[~covered])
    state = episode(env, 0)[0][0]
    np.testing.assert_array_equal(
        worn.background(worn.world, state), env.background(env.world, state) & ~covered
    )


def test_painted_bars_are_as_wide():
    worn = distractions.bars(resize(FIELD, 40, 80), rows=30)
    bare, seen = paintings(FIELD, 120, 160)[0], paintings(worn, 120, 160)[0]
    covered = np.zeros((120, 160), bool)
    covered[:90, :12] = covered[:90, -12:] = True
    assert (seen[covered] == 0).all()
    np.testing.assert_array_equal(seen[~covered], bare[~covered])


def test_a_picture_of_96_columns_has_bars_of_7():
    """3/40 of it are 7.2 columns."""
    seen = pictures(distractions.bars(resize(PLAIN, 96, 96)))[0]
    assert (seen.max((0, 2)) == 0).sum() == 14


@pytest.mark.parametrize("rows", [0, SIZE + 1])
def test_bars_on_rows_that_are_not_there_are_refused(rows):
    with pytest.raises(ValueError, match=f"rows is {rows}; bars cover 1 to {SIZE}"):
        distractions.bars(PLAIN, rows)


def test_bars_and_noise_go_together_in_either_order():
    one = distractions.bars(distractions.noise(FIELD))
    other = distractions.noise(distractions.bars(FIELD))
    np.testing.assert_array_equal(pictures(one, 3), pictures(other, 3))


# --- color --------------------------------------------------------------------------


def shifts(count, **settings):
    """f32[count, 2, 3], of the background and of the rest."""
    env = distractions.color(FIELD, **settings)
    keys = jax.random.split(jax.random.key(0), count)
    states = jax.vmap(env.reset, (None, None, 0))(env.world, LEVEL, keys)
    return np.asarray(states.kept)


@pytest.mark.parametrize("channels", [False, True])
def test_shifts_are_uniform_within_their_bounds(channels):
    drawn = shifts(4000, channels=channels)
    bound = 0.2 * 255
    assert np.abs(drawn).max() <= bound
    used = drawn.reshape(4000, -1) if channels else drawn[:, :, 0]
    # Four standard errors: a mean's is sd / sqrt(N), a uniform variance's
    # var * sqrt(0.8 / N), a correlation's 1 / sqrt(N).
    sd = 2 * bound / np.sqrt(12)
    np.testing.assert_allclose(used.mean(0), 0, atol=4 * sd / np.sqrt(4000))
    np.testing.assert_allclose(used.var(0), sd**2, rtol=4 * np.sqrt(0.8 / 4000))
    apart = np.corrcoef(used.T) - np.eye(used.shape[1])
    assert np.abs(apart).max() < 4 / np.sqrt(4000)
    if not channels:
        np.testing.assert_array_equal(drawn, drawn[:, :, :1].repeat(3, axis=2))


@pytest.mark.parametrize("channels", [False, True])
def test_the_background_is_shifted_apart_from_the_rest(channels):
    env = distractions.color(FIELD, channels)
    behind, before = np.asarray(episode(env, 0)[0][0].kept).round().astype(int)
    assert (behind != before).all()
    shift = np.where(backgrounds()[0][..., None], behind, before)
    expected = np.clip(pictures(FIELD)[0] + shift, 0, 255)
    np.testing.assert_array_equal(pictures(env)[0], expected)


def test_a_world_without_a_background_is_shifted_as_a_whole():
    env = distractions.color(PLAIN)
    shift = np.asarray(episode(env, 0)[0][0].kept).round().astype(int)[0]
    expected = np.clip(pictures(PLAIN)[0] + shift, 0, 255)
    np.testing.assert_array_equal(pictures(env)[0], expected)


def test_a_grey_picture_is_shifted_as_its_colours_are():
    """Where no colour is cut off at black or white; each of the two is rounded once."""
    bright = FIELD._replace(observe=lambda w, s: FIELD.observe(w, s) // 4 + 96)
    color = functools.partial(distractions.color, channels=True)
    one, other = pictures(color(grayscale(bright))), pictures(grayscale(color(bright)))
    np.testing.assert_allclose(one, other.astype(int), atol=1)


@pytest.mark.parametrize("delta", [0.0, 1.1])
def test_an_impossible_delta_is_refused(delta):
    with pytest.raises(ValueError, match=f"delta is {delta}; .* at most 1"):
        distractions.color(PLAIN, delta=delta)


# --- noise --------------------------------------------------------------------------

FRAMES = 40


@functools.cache
def noise_frames():
    """u8[FRAMES, 96, 96, 3], one episode's."""
    frame = jax.vmap(backdrops.noise_frame, (None, 0, None, None))
    return np.asarray(frame(jnp.uint32(7), jnp.arange(FRAMES), 96, 96))


def test_noise_is_uniform():
    values = noise_frames()
    N = values.size
    # Four standard errors, for the uniform distribution on 0 ... 255.
    variance = (256**2 - 1) / 12
    np.testing.assert_allclose(values.mean(), 127.5, atol=4 * np.sqrt(variance / N))
    np.testing.assert_allclose(values.var(), variance, rtol=4 * np.sqrt(0.8 / N))
    expected = N / 256
    counts = np.bincount(values.reshape(-1), minlength=256)
    statistic = ((counts - expected) ** 2 / expected).sum()
    # Chi-squared of 255 degrees of freedom: mean 255, variance 510.
    assert abs(statistic - 255) < 4 * np.sqrt(510)


@pytest.mark.parametrize(
    "shift",
    [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 4, 0)],
    ids=["step", "row", "column", "channel", "word"],
)
def test_noise_has_no_neighbours(shift):
    """Values a step, a row, a column or a channel apart are not correlated."""
    values = noise_frames() / 255.0
    moved = np.roll(values, shift, (0, 1, 2, 3))
    r = np.corrcoef(values.reshape(-1), moved.reshape(-1))[0, 1]
    assert abs(r) < 4 / np.sqrt(values.size)


def test_frames_do_not_come_again():
    """Neither within an episode nor in another."""
    frame = jax.jit(backdrops.noise_frame, static_argnums=(2, 3))
    seen = {
        np.asarray(frame(jnp.uint32(seed), jnp.int32(step), 4, 4)).tobytes()
        for seed in range(20)
        for step in range(20)
    }
    assert len(seen) == 400


def test_noise_is_in_the_background_alone():
    env = distractions.noise(FIELD)
    states = episode(env, 4)[0]
    behind = backgrounds(4)[..., None]
    frames = np.stack(
        [backdrops.noise_frame(s.kept, s.steps, SIZE, SIZE) for s in states]
    )
    expected = np.where(behind, frames, pictures(FIELD, 4))
    np.testing.assert_array_equal(pictures(env, 4), expected)
    assert len({frame.tobytes() for frame in frames}) == 5


@pytest.mark.parametrize("alpha", [0.25, 0.7])
def test_without_a_background_noise_is_blended(alpha):
    env = distractions.noise(PLAIN, alpha)
    state = episode(env, 0)[0][0]
    frame = np.asarray(backdrops.noise_frame(state.kept, state.steps, SIZE, SIZE))
    expected = (1 - alpha) * pictures(PLAIN)[0] + alpha * frame.astype(float)
    # alpha is counted in 256ths, which moves a mixture by at most 255 / 512; rounding
    # to grey levels by half of one.
    np.testing.assert_allclose(pictures(env)[0], expected, atol=1)


def test_noise_in_a_grey_world_is_the_grey_of_the_noise():
    one = pictures(distractions.noise(grayscale(FIELD)), 2)
    other = pictures(grayscale(distractions.noise(FIELD)), 2)
    np.testing.assert_array_equal(one, other)


def test_painted_noise_keeps_the_agents_grid():
    env = distractions.noise(FIELD)
    seen, behind = pictures(env, 2), backgrounds(2)
    np.testing.assert_array_equal(paintings(env, SIZE, SIZE, 2)[behind], seen[behind])
    large = paintings(env, 5 * SIZE, 3 * SIZE, 2)
    # A cell's middle is in the background where the cell is.
    np.testing.assert_array_equal(large[:, 2::5, 1::3][behind], seen[behind])


# --- video --------------------------------------------------------------------------


def test_waves_move_smoothly():
    """No pixel moves faster than the fastest of its waves allows."""
    env = distractions.video(FIELD)
    states = episode(env, 12)[0]
    frames = np.stack(
        [backdrops.wave_frame(s.kept, s.steps, SIZE, SIZE) for s in states]
    )
    change = np.abs(np.diff(frames.astype(int), axis=0))
    speed = 2 * np.pi * np.abs(states[0].kept.speed).mean()
    # Half a grey level of rounding at either end, and sines are right to 0.0012.
    assert change.max() <= 127.5 * (speed + 4 * 0.0012) + 1
    assert change.max() >= 2
    np.testing.assert_array_equal(
        pictures(env, 12),
        np.where(backgrounds(12)[..., None], frames, pictures(FIELD, 12)),
    )


def test_waves_are_sines():
    waves = jax.device_get(backdrops.draw_waves(KEY, 50.0))
    x = (np.arange(20) + 0.5) / 20
    periods = (
        waves.down[:, None, None, None] * x[:, None, None]
        + waves.across[:, None, None, None] * x[:, None]
        + (waves.phase + 30 * waves.speed[:, None])[:, None, None]
    )
    expected = 127.5 + 127.5 * np.sin(2 * np.pi * periods).mean(0)
    frame = backdrops.wave_frame(waves, jnp.int32(30), 20, 20)
    # Two sines right to 0.0012 are multiplied, twice; and half a grey level.
    np.testing.assert_allclose(frame, expected, atol=127.5 * 4 * 0.0012 + 0.5)


def test_waves_have_contrast_and_differ_between_episodes():
    """A mean of four sines of unit amplitude has variance 4 * (1/2) / 16."""
    keys = jax.random.split(KEY, 200)
    waves = jax.vmap(backdrops.draw_waves, (0, None))(keys, 50.0)
    frame = jax.vmap(backdrops.wave_frame, (0, None, None, None))
    frames = np.asarray(frame(waves, jnp.int32(0), 16, 16)).astype(float)
    # The variance of one frame scatters by less than its own size, that of 200 by less
    # than 1 / sqrt(200) of it.
    np.testing.assert_allclose(frames.var(), 127.5**2 / 8, rtol=4 / np.sqrt(200))
    apart = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert apart.min() > 15


def test_waves_are_painted_larger_and_not_coarser():
    env = distractions.video(FIELD)
    state = episode(env, 3)[0][-1]
    small, large = (
        np.asarray(backdrops.wave_frame(state.kept, state.steps, n, n))
        for n in (SIZE, 9 * SIZE)
    )
    # The middles of both grids coincide; each is rounded once.
    np.testing.assert_allclose(large[4::9, 4::9], small.astype(int), atol=1)
    steps = np.abs(np.diff(large.astype(int), axis=0)).max()
    slope = 2 * np.pi * backdrops.PERIODS / (9 * SIZE)
    assert steps <= 127.5 * slope + 1


def shown(env, steps, key=KEY):
    """The grey level in the background's top left corner, step by step."""
    frames, behind = pictures(env, steps, key), backgrounds(steps, key)
    assert behind[:, 0, 0].all()
    return frames[:, 0, 0, 0].astype(int)


def test_a_file_is_played_to_and_fro(clip):
    env = distractions.video(FIELD, clip)
    assert env.world.frames.shape == (6, SIZE, SIZE, 3)
    levels = shown(env, 12)
    period = CLIP + CLIP[-2:0:-1]
    start = int(episode(env, 0)[0][0].kept)
    expected = [period[(start + i) % 10] for i in range(13)]
    # The colours went through YUV and back.
    np.testing.assert_allclose(levels, expected, atol=2)


def test_a_file_begins_anywhere(clip):
    env = distractions.video(FIELD, clip)
    keys = jax.random.split(KEY, 500)
    states = jax.vmap(env.reset, (None, None, 0))(env.world, LEVEL, keys)
    counts = np.bincount(states.kept, minlength=10)
    # 50 of each of the ten places, with a standard deviation below sqrt(50).
    assert len(counts) == 10 and np.abs(counts - 50).max() < 4 * np.sqrt(50)


def test_the_frames_are_an_argument_and_not_a_constant(clip):
    env = distractions.video(FIELD, clip)
    state = episode(env, 0)[0][0]
    black = env.world._replace(frames=jnp.zeros_like(env.world.frames))
    seen = np.asarray(jax.jit(env.observe)(black, state))
    assert (seen[backgrounds()[0]] == 0).all()


def test_a_file_that_shows_nothing_is_refused(tmp_path):
    missing = tmp_path / "missing.mp4"
    with pytest.raises(ValueError, match=f"{missing} is no file"):
        distractions.video(FIELD, missing)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(ValueError, match=f"no frame in the video {text}; give one"):
        distractions.video(FIELD, text)
