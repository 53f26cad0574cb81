import re
import sys

import numpy as np
import pytest

from envs import registry
from envs.adapters.gymnasium import RENDER, simulator
from envs.adapters.gymnasium_settings import Backend, GymnasiumConfig
from envs.adapters.host_simulator import Refused

ID = "CarRacing-v3"
ACTIONS = np.random.default_rng(0).uniform((-1, 0, 0), 1, (40, 3)).astype(np.float32)


def made(id, options):
    from envs.adapters.envpool import made

    return made(id, options)


def test_a_missing_package_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(Refused, match="needs the package envpool"):
        simulator(ID, {}, made=made)


@pytest.mark.parametrize("name", ["seed", "num_envs", "num_threads", "env_type"])
def test_what_each_world_is_made_with_is_refused_as_an_option(name):
    with pytest.raises(Refused, match=rf"env\.options\.{name} is 2, but each"):
        made(ID, {name: 2})


@pytest.fixture
def world():
    pytest.importorskip("envpool")
    one = simulator(ID, {}, painted=RENDER, made=made)
    yield one
    one.close()


def story(world, seed):
    pictures, rewards = [world.reset(seed)], []
    for action in ACTIONS:
        _, reward, terminated, truncated = world.step(action)
        assert not (terminated or truncated)
        pictures.append(world.observe())
        rewards.append(reward)
    return np.array(pictures), rewards


def test_an_episode_comes_from_its_seed_alone(world):
    pictures, rewards = story(world, 7)
    others, _ = story(world, 8)
    again, same = story(world, 7)
    np.testing.assert_array_equal(pictures, again)
    assert rewards == same
    assert np.any(others[0] != pictures[0]), "another track"


def test_it_is_the_first_episode_of_envpools_own_with_that_seed(world):
    import envpool

    pictures, rewards = story(world, 7)
    pool = envpool.make(ID, env_type="gymnasium", num_envs=2, seed=[3, 7])
    seen, earned = [pool.reset()[0][1]], []
    for action in ACTIONS:
        now, reward, *_ = pool.step(np.stack([action, action]))
        seen.append(now[1])
        earned.append(float(reward[1]))
    np.testing.assert_array_equal(pictures, seen)
    assert rewards == earned


def test_its_facts_and_its_paintings(world):
    facts = world.facts
    assert (facts.picture, facts.max_steps, facts.choices) == ((96, 96, 3), 1000, 0)
    assert (facts.low, facts.high) == ((-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    world.reset(7)
    painted = world.paint(200, 300)
    assert (painted.shape, painted.dtype) == ((200, 300, 3), np.uint8)
    assert painted.std() > 10


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers():
    pytest.importorskip("envpool")
    config = GymnasiumConfig(id=ID, backend=Backend.envpool, action_repeat=4)

    def begin(index, seen):
        total, picture = 0.0, seen.observation.copy()
        for action in ACTIONS[:10]:
            seen = yield action
            total += seen.reward
        return total, seen.frames, picture.tobytes(), seen.observation.tobytes()

    found = []
    for workers in (1, 2):
        host = registry.host(config, workers, 60.0)
        found.append(host.play([5, 6, 7, 5], begin, (0, 0)))
        host.close()
    assert found[0] == found[1]
    assert found[0][0] == found[0][3] != found[0][1]


@pytest.mark.parametrize(
    ("id", "options", "sentence"),
    [
        ("CarRacing-v4", {}, "EnvPool has no env.id=CarRacing-v4; did you mean CarRac"),
        (ID, {"foo": 1}, f"EnvPool cannot make env.id={ID} with {{'foo': 1}}: "),
    ],
)
def test_what_it_has_not_is_refused(id, options, sentence):
    pytest.importorskip("envpool")
    with pytest.raises(Refused, match=re.escape(sentence)):
        simulator(id, options, made=made)
