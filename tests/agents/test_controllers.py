import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import controllers
from agents.controllers import Controller, ControllerConfig, Core

STEPS, FEATURES, SIZE = 7, 5, 3


def network(core, layers=1):
    config = ControllerConfig(core, SIZE, layers)

    def forward(features, carry):
        return Controller(config, 2, critic=True)(features, carry)

    return hk.without_apply_rng(hk.transform(forward)), controllers.start(config)


def played(core, inputs):
    """Hidden outputs of a whole episode, its memories, and the parameters."""
    net, carry = network(core)
    params = net.init(jax.random.key(0), inputs[0], carry)
    outputs, carries = [], [carry]
    for features in inputs:
        raw, value, carry = net.apply(params, features, carry)
        outputs.append([*raw, value])
        carries.append(carry)
    return np.array(outputs), carries, params


INPUTS = jax.random.normal(jax.random.key(1), (STEPS, FEATURES))


@pytest.mark.parametrize("core", list(Core), ids=lambda core: core.name)
def test_a_memory_keeps_its_shapes_from_start_to_end(core):
    _, carries, _ = played(core, INPUTS)
    shapes = [jax.eval_shape(lambda carry=carry: carry) for carry in carries]
    assert shapes == [shapes[0]] * (STEPS + 1)
    assert bool(jax.tree.leaves(shapes)) == (core is not Core.mlp)


@pytest.mark.parametrize("core", list(Core), ids=lambda core: core.name)
def test_only_a_memory_makes_outputs_depend_on_the_past(core):
    other = INPUTS.at[0].add(1.0)
    one, two = (played(core, inputs)[0] for inputs in (INPUTS, other))
    assert (one[0] != two[0]).any()
    assert (one[-1] != two[-1]).any() == (core is not Core.mlp)


def test_the_causal_core_attends_to_every_step_so_far():
    """Weights proportional to (1 + elu q) . (1 + elu k), summed one by one."""
    found, _, params = played(Core.causal, INPUTS)
    f64 = {name: {k: np.float64(v) for k, v in p.items()} for name, p in params.items()}

    def linear(name, x):
        return x @ f64[f"controller/{name}"]["w"] + f64[f"controller/{name}"]["b"]

    def phi(x):
        return np.where(x > 0, 1 + x, np.exp(np.minimum(x, 0)))

    inputs = np.float64(INPUTS)
    queries, keys_, values = np.split(linear("tokens", inputs), 3, axis=1)
    for t in range(STEPS):
        weights = np.array([phi(queries[t]) @ phi(keys_[s]) for s in range(t + 1)])
        read = weights @ values[: t + 1] / weights.sum()
        hidden = np.tanh(linear("causal", np.concatenate([inputs[t], read])))
        expected = [*linear("action", hidden), *linear("value", hidden)]
        # Sums of at most 7 terms of size 1 in float32.
        np.testing.assert_allclose(found[t], expected, atol=1e-5)


def test_layers_before_the_core_are_tanh_layers():
    net, carry = network(Core.gru, layers=3)
    params = net.init(jax.random.key(0), jnp.ones(FEATURES), carry)
    assert {"controller/hidden", "controller/hidden_1", "controller/gru"} < {*params}
