"""Pytrees of arrays on disk: sound, or the one before; never pickled.

A checkpoint is one npz file (`numpy.load` opens it): an array for each leaf, named by
its path in the pytree, and `manifest.json` with the names, dtypes, shapes and SHA-256
of all of them. The pytree's structure is not stored: it comes from a template. Chosen
over orbax because one file is either there or not: a save is one rename, 1 ms and not
150, and the tests kill it in the middle.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.folder import RunError, replacing

FORMAT = 1
MANIFEST = "manifest.json"
BEST = "best.npz"
_NUMBERS = (bool, int, float)


class Checkpoint(NamedTuple):
    """A state as it was after `iteration` updates.

    Attributes:
      iteration: updates done.
      state: the pytree, in the template's structure.
      meta: JSON values saved beside it (frames played, the best score so far).
    """

    iteration: int
    state: Any
    meta: Mapping[str, Any]


class _DamagedError(Exception):
    """The file is not a whole checkpoint: torn, altered or something else."""


def save(
    folder: Path, iteration: int, state: Any, meta: Mapping[str, Any], keep: int = 3
) -> Path:
    """Saves as `<iteration>.npz` and then removes all but the `keep` newest.

    Args:
      folder: the run's checkpoints; made if absent.
      iteration: updates done so far.
      state: pytree of arrays and Python numbers.
      meta: JSON values.
      keep: how many to keep, at least 1. `best.npz` is not counted and never removed.

    Raises:
      RunError: the folder cannot be written or the disk is full; nothing is removed.
      TypeError: a leaf is neither an array nor a number, or is a typed PRNG key.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; at least 1 checkpoint must be kept")
    path = folder / f"{iteration:08d}.npz"
    write(path, iteration, state, meta)
    # A damaged file with a higher number must not push sound ones out.
    upto = [old for old in numbered(folder) if int(old.stem) <= iteration]
    for old in upto[keep:]:
        old.unlink(missing_ok=True)
    return path


def newest(
    folder: Path, template: Any, say: Callable[[str], None] = print
) -> Checkpoint | None:
    """The newest sound checkpoint of a folder, None where there is none at all.

    Args:
      folder: the run's checkpoints.
      template: a pytree of the same structure (`jax.eval_shape` will do).
      say: told in one sentence about every damaged file that is passed over.

    Raises:
      RunError: there are checkpoints but none is sound, or the newest sound one
        belongs to other settings.
    """
    paths = numbered(folder)
    for path in paths:
        try:
            return _read(path, template)
        except _DamagedError as error:
            say(f"Passing over {path}, which is damaged ({error}).")
    if paths:
        raise RunError(
            f"none of the {len(paths)} checkpoints in {folder} can be read; restore "
            "one from a copy, or start again with fresh=true"
        )
    return None


def numbered(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first, without `best.npz`."""
    found = (path for path in folder.glob("*.npz") if path.stem.isdigit())
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def write(path: Path, iteration: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Writes one checkpoint file, whole or not at all; raises as `save`."""
    arrays = _named(state)
    manifest = {
        "format": FORMAT,
        "iteration": iteration,
        "meta": dict(meta),
        "leaves": {name: _describe(leaf) for name, leaf in arrays.items()},
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.writestr(MANIFEST, json.dumps(manifest, indent=1))
        for name, leaf in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _storable(leaf), allow_pickle=False)


def read(path: Path, template: Any) -> Checkpoint:
    """Reads one checkpoint file into the structure of `template`.

    Leaves come back as what the template holds there: NumPy arrays for NumPy arrays,
    else JAX arrays; a Python number comes back where a Python number was saved.

    Raises:
      RunError: it is absent, damaged, or of another structure, shape or dtype.
    """
    try:
        return _read(path, template)
    except _DamagedError as error:
        raise RunError(f"cannot read the checkpoint {path}: {error}") from error


def _read(path: Path, template: Any) -> Checkpoint:
    manifest, saved = _load(path)
    expected = _paths(template)
    _match(path, saved, expected)
    leaves = [_as_template(saved[name], leaf) for name, leaf in expected.items()]
    state = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return Checkpoint(manifest["iteration"], state, manifest["meta"])


# --- to the file --------------------------------------------------------------------


def _paths(tree: Any) -> dict[str, Any]:
    """Leaves by name, in the order of the pytree."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/") or "value": leaf
        for path, leaf in flat
    }
    if len(named) < len(flat):
        raise TypeError("two leaves of the state have the same path")
    return named


def _named(state: Any) -> dict[str, Any]:
    """Leaves by name, on the host; a weakly typed scalar as the number it stands for.

    Weak types steer promotion and are part of jit's cache key, and NumPy has none.
    """
    leaves = _paths(state)
    for name, leaf in leaves.items():
        dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} is a typed PRNG key; derive keys by name instead")
        if dtype.kind in "OUS":
            raise TypeError(f"{name} is {leaf!r}, which is not an array of numbers")
        if getattr(leaf, "weak_type", False) and leaf.ndim == 0:
            leaves[name] = leaf.item()
    return jax.device_get(leaves)


def _storable(leaf: Any) -> np.ndarray:
    """The array as NumPy's own dtypes hold it: bfloat16 and its kin as their bits."""
    array = np.asarray(leaf)
    return array.view(f"u{array.itemsize}") if array.dtype.isbuiltin == 2 else array


def _describe(leaf: Any) -> dict[str, Any]:
    array = np.asarray(leaf)
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "number": type(leaf) in _NUMBERS,
        "sha256": hashlib.sha256(_storable(leaf).tobytes()).hexdigest(),
    }


# --- from the file ------------------------------------------------------------------


def _load(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Manifest and leaves of a file, every leaf checked against its SHA-256."""
    try:
        # Not np.load: a member read whole has passed its CRC before it is parsed.
        with zipfile.ZipFile(path) as file:
            manifest = json.loads(file.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise _DamagedError(f"its format is {manifest['format']}, not {FORMAT}")
            return manifest, {
                name: _leaf(file.read(f"{name}.npy"), described)
                for name, described in manifest["leaves"].items()
            }
    # Whatever the bytes are, zipfile and NumPy answer with one of these.
    except (
        *(OSError, EOFError, LookupError, ValueError, TypeError, AttributeError),
        *(zipfile.BadZipFile, zlib.error, RuntimeError, AssertionError),
    ) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise _DamagedError(reason[0]) from error


def _leaf(content: bytes, described: Mapping[str, Any]) -> Any:
    stored = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if hashlib.sha256(stored.tobytes()).hexdigest() != described["sha256"]:
        raise _DamagedError("a checksum does not match")
    if described["number"]:
        return stored.item()
    # jnp knows the names of the dtypes that NumPy does not.
    return stored.view(np.dtype(getattr(jnp, described["dtype"], stored.dtype)))


def _match(path: Path, saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises RunError where the file's leaves are not those that are expected."""

    def refuse(difference: str):
        raise RunError(
            f"{path} belongs to other settings: {difference}; use the settings it was "
            "saved with, or start again with fresh=true"
        )

    if unknown := sorted(saved.keys() - expected.keys()):
        refuse(f"it holds {_few(unknown)}, which these settings do not have")
    if absent := sorted(expected.keys() - saved.keys()):
        refuse(f"it lacks {_few(absent)}")
    for name, leaf in expected.items():
        there = np.asarray(saved[name])
        here = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        # A Python number and a 0-d array stand for each other: what `init` gives as
        # one, a jitted update returns as the other.
        loose = type(saved[name]) in _NUMBERS or type(leaf) in _NUMBERS
        kinds = there.dtype.kind, here.dtype.kind
        alike = kinds[0] == kinds[1] if loose else there.dtype == here.dtype
        if there.shape != here.shape or not alike:
            refuse(
                f"its {name} is {there.dtype.name}{list(there.shape)}, these settings "
                f"need {here.dtype.name}{list(here.shape)}"
            )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _as_template(saved: Any, template: Any) -> Any:
    host = type(saved) in _NUMBERS or isinstance(template, np.ndarray | np.generic)
    return saved if host else jnp.asarray(saved)
