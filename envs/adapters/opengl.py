"""OpenGL without a screen: which of MuJoCo's backends this machine can draw with."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Mapping

from envs.adapters.host_simulator import Refused

CURE = "apt-get install libegl1 libgl1 libgl1-mesa-dri"
"""What gives a Debian or Ubuntu machine without a graphics card OpenGL in software."""
_DEVICES = 16
_PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT


def choose() -> None:
    """Sets MUJOCO_GL, before MuJoCo is imported: egl, else osmesa.

    What is set already stays, and so does everything where there is no Linux: MuJoCo
    chooses well there.

    Raises:
      Refused: neither is there.
    """
    if "MUJOCO_GL" in os.environ or not sys.platform.startswith("linux"):
        return
    found = next((name for name, there in BACKENDS.items() if there()), None)
    if found is None:
        raise Refused(
            "MuJoCo cannot draw here: neither EGL nor OSMesa is installed; "
            f"run {CURE}, or set MUJOCO_GL"
        )
    os.environ["MUJOCO_GL"] = found


def _egl() -> bool:
    """Whether EGL has a display that needs no screen."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libEGL.so.1")
        find = library.eglGetProcAddress
        find.restype = ctypes.c_void_p
        query, display_of = (
            find(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")
        )
        if not query or not display_of:
            return False
        pointer, integer = ctypes.c_void_p, ctypes.c_int32
        query = ctypes.CFUNCTYPE(ctypes.c_uint, integer, pointer, pointer)(query)
        display_of = ctypes.CFUNCTYPE(pointer, integer, pointer, pointer)(display_of)
        library.eglInitialize.argtypes = [pointer, pointer, pointer]
        devices, count = (pointer * _DEVICES)(), integer()
        if not query(_DEVICES, devices, ctypes.byref(count)):
            return False
        displays = (
            display_of(_PLATFORM_DEVICE, device, None)
            for device in devices[: count.value]
        )
        return any(x and library.eglInitialize(x, None, None) for x in displays)
    return False


def _osmesa() -> bool:
    for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


BACKENDS: Mapping[str, Callable[[], bool]] = {"egl": _egl, "osmesa": _osmesa}
"""MuJoCo's names of what draws without a screen, the better first; each tells whether
this machine has it."""
