"""Every test runs on the CPU, on two devices, with JAX at its strictest."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 2)

# Pools of tracks, out of the user's own; and compiled programs, for many tests make the
# same one anew. xdist's workers and what a test starts find both in the environment.
CACHES = ("IAP_CACHE", "JAX_COMPILATION_CACHE_DIR")


def pytest_configure(config):
    """Makes the caches, for this run alone."""
    config.made_caches = [name for name in CACHES if name not in os.environ]
    for name in config.made_caches:
        os.environ[name] = tempfile.mkdtemp(prefix="iap-tests-")
    jax.config.update("jax_compilation_cache_dir", os.environ[CACHES[1]])


def pytest_unconfigure(config):
    """Leaves nothing behind."""
    for name in config.made_caches:
        shutil.rmtree(os.environ[name], ignore_errors=True)
