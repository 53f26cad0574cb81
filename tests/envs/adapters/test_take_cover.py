import json
import sys
import tempfile

import numpy as np
import pytest

from envs import registry
from envs.adapters.host_simulator import Playing, Refused, decided
from envs.adapters.take_cover import TICS, simulator
from envs.adapters.take_cover_settings import TakeCoverConfig
from envs.settings import Color
from experiments.main import main

STAND = np.zeros(1, np.float32)

pytest.importorskip("vizdoom")


@pytest.fixture(scope="module")
def game():
    """Steered, 24 x 24."""
    made = simulator(size=24)
    yield made
    made.close()


@pytest.fixture(scope="module")
def choosing():
    """The same by three choices."""
    made = simulator(size=24, continuous=False)
    yield made
    made.close()


def played(game, seed, actions):
    pictures = [game.reset(seed).copy()]
    for action in actions:
        _, reward, terminated, truncated = game.step(action)
        assert (reward, terminated, truncated) == (1, False, False)
        pictures.append(game.observe().copy())
    return np.stack(pictures)


def test_an_episode_is_its_seeds_alone(game, choosing):
    stands = [STAND] * 60
    first, other = played(game, 7, stands), played(game, 8, stands)
    np.testing.assert_array_equal(played(game, 7, stands), first)
    choices = [np.int32(0)] * 60
    np.testing.assert_array_equal(played(choosing, 7, choices), first)
    assert (first[-1] != other[-1]).any()
    assert first.shape == (61, 24, 24, 3) and first.std() > 5


@pytest.mark.parametrize(
    ("steering", "choice"), [(-0.34, 1), (-0.33, 0), (0.0, 0), (0.33, 0), (0.34, 2)]
)
def test_a_steering_beyond_a_third_moves(game, choosing, steering, choice):
    steered = played(game, 3, [np.array([steering], np.float32)] * 8)
    chosen = played(choosing, 3, [np.int32(choice)] * 8)
    np.testing.assert_array_equal(steered, chosen)


def test_the_two_ways_lead_apart(choosing):
    stood, left, right = (
        played(choosing, 3, [np.int32(choice)] * 20)[-1].astype(int)
        for choice in range(3)
    )
    for one, other in ((stood, left), (stood, right), (left, right)):
        assert np.abs(one - other).mean() > 1


def test_who_stands_is_hit_and_the_clock_truncates(game):
    assert game.facts.max_steps == TICS == 2100
    playing, _ = decided(game, Playing(action_repeat=4), lambda: None)
    ends, total = [], 0.0
    playing.reset(0)
    while not ends or not any(ends[-1]):
        _, reward, *end = playing.step(STAND)
        total += reward
        ends.append(end)
    assert ends[-1] == [True, False] and 50 < total < TICS
    limited, _ = decided(game, Playing(time_limit=8, action_repeat=4), lambda: None)
    limited.reset(0)
    assert [limited.step(STAND)[1:] for _ in range(2)] == [
        (4.0, False, False),
        (4.0, False, True),
    ]


def test_gray_and_what_people_see(game):
    made = simulator(size=12, gray=True)
    assert made.facts.picture == made.reset(0).shape == (12, 12, 1)
    made.close()
    game.reset(0)
    large = game.paint(240, 320)
    assert large.shape == (240, 320, 3)
    # 10 x 13 pixels of the large one are one of the agent's: their mean, rounded.
    rows = large.reshape(24, 10, 320, 3).mean(axis=1)
    columns = rows[:, :312].reshape(24, 24, 13, 3).mean(axis=2)
    assert np.corrcoef(columns.ravel(), game.reset(0).ravel())[0, 1] > 0.9


def test_it_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = simulator(size=8)
    made.reset(0)
    assert not list(tmp_path.iterdir())
    made.close()
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(Refused, match="env=TakeCover needs the package vizdoom"):
        simulator()


@pytest.mark.parametrize("continuous", [True, False])
def test_settings_reach_the_game(continuous):
    config = TakeCoverConfig(size=16, color=Color.gray, continuous=continuous)
    entry = registry.REGISTRY["TakeCover"]
    assert entry.simulator is not None
    made = entry.simulator(config)()
    assert made.facts.picture == (16, 16, 1)
    assert len(entry.labels(config)) == (made.facts.choices or len(made.facts.low))
    made.close()


@pytest.mark.slow
def test_evolution_learns_in_it_and_is_filmed(tmp_path):
    words = "agent=es env=TakeCover env.size=24 encoder.top_k=3 agent.population=4"
    short = "agent.episodes=1 iterations=1 env.time_limit=80 evaluate_every=1"
    typed = [*words.split(), *short.split(), f"root={tmp_path}"]
    assert main(typed) == 0
    (path,) = (path for path in tmp_path.iterdir() if path.is_dir())
    summary = json.loads((path / "summary.json").read_text())
    # Nobody is hit within 80 tics, each of which is a point.
    assert (summary["mean"], summary["sd"]) == (80, 0)
    assert list((path / "videos").glob("*.mp4"))
