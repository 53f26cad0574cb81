import logging
import zipfile

import jax
import numpy as np
import pytest

from envs.car_racing import cache, colour_map, track

SEEDS = (5, 6)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("IAP_CACHE", str(tmp_path / "pools"))
    return tmp_path / "pools"


@pytest.fixture(scope="module")
def expected():
    return cache.build(SEEDS)


def same(loaded, pool):
    roads, canvas = loaded
    for a, b in zip(
        jax.tree.leaves((roads, canvas.ground)), jax.tree.leaves(pool), strict=True
    ):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def never(*_):
    raise AssertionError("built anew")


def test_built_once_then_read(folder, expected, monkeypatch):
    same(cache.load_or_build(SEEDS), expected)
    assert [file.suffix for file in folder.iterdir()] == [".npz"]
    monkeypatch.setattr(cache, "build", never)
    same(cache.load_or_build(list(SEEDS)), expected)


def test_the_pool_is_its_tracks(expected):
    for i, seed in enumerate(SEEDS):
        one = track.generate(seed)
        np.testing.assert_array_equal(expected.roads.tracks.tiles[i], one.tiles)
        own = colour_map.rasterise(one)
        blocks = expected.ground.blocks.reshape(-1, colour_map.BLOCK**2)
        index = expected.ground.index.reshape(len(SEEDS), -1)[i]
        shared = colour_map.shared_blocks()
        np.testing.assert_array_equal(
            blocks[index], np.concatenate([shared, own.blocks])[own.index]
        )


def test_other_seeds_are_another_file(folder):
    assert cache.path_of([1, 2]) != cache.path_of([2, 1])
    assert cache.path_of([12]) != cache.path_of([1, 2])
    assert cache.path_of([1, 2]).parent == folder


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_file_is_rebuilt_and_said_so(folder, expected, caplog, damage):
    path = cache.path_of(SEEDS)
    cache.load_or_build(SEEDS)
    sound = path.read_bytes()
    middle = len(sound) // 2
    path.write_bytes(
        {
            "cut": sound[:middle],
            "flipped": sound[:middle] + b"\x55" * 64 + sound[middle + 64 :],
            "empty": b"",
            "foreign": b"not a pool of tracks",
        }[damage]
    )
    assert path.read_bytes() != sound
    with caplog.at_level(logging.WARNING):
        same(cache.load_or_build(SEEDS), expected)
    assert "damaged" in caplog.text and str(path) in caplog.text
    caplog.clear()
    same(cache.load_or_build(SEEDS), expected)
    assert not caplog.records


def test_an_array_that_ends_early_is_damage(folder, expected, caplog):
    """Its checksum is right: only its header knows how long it should be."""
    path = cache.path_of(SEEDS)
    cache.load_or_build(SEEDS)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["ground.blocks.npy"] = members["ground.blocks.npy"][:-64]
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with caplog.at_level(logging.WARNING):
        same(cache.load_or_build(SEEDS), expected)
    assert "ground.blocks ends early" in caplog.text


def test_a_file_of_other_code_is_rebuilt(folder, expected, monkeypatch):
    with monkeypatch.context() as other:
        other.setattr(cache, "_version", lambda: b"older")
        cache.load_or_build(SEEDS)
    built = []
    monkeypatch.setattr(
        cache, "build", lambda seeds, _: built.append(seeds) or expected
    )
    same(cache.load_or_build(SEEDS), expected)
    same(cache.load_or_build(SEEDS), expected)
    assert built == [SEEDS]


def test_a_folder_that_cannot_be(folder, expected, caplog):
    folder.write_text("a file stands where the folder should be")
    with caplog.at_level(logging.WARNING):
        same(cache.load_or_build(SEEDS), expected)
    assert "going on without" in caplog.text


def test_where_pools_are_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("IAP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "implicit-attention-pixels" / "car_racing"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder().is_relative_to(tmp_path / ".cache")
