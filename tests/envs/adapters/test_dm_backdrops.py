import cv2
import numpy as np
import pytest

from envs import backdrops
from envs.adapters import dm_backdrops
from envs.adapters.dm_backdrops import FRAMES, SIDE, films
from envs.adapters.host_simulator import Refused


def picture(shade):
    return np.full((20, 30, 3), shade, np.uint8)


def write(folder, count, first=0):
    """Frames whose blue is their number, on a folder's disk."""
    folder.mkdir(parents=True)
    for index in range(count):
        image = picture((first + index, 0, 200))
        assert cv2.imwrite(str(folder / f"{index:05d}.png"), image)


@pytest.mark.parametrize("step", [0, 700])
def test_the_waves_are_those_of_the_worlds_in_jax(step):
    waves = dm_backdrops.draw_waves(3)
    ours = dm_backdrops.wave_frame(waves, step)
    as_theirs = backdrops.Waves(*(np.float32(leaf) for leaf in waves))
    theirs = backdrops.wave_frame(as_theirs, np.int32(step), SIDE, SIDE)
    # Its sines are off by 0.0012 of 127.5 grey levels, and it computes in float32.
    assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 1


def test_there_are_as_many_films_of_waves_as_davis_has():
    made = films("")
    assert len(made) == 60
    first, other = (film.frame(0) for film in made[:2])
    assert first.shape == (SIDE, SIDE, 3) and first.dtype == np.uint8
    assert np.abs(first.astype(int) - other).mean() > 20
    # Neighbouring frames are alike, far ones are not.
    near, far = (np.abs(first - made[0].frame(n).astype(int)) for n in (1, 200))
    assert 0 < near.mean() < 5 < 10 < far.mean()
    np.testing.assert_array_equal(films("")[1].frame(0), other)


def test_a_folder_of_images_is_a_film(tmp_path):
    write(tmp_path / "a", 3, first=10)
    (film,) = films(str(tmp_path / "a"))
    assert film.length == 3
    frame = film.frame(2)
    assert frame.shape == (SIDE, SIDE, 3)
    assert (frame == [200, 0, 12]).all()  # red, green, blue


def test_folders_of_images_are_films_by_their_names(tmp_path):
    for number, name in enumerate("cab"):
        write(tmp_path / name, number + 1)
    (tmp_path / "empty").mkdir()
    assert [film.length for film in films(str(tmp_path))] == [2, 3, 1]


def test_of_davis_the_films_for_training_are_taken(tmp_path):
    for number, name in enumerate(["bear", "blackswan", "bmx-bumps"]):
        write(tmp_path / "JPEGImages/480p" / name, number + 1)
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/train.txt").write_text("bear\nbmx-bumps\n")
    assert [film.length for film in films(str(tmp_path))] == [1, 3]


def test_a_video_file_is_a_film(tmp_path):
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, (32, 32))
    for _ in range(FRAMES + 4):
        writer.write(np.full((32, 32, 3), (0, 40, 200), np.uint8))
    writer.release()
    (film,) = films(str(path))
    assert film.length == FRAMES
    # The colours went through YUV and back.
    assert np.abs(film.frame(5).astype(int) - [200, 40, 0]).max() <= 3


@pytest.mark.parametrize("name", ["nowhere", "empty", "text.txt"])
def test_where_there_are_no_frames_is_said(name, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no video")
    with pytest.raises(Refused, match=rf"env.frames is .*{name}, where there are no f"):
        films(str(tmp_path / name))


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    (film,) = films(str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot read .*bad\.png; take it away"):
        film.frame(0)
