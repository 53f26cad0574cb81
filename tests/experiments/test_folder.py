import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments import folder
from experiments.folder import RunError

ROOT = Path(folder.__file__).parent.parent


# --- names --------------------------------------------------------------------------


def test_identity_is_of_the_settings_and_not_of_their_order():
    config = {"agent": {"population": 64, "std": 0.3}, "seed": 1, "tags": ["a", None]}
    same = {"tags": ["a", None], "seed": 1, "agent": {"std": 0.3, "population": 64}}
    # sha256 of {"agent":{"population":64,"std":0.3},"seed":1,"tags":["a",null]}: a
    # folder made by one version must be found by the next.
    assert folder.identity(config) == folder.identity(same) == "5f27951b"
    others = [
        {**config, "seed": 2},
        {**config, "seed": 1.0},
        {**config, "seed": True},
        {**config, "tags": [None, "a"]},
        {**config, "agent": {"population": 64, "std": 0.30000001}},
    ]
    assert len({folder.identity(other) for other in others} | {"5f27951b"}) == 6


def test_a_run_is_named_after_what_it_is():
    name = folder.run_name("gym:ALE/Pong", "es", 3, {"seed": 3})
    assert name == f"gym_ALE_Pong-es-s3-{folder.identity({'seed': 3})}"


# --- writing ------------------------------------------------------------------------


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    folder.write_json(path, {"mean": 1.0})
    with pytest.raises(KeyError), folder.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert folder.read_json(path) == {"mean": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_json_is_said(tmp_path):
    (tmp_path / "x.json").write_text("{")
    for name in ("x.json", "absent.json"):
        with pytest.raises(RunError, match=f"cannot read .*{name}"):
            folder.read_json(tmp_path / name)


def test_config_comes_back_with_its_references_resolved(tmp_path):
    config = OmegaConf.create({"seed": 3, "env": {"seed": "${seed}", "on": True}})
    folder.write_config(tmp_path, config)
    assert OmegaConf.load(tmp_path / folder.CONFIG) == {
        "seed": 3,
        "env": {"seed": 3, "on": True},
    }


# --- the lock -----------------------------------------------------------------------

HOLDER = """
    import sys, time
    from pathlib import Path
    from experiments import folder

    with folder.lock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as first:
        assert first.stdout and first.stdout.readline() == "held\n"
        refused = f"process {first.pid} is already working on .*{tmp_path.name}"
        with pytest.raises(RunError, match=refused), folder.lock(tmp_path):
            pytest.fail("two processes hold one folder")
        first.kill()  # no clean-up: the system lets go of the lock
        first.wait()
        with folder.lock(tmp_path):
            assert (tmp_path / folder.LOCK).read_text() == f"{os.getpid()}\n"


def test_what_the_dead_left_is_swept_and_what_the_living_write_is_not(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    (tmp_path / "videos").mkdir()
    left = tmp_path / "videos" / f".partial-{dead.pid}-a.mp4"
    written = tmp_path / f".partial-{os.getppid()}-b.npz"
    for path in (left, written):
        path.write_text("")
    with folder.lock(tmp_path):
        assert not left.exists() and written.exists()


def test_an_unwritable_folder_is_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match=r"cannot write .*Not a directory"),
        folder.lock(tmp_path / "file" / "run"),
    ):
        pytest.fail("locked a folder that cannot be")


# --- the manifest -------------------------------------------------------------------


def test_the_manifest_names_everything_that_can_change_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/run.py", "agent=es", "seed=3"])
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    assert folder.record_session(tmp_path, seed=3) == []
    manifest = json.loads((tmp_path / folder.MANIFEST).read_text())
    (session,) = manifest["sessions"]
    assert manifest["seed"] == 3
    assert session["command"] == ["run.py", "agent=es", "seed=3"]
    assert session["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"jax", "jaxlib", "numpy", "dm-haiku", "evosax"} <= set(session["versions"])
    assert session["device"]["backend"] == "cpu" and session["device"]["count"] >= 1
    assert session["precision"]["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false"
    assert len(session["source"]["digest"]) == 64


def test_the_same_circumstances_are_no_change(tmp_path):
    folder.record_session(tmp_path, seed=0)
    assert folder.record_session(tmp_path, seed=0) == []
    assert len(folder.read_json(tmp_path / folder.MANIFEST)["sessions"]) == 2


def test_what_changed_between_sessions_is_said_and_recorded(tmp_path):
    folder.record_session(tmp_path, seed=0)
    path = tmp_path / folder.MANIFEST
    before = folder.read_json(path)
    before["sessions"][0]["versions"]["jax"] = "0.9.0"
    del before["sessions"][0]["versions"]["evosax"]
    before["sessions"][0]["precision"]["jax_enable_x64"] = True
    before["sessions"][0]["source"] |= {"digest": "f" * 64, "commit": "abcdef0123"}
    before["sessions"][0]["source"]["dirty"] = False
    folder.write_json(path, before)
    changes = folder.record_session(tmp_path, seed=0)
    assert "commit abcdef01 before" in changes[0]
    assert [c.split(" and is ")[0] for c in changes[1:]] == [
        "evosax was absent",
        "jax was 0.9.0",
        "jax_enable_x64 was True",
    ]
    sessions = folder.read_json(path)["sessions"]
    assert sessions[0] == before["sessions"][0]
    assert sessions[1]["changed"] == changes
    assert "; ".join(changes) in folder.describe(changes)


def test_the_digest_is_of_names_and_contents_of_the_program(tmp_path):
    def program(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_py", ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return folder.source_digest(tmp_path)

    first = program(iap__a_py="1", run_py="2")
    assert program(notes_py="not of the program") == first
    changed = program(iap__a_py="3")
    added = program(iap__b_py="")
    assert len({first, changed, added}) == 3
    (tmp_path / "iap" / "b.py").rename(tmp_path / "iap" / "c.py")
    assert folder.source_digest(tmp_path) not in {first, changed, added}
    (tmp_path / "iap" / "c.py").unlink()
    assert program(iap__a_py="1") == first


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    assert folder._git(tmp_path, "rev-parse", "HEAD") is None
