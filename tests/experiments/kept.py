"""What a run has kept, to hold one run against another."""

from pathlib import Path

import numpy as np

from experiments import checkpoint, folder, metrics

CLOCK = {"seconds", "decisions_per_second", "frames_per_second"}


def kept(path: Path):
    """Logged numbers without the clock's, and every array of the newest checkpoint."""
    rows = metrics.read_csv(path / folder.METRICS)
    rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]
    newest = checkpoint.numbered(path / folder.CHECKPOINTS)[0]
    with np.load(newest, allow_pickle=False) as content:
        names = [name for name in content.files if name != checkpoint.MANIFEST]
        return rows, {name: content[name] for name in names}


def assert_same(one, other):
    """Two runs kept the same, bit for bit."""
    (rows, arrays), (others, other_arrays) = one, other
    np.testing.assert_equal(rows, others)  # not-a-number equals itself
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[name], err_msg=name)
