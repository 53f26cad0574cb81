"""Every kind of encoder from the command line, and back from a run's folder."""

import pytest
from omegaconf import OmegaConf

from experiments.arguments import compose, stored
from experiments.config import plain
from experiments.folder import CONFIG, RunError
from experiments.usage import usage
from iap import EncoderConfig, Kernel, Kind, Ranking, TransConfig


@pytest.mark.parametrize(
    ("arguments", "encoder"),
    [
        ([], EncoderConfig()),
        (
            ["encoder=mask", "encoder.heads=2"],
            EncoderConfig(kind=Kind.mask, content=True, heads=2),
        ),
        (["encoder.kind=mask"], EncoderConfig(kind=Kind.mask)),
        (
            ["encoder=trans", "encoder.kernel=taylor", "encoder.restructured=1"],
            TransConfig(kernel=Kernel.taylor, restructured=1),
        ),
    ],
)
def test_an_encoder_is_chosen_and_found_again(arguments, encoder, tmp_path):
    config = compose(["seed=3", *arguments])
    assert config.encoder == type(encoder)(**{**vars(encoder), "seed": 3})
    OmegaConf.save(OmegaConf.create(plain(config)), tmp_path / CONFIG)
    assert stored(tmp_path).encoder == config.encoder


def test_settings_of_another_encoder_are_refused():
    with pytest.raises(RunError, match=r"encoder\.temperature is not a setting"):
        compose(["encoder=trans", "encoder.temperature=1"])


def test_help_explains_trans():
    assert "encoder.restructured=0" in usage(["encoder=trans"])


def test_settings_from_before_a_baseline_could_be_trained_are_attention(tmp_path):
    config = compose(["encoder.ranking=mean_query"])
    assert config.encoder.ranking is Ranking.mean_query
    old = plain(config)
    del old["encoder"]["ranking"]
    OmegaConf.save(OmegaConf.create(old), tmp_path / CONFIG)
    assert stored(tmp_path).encoder == EncoderConfig()


def test_help_explains_the_baselines():
    told = usage([])
    assert "encoder.ranking=attention" in told
    assert all(ranking.value in told for ranking in Ranking)
