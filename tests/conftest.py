"""Every test runs on the CPU, on two devices, with JAX at its strictest."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 2)

CACHE = "IAP_CACHE"


def pytest_configure(config):
    """Keeps pools of tracks out of the user's cache; xdist's workers share one."""
    if CACHE not in os.environ:
        os.environ[CACHE] = config.made_cache = tempfile.mkdtemp(prefix="iap-cache-")


def pytest_unconfigure(config):
    if made := getattr(config, "made_cache", None):
        shutil.rmtree(made, ignore_errors=True)
