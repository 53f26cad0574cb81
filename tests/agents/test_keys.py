import jax
import pytest

from agents import keys


def test_no_two_streams_share_a_number():
    assert len(set(keys.STREAMS.values())) == len(keys.STREAMS)


def test_a_stream_is_a_function_of_its_name_alone():
    root = jax.random.key(3)
    first = jax.random.key_data(keys.stream(root, "ask"))
    again = jax.random.key_data(keys.stream(root, "ask"))
    other = jax.random.key_data(keys.stream(root, "tell"))
    assert (first == again).all()
    assert (first != other).any()


def test_an_unknown_stream_is_refused():
    with pytest.raises(KeyError):
        keys.stream(jax.random.key(0), "asks")
