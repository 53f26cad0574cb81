"""A run's folder: its name, lock and papers. Every file in it is replaced whole."""

import contextlib
import datetime
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

CONFIG = "config.yaml"  # the resolved settings
MANIFEST = "manifest.json"  # versions, device, flags, source, command of every session
METRICS = "metrics.csv"  # a row for each report
EVENTS = "events"  # the same for TensorBoard
CHECKPOINTS = "checkpoints"  # see `experiments.checkpoint`
VIDEOS = "videos"  # mp4 and PNG stills
CURVE = "curve.png"  # the learning curve
SUMMARY = "summary.json"  # the final scores
LOCK = "lock"  # held by the process at work

PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "dm-haiku",
    "evosax",
    "gymnasium",
    "dm-control",
    "mujoco",
    "opencv-python-headless",
)
"""The distributions whose version can change a run's numbers."""

JAX_FLAGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
)
"""JAX's settings that can do so too."""

SOURCES = ("iap", "envs", "agents", "experiments", "run.py")
"""What the program is made of, below the folder that holds this package."""


class RunError(Exception):
    """One sentence for the person at the terminal: what is wrong, and the cure."""


def identity(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that two runs share if their settings are equal.

    Args:
      config: plain nested settings (mappings, sequences, strings, numbers, booleans,
        None); the order of keys does not matter.
    """
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(env: str, agent: str, seed: int, config: Mapping[str, Any]) -> str:
    """`<env>-<agent>-s<seed>-<identity>`, with `/` and `:` of a name made harmless."""
    plain = env.replace("/", "_").replace(":", "_")
    return f"{plain}-{agent}-s{seed}-{identity(config)}"


# --- writing ------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its place when the block ends.

    The new file is on the disk before the name changes: whoever is killed at any
    moment leaves either the old file whole or the new one. An error in the block
    leaves the old file.

    Raises:
      RunError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    # The suffix stays last: video and image writers choose their format by it.
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise RunError(unwritable(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes the unfinished files that killed processes left in and below `folder`."""
    for left in folder.rglob(".partial-*"):
        writer = left.name.split("-")[1]
        if not writer.isdigit():
            continue  # not ours
        if int(writer) == os.getpid() or not _alive(int(writer)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno == errno.EPERM  # it lives, and is another user's
    return True


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that people can read, whole or not at all."""
    with replacing(path) as temporary:
        text = json.dumps(content, indent=2, allow_nan=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_config(folder: Path, config: Any) -> None:
    """Writes the settings as YAML: an OmegaConf config, or a plain mapping."""
    from omegaconf import OmegaConf

    with replacing(folder / CONFIG) as temporary:
        OmegaConf.save(OmegaConf.create(config), temporary, resolve=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> str:
    """One sentence for a file that could not be written, with the cure."""
    reason = error.strerror or str(error)
    cures = {
        errno.ENOSPC: "free some space and run the same command again",
        errno.EDQUOT: "free some of your quota and run the same command again",
    }
    cure = cures.get(error.errno or 0, "choose a folder that you may write to")
    return f"cannot write {path}: {reason}; {cure}; what was saved before is intact"


# --- the lock -----------------------------------------------------------------------


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the run's folder for this process; the system lets go when it dies.

    Raises:
      RunError: another process holds it, or the folder cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise RunError(unwritable(path, error)) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise RunError(
                f"process {owner} is already working on {folder}; wait for it or "
                "stop it, or choose another seed"
            ) from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        sweep(folder)
        yield


# --- the manifest -------------------------------------------------------------------


def record_session(folder: Path, seed: int) -> list[str]:
    """Adds this session to the manifest and says what differs from the last one.

    Args:
      folder: the run's folder, locked.
      seed: the run's seed.

    Returns:
      One sentence for each change of source, version or precision since the session
      before, [] where nothing changed or there was none.
    """
    sessions = []
    if (folder / MANIFEST).exists():
        sessions = read_json(folder / MANIFEST)["sessions"]
    current = session()
    changes = _changes(sessions[-1], current) if sessions else []
    if changes:
        current["changed"] = changes
    write_json(folder / MANIFEST, {"seed": seed, "sessions": [*sessions, current]})
    return changes


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      RunError: the file is not there, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot read {path}: {error}; restore the file, or begin the run anew "
            "with fresh=true"
        ) from error


def session() -> dict[str, Any]:
    """The circumstances of this process that can change a run's numbers."""
    devices = jax.local_devices()
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "source": source(),
        "versions": versions(),
        "platform": platform.platform(),
        "device": {
            "kind": devices[0].device_kind,
            "backend": jax.default_backend(),
            "count": len(devices),
            "cores": os.cpu_count(),
        },
        "precision": {
            **{name: getattr(jax.config, name) for name in JAX_FLAGS},
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
            "NVIDIA_TF32_OVERRIDE": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
        },
    }


def versions() -> dict[str, str]:
    """Python's version and that of every package of `PACKAGES` that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def source() -> dict[str, Any]:
    """Which program this is: a digest of its files and, in a checkout, the commit."""
    root = Path(__file__).resolve().parent.parent
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--", *SOURCES)
    return {
        "digest": source_digest(root),
        "commit": commit,
        "dirty": None if status is None else bool(status),
    }


def source_digest(root: Path) -> str:
    """sha256 over the names and contents of the program's files below `root`."""
    files: list[Path] = []
    for name in SOURCES:
        top = root / name
        files += [top] if top.is_file() else top.rglob("*.py")
        files += top.rglob("*.yaml")
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    """The output of one git command; None without git or outside its checkout."""
    if not (root / ".git").exists():
        return None  # an installed copy inside someone else's checkout is not ours
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    said = []
    if before["source"]["digest"] != now["source"]["digest"]:
        said.append(
            f"the program's source has changed ({_revision(before['source'])} before, "
            f"{_revision(now['source'])} now)"
        )
    for part in ("versions", "device", "precision"):
        old, new = before[part], now[part]
        said += [
            f"{name} was {old.get(name, 'absent')} and is {new.get(name, 'absent')}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    return said


def _revision(source: Mapping[str, Any]) -> str:
    if not source["commit"]:
        return f"digest {source['digest'][:8]}"
    edited = f" with edits, digest {source['digest'][:8]}" if source["dirty"] else ""
    return f"commit {source['commit'][:8]}{edited}"


def describe(changes: Sequence[str]) -> str:
    """One sentence that says what changed since the run's last session."""
    return (
        "This run goes on under other circumstances: "
        + "; ".join(changes)
        + ". It may not equal an unbroken one; manifest.json records the change."
    )
