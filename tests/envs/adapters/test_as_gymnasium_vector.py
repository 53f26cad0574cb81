import functools

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from envs.adapters.as_gymnasium import CarRacing, CarRacingVector

NAME = "envs:iap/CarRacing-v0"
POOL = (100000, 100001)
SMALL = {"size": 16, "tracks": len(POOL)}
GAS = np.tile(np.array([0.0, 0.2, 0.0], np.float32), (3, 1))
AT_ONCE = {"lap_rule": "intended", "lap_complete_percent": 0.001}
"""The two tiles that the car is created on are enough for a lap, in the first step."""


def made(**settings):
    return gymnasium.make_vec(NAME, num_envs=3, **{**SMALL, **settings})


@functools.cache
def first_picture(seed):
    return CarRacing(size=16).reset(seed=seed)[0]


def shows(picture, seed):
    """Whether a picture is a track's first; one world may round unlike a batch."""
    return (picture == first_picture(seed)).mean() > 0.99


def assert_same(a, b):
    """Two results of step: equal in structure, in pictures but for rounding."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif a is not None:
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.dtype == object:
            assert_same(tuple(a), tuple(b))
        elif a.dtype == np.uint8:
            assert (a == b).mean() > 0.99
        else:
            # Rewards are float32.
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_is_made_by_name_with_batched_spaces():
    envs = made()
    assert isinstance(envs, CarRacingVector)
    single = CarRacing(size=16)
    sync = gymnasium.vector.SyncVectorEnv([lambda: CarRacing(size=16)] * 3)
    assert envs.single_observation_space == single.observation_space
    assert envs.single_action_space == single.action_space
    assert envs.observation_space == sync.observation_space
    assert envs.action_space == sync.action_space
    assert envs.metadata == sync.metadata
    assert envs.spec.max_episode_steps == 1000
    choices = made(continuous=False)
    assert choices.action_space == gymnasium.spaces.MultiDiscrete([5, 5, 5])


def test_a_seed_gives_each_world_its_track_and_later_ones_from_the_pool():
    envs = made(autoreset_mode="SameStep", max_episode_steps=1)
    pictures, infos = envs.reset(seed=7)
    assert pictures in envs.observation_space and infos == {}
    for i in range(3):
        assert shows(pictures[i], 7 + i)
    drawn = []
    for _ in range(6):
        pictures = envs.step(GAS)[0]
        drawn += [[seed for seed in POOL if shows(p, seed)] for p in pictures]
    assert all(len(found) == 1 for found in drawn)
    # All 18 on one track has a chance of 2 ** -17.
    assert len({found[0] for found in drawn}) == 2
    # Without a seed even the first come from the pool.
    pictures, _ = envs.reset()
    assert all(any(shows(p, seed) for seed in POOL) for p in pictures)
    assert all(shows(p, 7 + i) for i, p in enumerate(envs.reset(seed=7)[0]))


def play(envs, seed, steps=12):
    results = [envs.reset(seed=seed)]
    generator = np.random.default_rng(0)
    for _ in range(steps):
        actions = generator.uniform(-1, 1, (3, 3)).astype(np.float32)
        results.append(envs.step(actions))
    return results


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_seed_gives_the_same_again(mode):
    first = play(made(autoreset_mode=mode, max_episode_steps=3), 0)
    envs = made(autoreset_mode=mode, max_episode_steps=3)
    for seed, same in ((5, False), (0, True)):
        again = play(envs, seed)
        runs = first, again
        pictures = [np.array([result[0] for result in run]) for run in runs]
        rewards = [np.array([result[1] for result in run[1:]]) for run in runs]
        assert (pictures[0] == pictures[1]).all() == same
        assert (rewards[0] == rewards[1]).all() == same


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(
    "settings",
    [{"max_episode_steps": 3}, AT_ONCE, {"max_episode_steps": 1, **AT_ONCE}],
    ids=str,
)
def test_ends_as_gymnasiums_vector_of_single_worlds(mode, settings):
    """Until the second episode, whose track is another one."""
    ours = made(autoreset_mode=mode, **settings)
    theirs = gymnasium.make_vec(
        NAME,
        num_envs=3,
        size=16,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        **settings,
    )
    assert_same(ours.reset(seed=2), theirs.reset(seed=2))
    ended = False
    while not ended:
        a, b = ours.step(GAS), theirs.step(GAS)
        ended = (a[2] | a[3]).all()
        if ended and mode is AutoresetMode.SAME_STEP:
            # The pictures are of the next episodes.
            a, b = a[1:], b[1:]
        if ended and len(settings) == 3:
            # Gymnasium's limit also truncates what has just terminated.
            assert a[-2].tolist() == [False] * 3 and b[-2].tolist() == [True] * 3
            a, b = (*a[:-2], a[-1]), (*b[:-2], b[-1])
        assert_same(a, b)
    a, b = ours.step(GAS), theirs.step(GAS)
    if mode is AutoresetMode.NEXT_STEP:
        # The step that begins the next episodes.
        assert_same(a[1:], b[1:])
        assert not a[1].any() and not a[2].any() and not a[3].any()


def test_only_what_has_ended_begins_again():
    """Worlds out of step with each other, as they become when one terminates."""
    envs = made(autoreset_mode="NextStep", max_episode_steps=4)
    calm = made(max_episode_steps=-1)
    envs.reset(seed=0), calm.reset(seed=0)
    for _ in range(2):
        envs.step(GAS), calm.step(GAS)
    envs.reset(options={"reset_mask": np.array([False, True, False])})
    truncated, rewards = [], []
    for _ in range(4):
        pictures, paid, _, over, _ = envs.step(GAS)
        going_on = calm.step(GAS)[0]
        truncated.append(over.tolist())
        rewards.append(paid)
        if len(truncated) < 3:
            np.testing.assert_array_equal(pictures[[0, 2]], going_on[[0, 2]])
    assert truncated == [
        [False, False, False],
        [True, False, True],
        [False, False, False],
        [False, True, False],
    ]
    # The third step began worlds 0 and 2, and drove world 1.
    assert (np.array(rewards[2]) == 0).tolist() == [True, False, True]


def test_final_observations_are_those_before_the_next_episode():
    ends = made(autoreset_mode="SameStep", max_episode_steps=2)
    goes_on = made(max_episode_steps=-1)
    ends.reset(seed=4), goes_on.reset(seed=4)
    for _ in range(2):
        *_, infos = ends.step(GAS)
        seen = goes_on.step(GAS)[0]
    assert infos["_final_obs"].all() and infos["_final_info"].all()
    for last, picture in zip(infos["final_obs"], seen, strict=True):
        # One world may round unlike a batch.
        assert (last == picture).mean() > 0.99


def test_without_autoreset_worlds_wait_for_their_reset():
    envs = made(autoreset_mode="Disabled", max_episode_steps=2)
    envs.reset(seed=0)
    mask = np.array([True, False, False])
    envs.step(GAS)
    before = envs.step(GAS)
    assert before[3].all()
    with pytest.raises(ValueError, match=r"worlds \[0, 1, 2\] have ended"):
        envs.step(GAS)
    options = {"reset_mask": mask}
    pictures, _ = envs.reset(options=options)
    assert options == {"reset_mask": mask}
    np.testing.assert_array_equal(pictures[1:], before[0][1:])
    assert any(shows(pictures[0], seed) for seed in POOL)
    with pytest.raises(ValueError, match=r"worlds \[1, 2\] have ended"):
        envs.step(GAS)
    envs.reset(options={"reset_mask": ~mask})
    assert not envs.step(GAS)[3].any()


def test_a_seed_for_some_worlds_leaves_the_others_on_their_tracks():
    envs, undisturbed = made(), made()
    envs.reset(seed=0), undisturbed.reset(seed=0)
    pictures, _ = envs.reset(seed=50, options={"reset_mask": np.array([0, 1, 0]) > 0})
    assert shows(pictures[1], 51)
    for _ in range(30):
        seen, expected = envs.step(GAS)[0], undisturbed.step(GAS)[0]
    np.testing.assert_array_equal(seen[[0, 2]], expected[[0, 2]])
    assert (seen[1] != expected[1]).any()


def test_every_world_may_have_a_seed_of_its_own():
    envs = made()
    pictures, _ = envs.reset(seed=[9, 3, 3])
    assert [shows(p, s) for p, s in zip(pictures, (9, 3, 3), strict=True)] == [True] * 3
    np.testing.assert_array_equal(
        envs.reset(seed=[9, 10, 11])[0], envs.reset(seed=9)[0]
    )
    with pytest.raises(ValueError, match="2 seeds were given for 3 worlds"):
        envs.reset(seed=[0, 1])
    for seeds in ([0, 1, -1], [-1, 0, 1], [0, None, 1]):
        with pytest.raises(gymnasium.error.Error, match="actual value: -1"):
            envs.reset(seed=seeds)


def test_tracks_may_have_colours_of_their_own():
    envs = made(domain_randomize=True)
    pictures, _ = envs.reset(seed=0)
    for i in range(3):
        alone, _ = CarRacing(size=16, domain_randomize=True).reset(seed=i)
        assert (pictures[i] == alone).mean() > 0.99


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_gymnasiums_wrappers_know_its_episodes(mode):
    envs = RecordEpisodeStatistics(made(autoreset_mode=mode, max_episode_steps=3))
    envs.reset(seed=0)
    for _ in range(10):
        envs.step(GAS)
    # With "NextStep" one step in four begins an episode.
    assert list(envs.length_queue) == [3] * (9 if mode == "SameStep" else 6)


def test_observations_are_not_copied_from_the_device():
    envs = made()
    for observations in (envs.reset(seed=0)[0], envs.step(GAS)[0]):
        assert not observations.flags.owndata and not observations.flags.writeable


def test_renders_every_world():
    envs = made(render_mode="rgb_array")
    envs.reset(seed=0)
    envs.step(GAS)
    frames = envs.render()
    single = CarRacing(render_mode="rgb_array", size=16)
    single.reset(seed=2)
    single.step(GAS[2])
    assert len(frames) == 3
    # One world may round unlike a batch.
    assert (frames[2] == single.render()).mean() > 0.99
    assert (frames[0] != frames[2]).any()
    with pytest.warns(UserWarning, match="without a render mode"):
        assert made().render() is None


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (GAS[0], r"shape \(3,\); it must have \(3, 3\)"),
        (GAS[:2], r"shape \(2, 3\); it must have \(3, 3\)"),
        (np.where([0, 1, 0], np.nan, GAS), "NaN is not a strength"),
    ],
)
def test_actions_that_are_none_are_refused(actions, message):
    envs = made()
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        envs.step(actions)


@pytest.mark.parametrize("actions", [[0, 5, 0], [0, 1], [0.0, 1.0, 2.0], 1])
def test_choices_that_are_none_are_refused(actions):
    envs = made(continuous=False)
    envs.reset(seed=0)
    with pytest.raises(InvalidAction, match="it must be 3 integers from 0 to 4"):
        envs.step(np.array(actions))


@pytest.mark.parametrize(
    "mask", [np.zeros(3, bool), np.ones(2, bool), np.ones(3, np.int32)], ids=str
)
def test_masks_that_are_none_are_refused(mask):
    envs = made()
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="it must be 3 booleans, one a world"):
        envs.reset(options={"reset_mask": mask})


def test_episodes_must_have_begun():
    envs = made(render_mode="rgb_array")
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        envs.step(GAS)
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        envs.render()
    with pytest.raises(ResetNeeded, match="have not begun yet"):
        envs.reset(options={"reset_mask": np.array([True, False, False])})
    with pytest.raises(gymnasium.error.Error, match="actual value: -1"):
        envs.reset(seed=-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "the number of worlds is 0"),
        ({"tracks": 0}, "tracks is 0; it must be at least 1"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0; it must be at least 1, or"),
        ({"autoreset_mode": "Never"}, "autoreset_mode is 'Never'; it must be one of"),
        ({"render_mode": "ansi"}, "render_mode is 'ansi'; it must be"),
        ({"size": 0}, "size is 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CarRacingVector(**{**SMALL, **settings})
