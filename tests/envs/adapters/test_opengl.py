import os

import pytest

from envs.adapters import opengl
from envs.adapters.host_simulator import Refused


def present(monkeypatch, *names):
    monkeypatch.setattr(
        opengl, "BACKENDS", {n: lambda n=n: n in names for n in opengl.BACKENDS}
    )
    # Set first, so that it is as before when the test is over.
    monkeypatch.setenv("MUJOCO_GL", "")
    del os.environ["MUJOCO_GL"]
    monkeypatch.setattr("sys.platform", "linux")


@pytest.mark.parametrize(
    ("there", "chosen"),
    [(("egl", "osmesa"), "egl"), (("egl",), "egl"), (("osmesa",), "osmesa")],
)
def test_what_needs_no_screen_is_chosen(there, chosen, monkeypatch):
    present(monkeypatch, *there)
    opengl.choose()
    assert os.environ["MUJOCO_GL"] == chosen


def test_where_nothing_draws_the_cure_is_told(monkeypatch):
    present(monkeypatch)
    with pytest.raises(Refused, match="run apt-get install libegl1 libgl1 libgl1-mesa"):
        opengl.choose()
    assert "MUJOCO_GL" not in os.environ


def test_what_is_set_stays(monkeypatch):
    present(monkeypatch)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    opengl.choose()
    assert os.environ["MUJOCO_GL"] == "glfw"


def test_other_systems_are_left_to_mujoco(monkeypatch):
    present(monkeypatch)
    monkeypatch.setattr("sys.platform", "darwin")
    opengl.choose()
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.parametrize("name", opengl.BACKENDS)
def test_a_library_that_is_not_there_is_no_backend(name, monkeypatch):
    def missing(library):
        raise OSError(f"{library}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert not opengl.BACKENDS[name]()
