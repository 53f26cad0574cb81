import jax
import pytest

from tests.experiments import probe_run


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Keeps compiled programs: most of these tests run the same ones again."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def probe(compiled, monkeypatch):
    """Registers the probe world and agent; gives the settings of a quick run."""
    probe_run.register(monkeypatch.setitem)
    return probe_run.ARGUMENTS
