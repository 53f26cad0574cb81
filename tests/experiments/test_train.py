import jax
import jax.numpy as jnp
import numpy as np

from agents import keys as names
from agents.core import Learner
from experiments.train import train

KEY = jax.random.key(7)


def counter() -> Learner:
    """Its state is a sum of what each iteration's own key draws."""

    def update(state, world, key):
        drawn = jax.random.normal(key)
        return state + world * drawn, {"drawn": drawn}

    return Learner(lambda key: jnp.float32(0), update, lambda s: s, lambda w: w)


def test_events_count_iterations_done():
    events = list(train(counter(), jnp.float32(0), jnp.float32(1), KEY, 3, 6))
    assert [event.iteration for event in events] == [4, 5, 6]


def test_nothing_is_learned_where_nothing_is_left():
    assert not list(train(counter(), jnp.float32(0), jnp.float32(1), KEY, 6, 6))


def test_iteration_i_uses_the_key_named_i():
    events = list(train(counter(), jnp.float32(0), jnp.float32(1), KEY, 0, 3))
    expected = [jax.random.normal(names.at(KEY, i)) for i in range(3)]
    np.testing.assert_array_equal([e.metrics["drawn"] for e in events], expected)


def test_an_interruption_changes_no_bit():
    learner, world = counter(), jnp.float32(0.5)
    *_, straight = train(learner, jnp.float32(0), world, KEY, 0, 9)
    *_, half = train(learner, jnp.float32(0), world, KEY, 0, 4)
    *_, resumed = train(learner, half.state, world, KEY, half.iteration, 9)
    assert straight.state == resumed.state


def test_it_is_a_stream():
    """An event is handed on before the next iteration begins."""
    begun = []
    learner = counter()._replace(
        update=lambda state, world, key: (begun.append(key), (state, {}))[1]
    )
    events = train(learner, None, None, KEY, 0, 100)
    next(events)
    assert len(begun) == 1
