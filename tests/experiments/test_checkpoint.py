import errno
import json
import os
import random
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoint
from experiments.folder import RunError


class State(NamedTuple):
    weights: Any
    moments: Any
    counter: Any


def state(seed: int = 0) -> State:
    a, b = jax.random.split(jax.random.key(seed))
    return State(
        weights={"linear": {"w": jax.random.normal(a, (3, 5)), "b": jnp.zeros(5)}},
        moments=(
            jax.random.normal(b, (4,), jnp.bfloat16),
            jnp.array([1, -2], jnp.int4),
            jnp.array([True, False]),
            np.array([np.nan, -0.0, np.inf], np.float64),
            jnp.zeros((0, 3)),
            jnp.uint32(4_000_000_000),
        ),
        counter=[7, 0.1, True, float("inf")],
    )


def bits(tree: Any) -> list:
    """Everything that can differ between two leaves, NaN payloads included."""
    return [
        (type(leaf), leaf)
        if type(leaf) in (int, float, bool)
        else (np.asarray(leaf).dtype, leaf.shape, np.asarray(leaf).tobytes())
        for leaf in jax.tree.leaves(tree)
    ]


def refuse(said: str) -> None:
    pytest.fail(f"said: {said}")


def test_every_kind_of_leaf_comes_back_bit_for_bit(tmp_path):
    checkpoint.save(tmp_path, 12, state(), {"frames": 10**12, "best": -0.5})
    restored = checkpoint.newest(tmp_path, state(seed=1), say=refuse)
    assert restored is not None
    assert restored.iteration == 12
    assert restored.meta == {"frames": 10**12, "best": -0.5}
    assert bits(restored.state) == bits(state())
    assert jax.tree.structure(restored.state) == jax.tree.structure(state())
    kinds = [type(leaf) for leaf in jax.tree.leaves(restored.state)]
    assert kinds == [type(leaf) for leaf in jax.tree.leaves(state())]


def test_an_evolution_strategy_goes_on_as_if_it_had_not_stopped(tmp_path):
    from evosax.algorithms import Sep_CMA_ES

    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        strategy = Sep_CMA_ES(population_size=6, solution=jnp.zeros(4))
        params = strategy.default_params

        @jax.jit
        def generation(evolved, key):
            ask, tell = jax.random.split(key)
            population, evolved = strategy.ask(ask, evolved, params)
            cost = jnp.sum((population - 1.0) ** 2, axis=1)
            return strategy.tell(tell, population, cost, evolved, params)[0]

        keys = jax.random.split(jax.random.key(0), 6)
        first = strategy.init(jax.random.key(1), jnp.zeros(4), params)
        evolved = first
        for key in keys[:3]:
            evolved = generation(evolved, key)
        checkpoint.save(tmp_path, 3, evolved, {})
        restored = checkpoint.newest(tmp_path, first, say=refuse)
        assert restored is not None
        resumed = restored.state
        for key in keys[3:]:
            evolved, resumed = generation(evolved, key), generation(resumed, key)
    assert bits(resumed) == bits(evolved)


def test_a_template_of_shapes_is_enough(tmp_path):
    saved = {"w": jnp.ones((2, 3)), "n": jnp.int32(4)}
    checkpoint.save(tmp_path, 1, saved, {})
    shapes = jax.eval_shape(lambda: saved)
    restored = checkpoint.newest(tmp_path, shapes, say=refuse)
    assert restored is not None and bits(restored.state) == bits(saved)


def test_a_restored_state_does_not_compile_a_second_program(tmp_path):
    traced = []

    @jax.jit
    def update(state):
        traced.append(state)
        return {"n": state["n"] + 1, "x": state["x"] * 2}

    saved = update({"n": 0, "x": jnp.ones(3)})  # n: a weakly typed i32[]
    update(saved)
    before = len(traced)
    checkpoint.save(tmp_path, 1, saved, {})
    restored = checkpoint.newest(tmp_path, {"n": 0, "x": jnp.ones(3)}, say=refuse)
    assert restored is not None
    assert int(update(restored.state)["n"]) == 2
    assert len(traced) == before


def test_what_init_gives_as_a_number_update_may_return_as_an_array(tmp_path):
    checkpoint.save(tmp_path, 1, {"n": jnp.int32(5)}, {})
    restored = checkpoint.newest(tmp_path, {"n": 0}, say=refuse)
    assert restored is not None
    assert restored.state["n"].dtype == jnp.int32 and int(restored.state["n"]) == 5


def test_typed_keys_and_objects_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(TypeError, match="rng is a typed PRNG key"):
        checkpoint.save(tmp_path, 1, {"rng": jax.random.key(0)}, {})
    with pytest.raises(TypeError, match="name is 'x', which is not an array"):
        checkpoint.save(tmp_path, 1, {"name": "x"}, {})
    assert not list(tmp_path.iterdir())


def test_the_newest_are_kept_and_the_best(tmp_path):
    checkpoint.write(tmp_path / checkpoint.BEST, 1, state(), {"score": 3.0})
    for iteration in (1, 2, 10, 9_999, 123_456_789):
        checkpoint.save(tmp_path, iteration, state(), {}, keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["00009999.npz", "123456789.npz", "best.npz"]
    restored = checkpoint.newest(tmp_path, state(), say=refuse)
    assert restored is not None and restored.iteration == 123_456_789
    best = checkpoint.read(tmp_path / checkpoint.BEST, state())
    assert best.iteration == 1 and best.meta == {"score": 3.0}
    with pytest.raises(ValueError, match="keep is 0"):
        checkpoint.save(tmp_path, 3, state(), {}, keep=0)


def test_numpy_opens_it_without_us(tmp_path):
    path = checkpoint.save(tmp_path, 1, state(), {})
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(
            file["weights/linear/w"], state().weights["linear"]["w"]
        )


def test_nothing_saved_is_nothing_found(tmp_path):
    assert checkpoint.newest(tmp_path / "none", state(), say=refuse) is None


# --- damage -------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_newest_falls_back_to_the_one_before_and_says_so(tmp_path, share):
    checkpoint.save(tmp_path, 1, state(1), {})
    torn = checkpoint.save(tmp_path, 2, state(2), {})
    content = torn.read_bytes()
    torn.write_bytes(content[: int(share * len(content))])
    said = []
    restored = checkpoint.newest(tmp_path, state(), say=said.append)
    assert restored is not None and restored.iteration == 1
    assert bits(restored.state) == bits(state(1))
    assert len(said) == 1 and str(torn) in said[0] and "damaged" in said[0]


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    """Damage is either found, or was where nothing of ours lies (zip's own padding)."""
    path = checkpoint.save(tmp_path, 1, state(1), {})
    content = path.read_bytes()
    draw = random.Random(0)
    found = 0
    for _ in range(300):
        at = draw.randrange(len(content))
        flipped = content[at] ^ (1 << draw.randrange(8))
        path.write_bytes(content[:at] + bytes([flipped]) + content[at + 1 :])
        try:
            restored = checkpoint.read(path, state())
        except RunError as error:
            assert "\n" not in str(error)
            found += 1
        else:
            assert bits(restored.state) == bits(state(1))
    assert found > 150


def test_the_checksum_is_ours_and_not_only_the_zip_files(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)}, {})
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content["x.npy"] = content["x.npy"][:-4] + np.float32(2).tobytes()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    with pytest.raises(RunError, match="checksum"):
        checkpoint.read(path, {"x": jnp.ones(3)})


def test_a_pickle_is_not_loaded(tmp_path):
    path = tmp_path / "00000001.npz"
    manifest = {
        "format": checkpoint.FORMAT,
        "iteration": 1,
        "meta": {},
        "leaves": {"x": {"dtype": "object", "number": True, "sha256": ""}},
    }
    np.savez(path, x=np.array([{"evil": 1}], dtype=object))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(checkpoint.MANIFEST, json.dumps(manifest))
    with pytest.raises(RunError, match="allow_pickle=False"):
        checkpoint.read(path, {"x": jnp.ones(1)})


def test_all_damaged_is_one_sentence_and_touches_nothing(tmp_path):
    path = checkpoint.save(tmp_path, 1, state(), {})
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match=r"none of the 1 checkpoints .* fresh=true"):
        checkpoint.newest(tmp_path, state(), say=lambda said: None)
    assert path.read_bytes() == b"not a checkpoint"


def test_a_damaged_later_one_does_not_push_sound_ones_out(tmp_path):
    checkpoint.save(tmp_path, 9, state(), {}, keep=1).write_bytes(b"torn")
    checkpoint.save(tmp_path, 5, state(5), {}, keep=1)
    checkpoint.save(tmp_path, 6, state(6), {}, keep=1)
    restored = checkpoint.newest(tmp_path, state(), say=lambda said: None)
    assert restored is not None and bits(restored.state) == bits(state(6))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"w": jnp.ones((2, 4)), "n": 1}, r"w is float32\[2, 3\].* float32\[2, 4\]"),
        ({"w": jnp.ones((2, 3), jnp.int32), "n": 1}, "w is float32.* need int32"),
        ({"w": jnp.ones((2, 3)), "n": 1.0}, "n is int"),
        ({"w": jnp.ones((2, 3))}, "it holds n, which these settings do not have"),
        ({"w": jnp.ones((2, 3)), "n": 1, "m": 0}, "it lacks m"),
    ],
)
def test_a_foreign_one_is_named_and_not_passed_over(tmp_path, template, said):
    checkpoint.save(tmp_path, 1, template, {})
    checkpoint.save(tmp_path, 2, {"w": jnp.ones((2, 3)), "n": 1}, {})
    with pytest.raises(
        RunError, match=f"00000002.npz belongs to other settings.*{said}"
    ):
        checkpoint.newest(tmp_path, template, say=refuse)


# --- failing to save ----------------------------------------------------------------


def test_a_full_disk_loses_nothing(tmp_path):
    """The largest allowed file is the disk here: the write itself fails half-way."""
    import resource

    small, large = {"x": jnp.ones(10)}, {"x": jnp.ones(100_000)}
    checkpoint.save(tmp_path, 1, small, {}, keep=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write .*00000002.npz.*intact"):
            checkpoint.save(tmp_path, 2, large, {}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["00000001.npz"]
    restored = checkpoint.newest(tmp_path, small, say=refuse)
    assert restored is not None and restored.iteration == 1


def test_no_space_left_names_the_cure(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device; free some space"):
        checkpoint.save(tmp_path, 2, state(), {})
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write .*choose a folder"):
        checkpoint.save(tmp_path / "file" / "checkpoints", 1, state(), {})


# --- killed in the middle -----------------------------------------------------------

VICTIM = """
    import os, random, signal, sys, warnings
    from pathlib import Path
    import numpy as np
    from experiments import checkpoint
    from experiments.folder import sweep

    warnings.simplefilter("ignore")  # about forking beside JAX: it is not in use here
    folder = Path(sys.argv[1])

    def state(i):
        return {name: np.full(50_000, i, np.float32) for name in "abcdefgh"}

    def die(*arguments, **named):
        os.kill(os.getpid(), signal.SIGKILL)

    def at(module, name, call):
        '''Dies in place of the call of that number.'''
        real, left = getattr(module, name), [call]
        def counted(*arguments, **named):
            left[0] -= 1
            return (die if left[0] < 0 else real)(*arguments, **named)
        setattr(module, name, counted)

    def run(arm):
        child = os.fork()
        if not child:
            arm()
            for i in range(2, 100):
                checkpoint.save(folder, i, state(i), {"i": i}, keep=2)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    checkpoint.save(folder, 1, state(1), {"i": 1})
    lib = np.lib.format
    moments = [
        lambda: at(lib, "write_array", 0),
        lambda: at(lib, "write_array", 3),
        lambda: at(os, "fsync", 0),
        lambda: at(os, "fsync", 1),
        lambda: at(os, "replace", 0),
        lambda: at(os, "replace", 2),
        lambda: at(Path, "unlink", 0),
    ]
    draw = random.Random(1)
    for _ in range(12):
        delay = draw.uniform(0.001, 0.1)
        moments.append(lambda d=delay: (signal.signal(signal.SIGALRM, die),
                                        signal.setitimer(signal.ITIMER_REAL, d)))
    for arm in moments:
        status = run(arm)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        found = checkpoint.newest(folder, state(0), say=sys.exit)
        for leaf in found.state.values():
            assert (np.asarray(leaf) == found.iteration).all()
        assert found.meta["i"] == found.iteration
        checkpoint.save(folder, found.iteration, found.state, found.meta, keep=2)
        sweep(folder)
        left = sorted(p.name for p in folder.iterdir())
        assert all(name.endswith(".npz") and name[0] == "0" for name in left), left
        print(found.iteration)
"""


def test_a_process_killed_in_the_middle_of_a_save_leaves_a_sound_folder(tmp_path):
    root = Path(checkpoint.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(VICTIM), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    found = [int(line) for line in done.stdout.split()]
    # Kills before the rename leave checkpoint 1, those after it the new one.
    assert found[:6] == [1, 1, 1, 2, 2, 3]
    assert len(found) == 19
