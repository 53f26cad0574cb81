import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import distributions
from agents.controllers import ControllerConfig, Core
from agents.policy import make_policy, parameter_count
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
    ],
)
def test_parameter_counts(encoder, controller, count):
    params = make_policy(spec(), encoder, controller).init(jax.random.key(0))
    assert parameter_count(params) == count


@pytest.mark.parametrize("core", list(Core))
def test_only_recurrent_cores_remember(core):
    policy = make_policy(spec(16), EncoderConfig(top_k=3), ControllerConfig(core, 8))
    params = policy.init(jax.random.key(0))
    image = jax.random.randint(jax.random.key(1), (16, 16, 3), 0, 256, jnp.uint8)
    carry, first = policy.act(params, policy.start(), image, None)
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


def test_a_controller_needs_a_unit():
    with pytest.raises(ValueError, match=r"controller\.size is 0"):
        ControllerConfig(size=0)
