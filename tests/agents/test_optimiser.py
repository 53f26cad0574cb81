import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.optimiser import adam, falling

PARAMS = {"a": jnp.float32([1.0, -2.0]), "b": jnp.float32(0.5)}
GRADIENT = {"a": jnp.float32([3.0, 4.0]), "b": jnp.float32(12.0)}
LOSS = jnp.float32(1)
RATE = jnp.float32(0.1)


def test_the_first_step_of_adam_is_as_long_as_the_learning_rate():
    optimiser = adam(bound=100.0)
    trained, norm = optimiser.step(optimiser.init(PARAMS), GRADIENT, LOSS, RATE)
    np.testing.assert_allclose(norm, 13)
    np.testing.assert_allclose(trained.params["a"], [0.9, -2.1], rtol=1e-5)
    np.testing.assert_allclose(trained.params["b"], 0.4, rtol=1e-5)


def test_adam_equals_its_equations():
    """Algorithm 1 of arXiv 1412.6980 in float64, behind a bound of 5 on the norm."""
    optimiser = adam(bound=5.0)
    rng = np.random.default_rng(0)
    trained, x, m, v = optimiser.init(PARAMS), np.array([1.0, -2.0, 0.5]), 0.0, 0.0
    step = jax.jit(optimiser.step)
    for t in range(1, 20):
        g = rng.normal(0, 4, 3)
        gradient = {"a": jnp.float32(g[:2]), "b": jnp.float32(g[2])}
        trained, norm = step(trained, gradient, LOSS, RATE)
        np.testing.assert_allclose(norm, np.linalg.norm(g), rtol=1e-5)
        g = g * min(1, 5 / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-5)
        found = [*trained.params["a"], trained.params["b"]]
        np.testing.assert_allclose(found, x, rtol=1e-4)
    assert trained.updates == 19


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_what_is_not_finite_moves_nothing(where, bad):
    optimiser = adam(bound=5.0)
    before, _ = optimiser.step(optimiser.init(PARAMS), GRADIENT, LOSS, RATE)
    gradient, loss = GRADIENT, LOSS
    if where == "loss":
        loss = jnp.float32(bad)
    else:
        gradient = {**GRADIENT, "b": jnp.float32(bad)}
    after = before
    for _ in range(2):
        after, _ = optimiser.step(after, gradient, loss, RATE)
    for name in ("params", "memory", "updates"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(after, name), getattr(before, name)
        )
    assert (after.skipped, after.in_a_row) == (2, 2)
    again, _ = optimiser.step(after, GRADIENT, LOSS, RATE)
    assert (again.skipped, again.in_a_row, again.updates) == (2, 0, 2)


@pytest.mark.parametrize(
    ("decay", "rates"), [(4, [0.1, 0.075, 0.05, 0.025, 0, 0]), (0, [0.1] * 6)]
)
def test_the_learning_rate_falls_in_a_straight_line(decay, rates):
    found = [falling(0.1, decay, jnp.int32(i)) for i in range(6)]
    np.testing.assert_allclose(found, rates, atol=1e-8)
    assert found[0].dtype == jnp.float32
