"""For tests that draw with OpenGL, which a machine may lack."""

import importlib.util

import pytest

from envs.adapters import opengl


def needed():
    """Leaves a test module out where MuJoCo cannot draw, or dm_control is missing."""
    if importlib.util.find_spec("dm_control") is None:
        pytest.skip("dm_control is not installed", allow_module_level=True)
    if not any(there() for there in opengl.BACKENDS.values()):
        pytest.skip(f"no OpenGL: {opengl.CURE}", allow_module_level=True)
