import pytest

from tests.experiments import probe_run


@pytest.fixture
def probe(monkeypatch):
    """Registers the probe world and agent; gives the settings of a quick run."""
    probe_run.register(monkeypatch.setitem)
    return probe_run.ARGUMENTS
