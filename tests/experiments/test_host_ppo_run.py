"""PPO from the command line with simulators in processes of their own."""

import pytest

from experiments.main import main
from tests.experiments.kept import assert_same, kept

PPO = (
    *("env=gymnasium", "env.id=tests.envs.adapters.own_world:Chase-v1", "agent=ppo"),
    *("agent.worlds=4", "agent.steps=8", "agent.minibatches=2", "agent.epochs=2"),
    *("controller=gru", "controller.size=4"),
    *("encoder.window=4", "encoder.stride=4", "encoder.top_k=3"),
    *("evaluate_every=0", "save_every=2", "film_every=0"),
)


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_to_the_same_numbers(tmp_path, capsys):
    """With any number of simulators, none of which is part of what is saved."""
    for root, workers, iterations in (("a", 1, 2), ("a", 3, 4), ("b", 2, 4)):
        settings = (f"root={tmp_path / root}", f"workers={workers}")
        assert main([*PPO, *settings, f"iterations={iterations}"]) == 0
    assert "Going on from iteration 2" in capsys.readouterr().out
    one, other = (kept(*(tmp_path / root).glob("*-ppo-*")) for root in "ab")
    # 5 decisions an episode: each iteration ends one in every stream.
    assert [row["episodes"] for row in one[0]] == [4] * 4
    assert_same(one, other)
