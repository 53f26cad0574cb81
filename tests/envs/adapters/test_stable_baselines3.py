import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from envs.adapters.as_gymnasium import CarRacingVector

EXAMPLE = Path(__file__).parents[3] / "docs/examples/train_with_stable_baselines3.py"
GAS = np.tile(np.array([0.0, 0.2, 0.0], np.float32), (3, 1))


def example():
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(**settings):
    envs = CarRacingVector(
        3, tracks=2, size=16, autoreset_mode="SameStep", max_episode_steps=2, **settings
    )
    envs.reset(seed=0)
    return envs


def test_a_truncated_episode_is_told_as_stable_baselines3_wants_it():
    step, envs, alike = example().step, made(), made()
    results = [step(envs, GAS) for _ in range(2)]
    expected = [alike.step(GAS) for _ in range(2)]
    for (seen, paid, ended, _), other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(seen, other[0])
        np.testing.assert_array_equal(paid, other[1].astype(np.float32))
        assert paid.dtype == np.float32 and seen.flags.writeable
        assert (ended == (other[2] | other[3])).all()
    assert not results[0][2].any() and results[1][2].all()
    assert results[0][3] == [{"TimeLimit.truncated": False}] * 3
    for i, info in enumerate(results[1][3]):
        assert info.keys() == {"TimeLimit.truncated", "terminal_observation"}
        assert info["TimeLimit.truncated"] is True
        last = expected[1][-1]["final_obs"][i]
        np.testing.assert_array_equal(info["terminal_observation"], last)
        assert (info["terminal_observation"] != results[1][0][i]).any()


def test_a_terminated_episode_is_not_truncated():
    envs = made(lap_rule="intended", lap_complete_percent=0.001)
    *_, ended, infos = example().step(envs, GAS)
    assert ended.all()
    for info in infos:
        assert info["TimeLimit.truncated"] is False
        assert info["lap_finished"] is True
        assert info["terminal_observation"].shape == (16, 16, 3)


@pytest.mark.slow
def test_the_example_runs():
    pytest.importorskip("stable_baselines3")
    small = {"--steps": "512", "--worlds": "4", "--tracks": "2", "--length": "20"}
    command = [
        sys.executable,
        str(EXAMPLE),
        *(a for pair in small.items() for a in pair),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    before, trained, after = run.stdout.splitlines()[1:]
    assert before.startswith("before ") and after.startswith("after ")
    assert trained.startswith("trained for 512 frames")
