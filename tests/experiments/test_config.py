"""Settings: how a command line becomes a Config, and how it is refused."""

import dataclasses
import re

import pytest

from agents.controllers import Core
from agents.es import Strategy
from envs.settings import Color
from experiments import folder
from experiments.arguments import compose, stored, sweep
from experiments.config import (
    DEFAULTS,
    GROUPS,
    OF_THE_COMMAND,
    PRESETS,
    Config,
    Mode,
    identified,
    plain,
)
from experiments.folder import RunError
from experiments.usage import descriptions, usage
from iap import EncoderConfig, Kernel


def refusal(*arguments: str) -> str:
    with pytest.raises((RunError, ValueError)) as caught:
        compose(arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what is accepted ---------------------------------------------------------------


def test_the_main_command():
    config = compose(
        [
            *("agent=es", "env=CarRacing", "agent.population=128"),
            *("encoder.kernel=positive", "agent.params.c_std=0.1", "seed=3"),
            *("iterations=300", "env.color=gray", "agent.strategy=Sep_CMA_ES"),
        ]
    )
    assert config.agent.population == 128
    assert config.agent.params == {"c_std": 0.1}
    assert config.agent.strategy is Strategy.Sep_CMA_ES
    assert config.env.color is Color.gray
    assert config.encoder.kernel is Kernel.positive
    assert (config.seed, config.iterations) == (3, 300)


def test_without_arguments_all_is_default():
    config = compose([])
    for group, name in DEFAULTS.items():
        option = GROUPS[group][name]
        default = option() if isinstance(option, type) else option
        assert getattr(config, group) == default
    assert config.mode is Mode.train


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group]]
)
def test_every_choice_composes(group, name):
    option = GROUPS[group][name]
    default = option() if isinstance(option, type) else option
    assert getattr(compose([f"{group}={name}"]), group) == default


def test_a_choice_and_a_change_of_it():
    config = compose(["encoder.top_k=7", "encoder=attention_agent", "controller=lstm"])
    preset = EncoderConfig.attention_agent()
    assert config.encoder == dataclasses.replace(preset, top_k=7)
    assert config.controller.core is Core.lstm


def test_random_features_follow_the_seed_unless_they_have_their_own():
    assert compose(["seed=5"]).encoder.seed == 5
    assert compose(["seed=5", "encoder.seed=2"]).encoder.seed == 2


@pytest.mark.parametrize("name", PRESETS)
def test_presets_compose_and_what_is_typed_wins(name):
    assert compose([f"experiment={name}", "iterations=7"]).iterations == 7
    preset = plain(compose([f"experiment={name}"]))
    changed = PRESETS[name].read_text()
    iterations = re.search(r"^iterations: (\d+)", changed, re.MULTILINE)
    assert iterations and preset["iterations"] == int(iterations[1])


def test_the_last_of_two_wins():
    assert compose(["seed=1", "seed=2"]).seed == 2


def test_settings_are_frozen():
    config = compose([])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.agent.population = 3


def test_a_sweep_is_every_combination():
    jobs = sweep(["seed=1,2", "agent.population=range(2,6,2)", "env=CarRacing"])
    assert [job[:2] for job in jobs] == [
        ["seed=1", "agent.population=2"],
        ["seed=1", "agent.population=4"],
        ["seed=2", "agent.population=2"],
        ["seed=2", "agent.population=4"],
    ]
    assert all(job[2] == "env=CarRacing" for job in jobs)


# --- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("agent.populaton=3", ["did you mean agent.population?", "strategy, pop"]),
        ("population=3", ["did you mean agent.population?", "iterations"]),
        ("zzz=3", ["zzz is not a setting; there are agent, env", "iterations"]),
        ("hydra.run.dir=x", ["hydra.run.dir is not a setting"]),
        ("agent.name=x", ["agent.name is not a setting"]),
        ("env.size.x=3", ["env.size.x is not a setting"]),
        ("agent=ess", ["agent=ess", "did you mean es?", "one of es"]),
        ("env=CarRacng", ["did you mean CarRacing?"]),
        ("experiment=smok", ["did you mean smoke?", ", ".join(PRESETS)]),
        ("encoder.kernel=possitive", ["did you mean positive?", "exact, relu"]),
        ("mode=trian", ["did you mean train?", "train, evaluate, record"]),
        ("agent.population=x", ["agent.population is 'x'", "a whole number"]),
        ("agent.population=2.5", ["agent.population is 2.5", "a whole number"]),
        ("agent.std=wide", ["agent.std is 'wide'", "a number"]),
        ("agent.params.c_std=x", ["agent.params.c_std is 'x'", "a number"]),
        ("agent.params=3", ["agent.params is 3", "names with numbers"]),
        ("fresh=maybe", ["fresh is 'maybe'", "true or false"]),
        ("root=[1]", ["root is [1]", "a text"]),
        ("seed=-1", ["seed is -1", "at least 0"]),
        ("log_every=0", ["log_every is 0", "at least 1"]),
        ("seed=1,2", ["seed=1,2", "add -m"]),
        ("seed", ["'seed'", "key=value"]),
        ("+seed=3", ["'+seed=3'", "key=value"]),
        ("~seed", ["'~seed'", "key=value"]),
        ("agent@x=es", ["'agent@x=es'", "key=value"]),
        ("root=a(b", ["'root=a(b'", "quote"]),
        ("seed=${nothing}", ["nothing"]),
        ("encoder.top_k=0", ["top_k"]),
        ("env.tracks=0", ["env.tracks is 0", "at least 1"]),
        ("controller.size=0", ["controller.size is 0"]),
        ("env.variant=bar", ["env.variant is 'bar'", "color, bars, blob, channels"]),
        ("env.variant=noise+video", ["noise and video", "leave one of them out"]),
        ("env.video=x.mp4", ["env.video is x.mp4", "add video"]),
        ("mode=evaluate", ["mode=evaluate needs", "run="]),
    ],
)
def test_a_refusal_names_the_setting_and_what_is_valid(argument, parts):
    message = refusal(argument)
    for part in parts:
        assert part in message, message


# --- runs ---------------------------------------------------------------------------


def test_identity_is_of_what_is_learned_and_not_of_how_long():
    def name(*arguments):
        return folder.identity(identified(compose(arguments)))

    base = name()
    assert name("iterations=9", "devices=1", "log_every=3", "root=x") == base
    assert name("agent=es", "env=CarRacing", "agent.population=64") == base
    others = [
        name(argument)
        for argument in (
            "seed=1",
            "agent.population=65",
            "env.size=48",
            "encoder.bias=0",
            "env.variant=bars",
            "env.variant=bars+noise",
            "env.domain_randomize=true",
        )
    ]
    assert len({base, *others}) == 8
    assert name("env.variant=noise+bars") == name("env.variant=bars+noise")


@pytest.fixture
def run(tmp_path):
    """A run's folder with its settings."""
    config = compose(
        [
            *("agent.population=32", "encoder=attention_agent", "controller=lstm"),
            *("seed=4", "iterations=50", "agent.params.c_std=0.2", f"root={tmp_path}"),
            *("env.action_repeat=2", "devices=1", "debug=true"),
        ]
    )
    folder.write_config(tmp_path / "name", plain(config))
    return tmp_path / "name", config


def test_stored_settings_come_back(run):
    path, config = run
    assert identified(stored(path)) == identified(config)
    assert stored(path).iterations == 50
    for name in OF_THE_COMMAND:
        assert getattr(stored(path), name) == getattr(Config, name)


def test_what_is_typed_changes_the_stored_settings(run):
    path, config = run
    found = compose(["mode=evaluate", f"run={path}", "env.action_repeat=1"])
    assert found.env == dataclasses.replace(config.env, action_repeat=1)
    assert found.encoder == config.encoder
    assert (found.mode, found.run, found.seed) == (Mode.evaluate, str(path), 4)


def test_a_run_can_be_evaluated_in_another_variant(run):
    path, config = run
    typed = ("mode=evaluate", f"run={path}", "env.variant=noise+bars")
    expected = dataclasses.replace(config.env, variant="bars+noise")
    assert compose(typed).env == expected


def test_a_typed_choice_replaces_the_stored_section(run):
    path, _ = run
    found = compose([f"resume={path}", "controller=mlp", "seed=9"])
    assert found.controller == GROUPS["controller"]["mlp"]
    assert found.encoder.seed == 4, "what was drawn when the run began stays"


def test_a_run_is_found_by_its_name_below_the_root(run):
    path, config = run
    found = compose([f"resume={path.name}", f"root={path.parent}"])
    assert identified(found) == identified(config)


def test_what_is_no_run_is_refused(run, tmp_path):
    path, _ = run
    assert "is not a run's folder" in refusal("mode=record", f"run={tmp_path}")
    others = tmp_path / "others"
    root = f"root={others}"
    assert "holds no run yet" in refusal("mode=record", "run=CarRacing-es", root)
    for name in ("CarRacing-es-s0", "CarRacing-ppo-s0"):
        (others / name).mkdir(parents=True)
        (others / name / "config.yaml").touch()
    told = refusal("mode=record", "run=CarRacing-es-0", root)
    assert f"choose a run, such as {others / 'CarRacing-es-s0'}" in told
    assert "cannot change an existing run" in refusal(
        f"resume={path}", "experiment=smoke"
    )
    assert "use resume=" in refusal(f"run={path}")
    assert "exclude each other" in refusal(f"resume={path}", "fresh=true")


@pytest.mark.parametrize(
    "content", ["", "- 1", "agent: {", "agent: {name: es}", "{agent: {name: x}}"]
)
def test_a_damaged_config_is_refused(run, content):
    path, _ = run
    (path / folder.CONFIG).write_text(content)
    assert f"cannot read {path / folder.CONFIG}" in refusal(f"resume={path}")


def test_a_config_of_another_version_is_refused(run):
    path, _ = run
    text = (path / folder.CONFIG).read_text()
    (path / folder.CONFIG).write_text(text.replace("population:", "inhabitants:"))
    message = refusal(f"resume={path}")
    assert "does not fit this version" in message and "inhabitants" in message


# --- help ---------------------------------------------------------------------------


def test_help_explains_every_setting():
    text = usage([])
    sections = {"": Config, **{f"{g}.": type(getattr(compose([]), g)) for g in GROUPS}}
    for prefix, kind in sections.items():
        explained = descriptions(kind)
        for field in dataclasses.fields(kind):
            if field.name in (*GROUPS, "name"):
                continue
            assert explained[field.name].endswith("."), (kind, field.name)
            assert f"  {prefix}{field.name}=" in text
    assert max(map(len, text.splitlines())) <= 88


def test_help_shows_what_is_chosen():
    text = usage(["encoder=attention_agent", "agent.population=12"])
    assert "encoder.window=7 " in text and "agent.population=12 " in text
    for group, options in GROUPS.items():
        listed = r",\s+".join(options)
        assert re.search(rf"^  {group} +{listed}$", text, re.MULTILINE)
