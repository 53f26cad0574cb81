import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import distributions
from agents.controllers import ControllerConfig, Core
from agents.policy import make_actor_critic, make_policy, parameter_count
from envs.core import Box, Discrete, Spec
from iap import EncoderConfig

CAR = Box((3,), (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def spec(size=96, action=CAR):
    return Spec(Box((size, size, 3), (0,), (255,), "uint8"), action, 1000, 50)


def test_box_mode_is_tanh_scaled_to_the_bounds():
    raw = jnp.array([-20.0, 0.0, 0.5])
    expected = [-1.0, 0.5, (1 + np.tanh(0.5)) / 2]
    np.testing.assert_allclose(distributions.mode(CAR, raw), expected, rtol=1e-6)


def test_discrete_mode_is_the_largest_output():
    raw = jnp.array([0.1, 3.0, -1.0, 2.0])
    choice = distributions.mode(Discrete(4), raw)
    assert choice == 1
    assert choice.dtype == jnp.int32


@pytest.mark.parametrize(
    ("encoder", "controller", "count"),
    [
        # FACTS: AttentionAgent's net in haiku (one LSTM bias) has 3,603 parameters.
        (EncoderConfig.attention_agent(), ControllerConfig(Core.lstm, 16), 3603),
        # 2 x (48 x 4 + 4) for q and k, (20 + 16) x 16 + 16, 16 x 3 + 3.
        (EncoderConfig(), ControllerConfig(Core.rnn, 16), 1035),
        (EncoderConfig(), ControllerConfig(Core.mlp, 16), 779),
        # One more tanh layer, 16 x 16 + 16.
        (EncoderConfig(), ControllerConfig(Core.mlp, 16, layers=2), 1051),
        # 20 x 16 + 16 before the rnn, then (16 + 16) x 16 + 16.
        (EncoderConfig(), ControllerConfig(Core.rnn, 16, layers=2), 1307),
        # 20 x 48 + 16 x 48 + 48.
        (EncoderConfig(), ControllerConfig(Core.gru, 16), 2219),
    ],
)
def test_parameter_counts(encoder, controller, count):
    params = make_policy(spec(), encoder, controller).init(jax.random.key(0))
    assert parameter_count(params) == count


def test_a_critic_and_a_distribution_add_an_output_each():
    """2 x (48 x 4 + 4) + 336 as above; six raw outputs and a value of 16 units."""
    policy = make_actor_critic(spec(), EncoderConfig(), ControllerConfig(Core.mlp, 16))
    params = policy.init(jax.random.key(0))
    assert parameter_count(params) == 392 + 336 + 7 * (16 + 1)


@pytest.mark.parametrize("core", list(Core))
def test_only_recurrent_cores_remember(core):
    policy = make_policy(spec(16), EncoderConfig(top_k=3), ControllerConfig(core, 8))
    params = policy.init(jax.random.key(0))
    image, other = jax.random.randint(
        jax.random.key(1), (2, 16, 16, 3), 0, 256, jnp.uint8
    )
    _, first = policy.act(params, policy.start(), image, None)
    carry, _ = policy.act(params, policy.start(), other, None)
    _, second = policy.act(params, carry, image, None)
    same = np.allclose(first.action, second.action)
    assert same == (core is Core.mlp)


def test_actions_stay_within_bounds_at_huge_weights():
    policy = make_policy(spec(16), EncoderConfig(top_k=3), ControllerConfig())
    params = jax.tree.map(lambda x: x * 1e3, policy.init(jax.random.key(0)))
    image = jnp.full((16, 16, 3), 255, jnp.uint8)
    _, decision = policy.act(params, policy.start(), image, None)
    assert jnp.isfinite(decision.action).all()
    assert (decision.action >= jnp.array(CAR.low)).all()
    assert (decision.action <= jnp.array(CAR.high)).all()


def test_an_encoder_that_does_not_fit_stops_before_anything_compiles():
    with pytest.raises(ValueError, match="window"):
        make_policy(spec(8), EncoderConfig(window=9), ControllerConfig())
    with pytest.raises(ValueError, match="top_k"):
        make_policy(spec(8), EncoderConfig(top_k=10), ControllerConfig())


def test_a_controller_needs_a_unit_and_a_layer():
    with pytest.raises(ValueError, match=r"controller\.size is 0"):
        ControllerConfig(size=0)
    with pytest.raises(ValueError, match=r"controller\.layers is 0"):
        ControllerConfig(layers=0)


# --- policies with a distribution ---------------------------------------------------


@pytest.mark.parametrize("action", [CAR, Discrete(5)], ids=["box", "discrete"])
def test_both_kinds_of_policy_look_and_lean_alike(action):
    """Given the same weights: evolution plays a mode, a policy gradient the mean of a
    distribution around it, which lies between the mode and the middle of the range."""
    encoder, controller = EncoderConfig(top_k=3), ControllerConfig(Core.lstm, 8)
    critic = make_actor_critic(spec(16, action), encoder, controller)
    params = critic.init(jax.random.key(0))
    image = jax.random.randint(jax.random.key(1), (16, 16, 3), 0, 256, jnp.uint8)
    plain = make_policy(spec(16, action), encoder, controller)
    count = distributions.parameters(action)
    fewer = jax.tree_util.tree_map_with_path(
        lambda path, x: x[..., :count] if "action" in str(path) else x, params
    )
    fewer = {name: leaf for name, leaf in fewer.items() if "value" not in name}
    _, expected = plain.act(fewer, plain.start(), image, None)
    _, found = critic.act(params, critic.start(), image, None)
    np.testing.assert_array_equal(found.attention.index, expected.attention.index)
    if isinstance(action, Discrete):
        assert found.action == expected.action
    else:
        middle = (np.asarray(action.low) + action.high) / 2
        share = (found.action - middle) / (expected.action - middle)
        assert ((share > 0) & (share < 1)).all()
    assert found.choice == found.log_prob == found.value == ()


def test_a_drawn_decision_depends_on_its_key_alone():
    encoder = EncoderConfig(top_k=3, temperature=1.0)
    policy = make_actor_critic(spec(16), encoder, ControllerConfig())
    params = policy.init(jax.random.key(0))
    image = jax.random.randint(jax.random.key(1), (16, 16, 3), 0, 256, jnp.uint8)
    first, again, other = (
        policy.act(params, policy.start(), image, jax.random.key(seed))[1]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.action, again.action)
    np.testing.assert_array_equal(first.choice, again.choice)
    assert (first.action != other.action).all()
    assert (first.choice != other.choice).any()
    # Drawn in any order, handed on in rows.
    np.testing.assert_array_equal(jnp.sort(first.choice), first.attention.index)
    _, mode = policy.act(params, policy.start(), image, None)
    best = jnp.sort(jnp.argsort(-mode.attention.scores)[:3])
    np.testing.assert_array_equal(mode.attention.index, best)


def test_evolution_draws_no_patches():
    with pytest.raises(ValueError, match=r"encoder\.temperature is 1.*agent=ppo"):
        make_policy(spec(16), EncoderConfig(temperature=1.0), ControllerConfig())
