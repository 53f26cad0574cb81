"""The study of what worker processes cost, on numbers that are known."""

import numpy as np

from envs.core import HostVectorEnv, Moment
from experiments.studies import host_overhead as study


def test_the_table_compares_turns_beside_each_other():
    seconds = {"bare": (10, 20, 5), "1 worker": (11, 20, 6), "2 workers": (5.5, 8, 4)}
    measured = [
        study.Turn("game", way, i, 100, took)
        for way, times in seconds.items()
        for i, took in enumerate(times)
    ]
    assert study.table(measured).splitlines()[2:] == [
        "| game | 10.0 (5.0 to 20.0) | 9.1 (5.0 to 16.7) | 18.2 (12.5 to 25.0) "
        "| 10.0% (0.0% to 20.0%) | 2.00 (1.50 to 2.50) |"
    ]


def test_actions_lie_within_their_bounds_and_come_again():
    actions = study.drawn((-1.0, 0.0), (1.0, 0.5), 3)
    assert (actions.shape, actions.dtype) == ((3, study.DECISIONS, 2), np.float32)
    assert np.all(actions >= (-1, 0)) and np.all(actions <= (1, 0.5))
    assert np.ptp(actions[..., 0]) > 1.9
    np.testing.assert_array_equal(actions, study.drawn((-1.0, 0.0), (1.0, 0.5), 3))


def test_hosted_plays_the_given_actions_and_sums_their_rewards():
    """A world whose reward is the action, over after three decisions of seed 1."""

    def play(seeds, begin, painted):
        stories = []
        for index, seed in enumerate(seeds):
            picture = np.full((2, 2, 3), seed, np.uint8)
            episode = begin(index, Moment(picture, 0.0, False, False, 0))
            action, count = next(episode), 1
            try:
                while True:
                    over = seed == 1 and count == 3
                    moment = Moment(picture, float(action[0]), over, False, 1)
                    action, count = episode.send(moment), count + 1
            except StopIteration as end:
                stories.append(end.value)
        return stories

    world = HostVectorEnv(None, 1, play, lambda: None)  # pyright: ignore
    actions = study.drawn((0.0,), (1.0,), 2)
    (whole, first), (short, second) = study.hosted(world, [0, 1], actions)
    assert whole == sum(map(float, actions[0, :, 0]))
    assert short == sum(map(float, actions[1, :3, 0]))
    assert first != second, "the last pictures differ"
