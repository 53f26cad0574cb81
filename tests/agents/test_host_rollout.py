import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import es, host_rollout
from agents.controllers import ControllerConfig, Core
from agents.policy import make_policy
from agents.rollout import episode_keys, returns
from envs.transforms import action_repeat
from envs.vector import vectorise
from iap import EncoderConfig
from tests.hosts import in_process
from tests.probes import dot_world

KEY = jax.random.key(5)
# Without noise, all that is random in an episode comes from its level.
DOT = action_repeat(dot_world(max_steps=16, noise=0.0), 2)
SEEDS = [0, 4, 1, 4, 5]


@pytest.fixture(scope="module")
def policy():
    encoder = EncoderConfig(window=3, stride=3, top_k=3, features=8)
    return make_policy(DOT.spec, encoder, ControllerConfig(Core.rnn, 4))


def params_of(policy, scale=3.0):
    params = policy.init(jax.random.key(1))
    return jax.tree.map(lambda leaf: scale * leaf, params)


def twin(policy, params, patience=None):
    """The same episodes as JAX plays them."""
    env = vectorise(DOT, len(SEEDS))
    carry = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (len(SEEDS), *leaf.shape)), policy.start()
    )
    act = jax.vmap(lambda carry, seen: policy.act(params, carry, seen, None))
    keys = episode_keys(KEY, len(SEEDS))
    return returns(env, DOT.world, act, carry, jnp.array(SEEDS), keys, patience)


@pytest.mark.parametrize("patience", [None, 2])
def test_the_twins_agree(policy, patience):
    params = params_of(policy)
    host = host_rollout.returns(
        in_process(DOT),
        host_rollout.acting(policy),
        policy.start(),
        lambda _: params,
        SEEDS,
        patience,
    )
    lax = twin(policy, params, patience)
    # At most 16 float32 rewards below 1, summed in another order: < 16 * 2**-24.
    np.testing.assert_allclose(host.returns, lax.returns, atol=1e-5)
    np.testing.assert_array_equal(host.decisions, lax.decisions)
    np.testing.assert_array_equal(host.frames, lax.frames)
    assert host.returns[1] == host.returns[3] != host.returns[0]


def test_each_episode_has_its_own_parameters(policy):
    def play(params):
        act = host_rollout.acting(policy)
        return host_rollout.returns(
            in_process(DOT), act, policy.start(), params, [4, 4]
        ).returns

    one, other = params_of(policy), params_of(policy, -3.0)
    mixed = play(lambda index: (one, other)[index])
    assert mixed.tolist() == [play(lambda _: one)[0], play(lambda _: other)[1]]
    assert mixed[0] != mixed[1]


def test_a_repeated_episode_begins_anew(policy):
    """Neither the rewards nor the memory of the attempt that was lost are left."""
    act, params = host_rollout.acting(policy), params_of(policy)

    def play(repeats):
        env = in_process(DOT, repeats)
        return host_rollout.returns(env, act, policy.start(), lambda _: params, SEEDS)

    jax.tree.map(np.testing.assert_array_equal, play(0), play(2))


def test_evolution_is_the_same_on_the_host(policy):
    """Two generations; the tolerance is that of the twins, grown by the second."""
    config = es.ESConfig(population=4, episodes=2, patience=0)
    learners = [
        (es.make(config, policy, in_process(DOT), 6, jax.devices()), np.arange(6)),
        (es.make(config, policy, vectorise(DOT, 2), 6, jax.devices()), DOT.world),
    ]
    seen = []
    for learner, world in learners:
        state, world = learner.init(KEY), learner.place(world)
        for iteration in range(2):
            state, metrics = learner.update(state, world, jax.random.key(iteration))
        seen.append((jax.device_get(dict(metrics)), learner.acting(state)))
    (host, evolved), (lax, same) = seen
    assert host.keys() == lax.keys()
    for name in host:
        np.testing.assert_allclose(host[name], lax[name], rtol=1e-4, atol=1e-5)
        assert host[name].dtype == lax[name].dtype
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), evolved, same
    )
    assert host["return_best"] > host["return_worst"]
