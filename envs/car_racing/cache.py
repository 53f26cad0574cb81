"""The pool of tracks on disk: made once for a list of seeds, then only read.

Pools lie in `implicit-attention-pixels/car_racing` below `XDG_CACHE_HOME` (`~/.cache`
where that is not set), or in the folder that `IAP_CACHE` names, one file a list of
seeds, about 1.1 MB a track. They may be deleted at any time.
"""

import contextlib
import functools
import hashlib
import logging
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from envs.car_racing import colour_map, draw, track
from envs.car_racing.colour_map import Ground
from envs.car_racing.track import Roads, Track

ALIGNMENT = 64
"""Bytes; JAX's CPU backend copies arrays that begin elsewhere."""
PIECE = 1 << 20
"""Bytes read at a time."""

_log = logging.getLogger(__name__)


class Pool(NamedTuple):
    """A pool of tracks, in numpy, for pictures of any size.

    Attributes:
      roads: where the tracks run.
      ground: what they look like.
    """

    roads: Roads
    ground: Ground


def folder() -> Path:
    """Where pools are kept."""
    if chosen := os.environ.get("IAP_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "implicit-attention-pixels" / "car_racing"


@functools.cache
def _version() -> bytes:
    """A digest of all that a pool's content follows from, besides its seeds."""
    digest = hashlib.sha256(f"{np.__version__} {cv2.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.digest()


def path_of(seeds: Sequence[int], domain_randomize: bool = False) -> Path:
    """The file of a list of seeds."""
    content = ",".join(map(str, seeds)) + " randomized" * domain_randomize
    name = hashlib.sha256(content.encode()).hexdigest()[:16]
    return folder() / f"{len(seeds)}-{name}.npz"


def build(seeds: Sequence[int], domain_randomize: bool = False) -> Pool:
    """Makes a pool.

    Args:
      seeds: of Gymnasium's tracks.
      domain_randomize: whether each has its own colours, see `track.generate`.
    """
    roads = track.stack(seeds, domain_randomize)
    tracks = [Track(*arrays) for arrays in zip(*roads.tracks, strict=True)]
    colour_map.shared_blocks()  # else every thread would make what all of them need
    # Most of the work happens in numpy and OpenCV, which let other threads run.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        maps = list(threads.map(colour_map.rasterise, tracks))
    return Pool(roads, colour_map.stack(maps))


def _arrays(pool: Pool) -> dict[str, np.ndarray]:
    """The arrays of a pool by name."""
    parts = {"tracks": pool.roads.tracks, "roads": pool.roads, "ground": pool.ground}
    named = {
        f"{p}.{f}": a for p, part in parts.items() for f, a in part._asdict().items()
    }
    return {name: a for name, a in named.items() if isinstance(a, np.ndarray)}


def _pool(arrays: Mapping[str, np.ndarray]) -> Pool:
    """The pool of its named arrays."""
    tracks = Track(*(arrays[f"tracks.{field}"] for field in Track._fields))
    others = {f: arrays[f"roads.{f}"] for f in Roads._fields if f != "tracks"}
    roads = Roads(tracks=tracks, **others)
    return Pool(roads, Ground(*(arrays[f"ground.{field}"] for field in Ground._fields)))


def _read(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an npz file, where JAX's CPU backend can use it without a copy."""
    with file.open(f"{name}.npy") as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{name} is of another version of numpy's format")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(member)
        if by_columns or dtype.hasobject:
            raise ValueError(f"{name} is not an array that this program writes")
        size = math.prod(shape) * dtype.itemsize
        room = np.empty(size + ALIGNMENT, "u1")
        start = -room.ctypes.data % ALIGNMENT
        content = room[start : start + size]
        at = 0
        # The member's checksum is compared when it has been read to its end.
        while piece := member.read(PIECE):
            content[at : at + len(piece)] = np.frombuffer(piece, "u1")
            at += len(piece)
    if at < size:
        raise ValueError(f"{name} ends early")
    return content.view(dtype).reshape(shape)


def _load(path: Path) -> Pool | None:
    """The pool in a file, or None where no sound one of this version is."""
    try:
        with zipfile.ZipFile(path) as file:
            if _read(file, "version").tobytes() != _version():
                return None
            names = (name.removesuffix(".npy") for name in file.namelist())
            return _pool({name: _read(file, name) for name in names})
    except FileNotFoundError:
        return None
    except Exception as error:  # A damaged file can make its reader raise anything.
        _log.warning("cached tracks %s are damaged (%s); rebuilding them", path, error)
        return None


def _save(path: Path, pool: Pool) -> None:
    """Writes a pool under a name of its own first, so that no one reads half of it."""
    arrays = {"version": np.frombuffer(_version(), "u1"), **_arrays(pool)}
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _log.warning("cannot keep tracks in %s (%s); going on without", path, error)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_or_build(
    seeds: Sequence[int], size: int = 96, domain_randomize: bool = False
) -> tuple[Roads, draw.Canvas]:
    """The pool of a list of seeds, in numpy, from disk where it has been made before.

    A damaged file is rebuilt, and a folder that cannot be written to is done without;
    both are logged as warnings.

    Args:
      seeds: of Gymnasium's tracks.
      size: pixels along a side of the pictures that will be drawn.
      domain_randomize: whether each has its own colours, see `track.generate`.
    """
    path = path_of(seeds, domain_randomize)
    pool = _load(path)
    if pool is None:
        pool = build(seeds, domain_randomize)
        _save(path, pool)
    return pool.roads, draw.canvas(pool.ground, size)
