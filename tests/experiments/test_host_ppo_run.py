"""PPO from the command line with simulators in processes of their own."""

from pathlib import Path

import numpy as np
import pytest

from experiments import checkpoint, folder, metrics
from experiments.main import main

PPO = (
    *("env=gymnasium", "env.id=tests.envs.adapters.own_world:Chase-v1", "agent=ppo"),
    *("agent.worlds=4", "agent.steps=8", "agent.minibatches=2", "agent.epochs=2"),
    *("controller=gru", "controller.size=4"),
    *("encoder.window=4", "encoder.stride=4", "encoder.top_k=3"),
    *("evaluate_every=0", "save_every=2", "film_every=0"),
)
CLOCK = {"seconds", "decisions_per_second", "frames_per_second"}


def kept(root: Path):
    """Logged numbers without the clock's, and every array of the newest checkpoint."""
    (path,) = (path for path in root.iterdir() if path.is_dir())
    rows = metrics.read_csv(path / folder.METRICS)
    rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]
    newest = checkpoint.numbered(path / folder.CHECKPOINTS)[0]
    with np.load(newest, allow_pickle=False) as content:
        names = [name for name in content.files if name != checkpoint.MANIFEST]
        return rows, {name: content[name] for name in names}


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_to_the_same_numbers(tmp_path, capsys):
    """With any number of simulators, none of which is part of what is saved."""
    for root, workers, iterations in (("a", 1, 2), ("a", 3, 4), ("b", 2, 4)):
        settings = (f"root={tmp_path / root}", f"workers={workers}")
        assert main([*PPO, *settings, f"iterations={iterations}"]) == 0
    assert "Going on from iteration 2" in capsys.readouterr().out
    (rows, arrays), (again, arrays_again) = (kept(tmp_path / root) for root in "ab")
    # 5 decisions an episode: each iteration ends one in every stream.
    assert [row["episodes"] for row in rows] == [4] * 4
    assert rows == again
    assert arrays.keys() == arrays_again.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, arrays_again[name], err_msg=name)
