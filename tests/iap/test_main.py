import re
import sys

import cv2
import jax
import numpy as np
import pytest

from iap import EncoderConfig, Kernel, Order, encode, weights_shape
from iap.__main__ import DIM, draw, main

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "street.png"
    assert cv2.imwrite(str(path), IMAGE[..., ::-1])
    return path


def test_shows_the_patches_that_the_encoder_chooses(picture, tmp_path, capsys):
    """With trained weights, which a checkpoint keeps below `encoder/`."""
    config = EncoderConfig(
        window=4, stride=2, top_k=3, kernel=Kernel.exact, selection=Order.rank
    )
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(weights_shape(config, 3)).astype(np.float32)
    bias = rng.standard_normal(weights.shape[1]).astype(np.float32)
    saved = {"encoder/weights": weights, "encoder/bias": bias}
    np.savez(tmp_path / "best.npz", **saved)
    options = ["--stride=2", "--k=3", "--kernel=exact", "--zoom=1"]
    assert main([str(picture), *options, f"--weights={tmp_path / 'best.npz'}"]) == 0
    looked = jax.jit(encode, static_argnums=0)(config, IMAGE, weights, bias).attention
    printed = capsys.readouterr().out
    places = re.findall(r"^(\d+) (\d+)  ", printed, re.MULTILINE)
    np.testing.assert_array_equal(np.array(places, float), looked.centre)
    assert "of 165 patches of 4x4 pixels, the 3 " in printed
    assert "random" not in printed
    scores = np.asarray(looked.scores)
    times = float(re.findall(r"attention, ([\d.]+) times", printed)[0])
    best = np.sort(scores)[-3:].mean() / scores.mean()
    np.testing.assert_allclose(times, best, rtol=5e-3)  # three digits are printed
    shown = cv2.imread(str(tmp_path / "street-attended.png"))[..., ::-1]
    np.testing.assert_array_equal(shown, draw(IMAGE, looked.centre, 4, 1))


def test_patches_grow_with_the_picture_and_untrained_weights_are_said(tmp_path, capsys):
    large = np.tile(IMAGE, (30, 30, 1))[:700, :960]
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), large)
    assert main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "patches of 10x10 pixels" in printed  # 960 // 96
    assert "The weights are random" in printed


def test_patches_that_tie_with_the_last_are_told(tmp_path, capsys):
    """On one colour all do, and the first ones in reading order are shown."""
    path = tmp_path / "flat.png"
    flat = np.full((12, 12, 3), 90, np.uint8)
    cv2.imwrite(str(path), flat)
    assert main([str(path), "--k=2", "--heads=2"]) == 0
    last = "With as much attention as the last of these: 7 more.\n"
    assert capsys.readouterr().out.endswith(last)
    flat[0, 0], flat[4, 4] = 0, 255
    cv2.imwrite(str(path), flat)
    assert main([str(path), "--k=1"]) == 0
    assert "as the last of these" not in capsys.readouterr().out


def test_grey_pictures_and_pictures_with_alpha_are_read_in_colour(tmp_path, capsys):
    printed = []
    shapes = {"grey": IMAGE[..., 0], "colour": IMAGE[..., [0, 0, 0]]}
    shapes["alpha"] = np.dstack([shapes["colour"], IMAGE[..., 1]])
    for name, image in shapes.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        assert main([str(tmp_path / f"{name}.png")]) == 0
        printed.append(capsys.readouterr().out.partition("\n")[2])
    assert printed[0] == printed[1] == printed[2]


def test_attended_patches_keep_their_light_and_have_an_outline():
    white = np.full((12, 12, 3), 200, np.uint8)
    out = draw(white, np.array([[6.0, 6.0], [0.0, 11.0]]), 2, 3)
    assert out.shape == (36, 36, 3)
    assert (out[15:21, 15:21] == 200).all()  # pixels 5 and 6, three times
    assert (out[14, 14:22] == [255, 200, 61]).all()
    assert (out[21, 14:22] == [255, 200, 61]).all()
    assert (out[25:, :] == DIM * 200).all()


def test_random_weights_come_from_the_seed(picture, tmp_path):
    shown = []
    for seed in "001":
        out = tmp_path / "out.png"
        assert main([str(picture), "--out", str(out), "--k", "2", "--seed", seed]) == 0
        shown.append(cv2.imread(str(out)))
    assert shown[0].shape == (24 * 15, 32 * 15, 3)  # 480 // 32
    np.testing.assert_array_equal(shown[0], shown[1])
    assert (shown[0] != shown[2]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "25"], "window=25 does not fit an image of 24x32"),
        (["--k", "49"], "top_k=49 must be between 1 and the number of patches, 48"),
        (["--kernel", "positive", "--features", "0"], "features=0 must be at least 1"),
        (["--out", "here.jpg"], r"--out here\.jpg must end in \.png"),
        (["--zoom", "-1"], "--zoom -1 must be at least 1, or 0"),
        (["--zoom", "600"], "makes 19200 pixels of 32; choose at most 512"),
        (["--out", "{folder}/absent/x.png"], r"No such file .*absent/x\.png$"),
        (["--weights", "{folder}"], r"Is a directory: "),
        (["--weights", "{folder}/heads.npz"], r"\(48, 16\), but .* \(48, 8\)"),
        (["--weights", "absent.npz"], r"No such file .*absent\.npz"),
        (["--weights", "{picture}"], r"street\.png is no sound npz file"),
        (["--weights", "{folder}/none.npz"], "holds neither weights nor encoder/"),
        (["--weights", "{folder}/large.npz"], r"shape \(147, 8\), but .* \(48, 8\)"),
        (
            ["--weights", "{folder}/bias.npz"],
            r"bias of .* \(3,\); its weights .* \(8",
        ),
    ],
)
def test_mistakes_are_told_in_one_sentence(picture, capsys, options, message):
    folder = picture.parent
    np.savez(folder / "none.npz", other=np.zeros(3))
    np.savez(folder / "large.npz", weights=np.zeros((147, 8)))
    np.savez(folder / "heads.npz", weights=np.zeros((48, 16)))  # two, not one
    np.savez(folder / "bias.npz", weights=np.zeros((48, 8)), bias=np.zeros(3))
    options = [option.format(picture=picture, folder=folder) for option in options]
    assert main([str(picture), *options]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert re.search(message, told)
    assert not (folder / "street-attended.png").exists()


def test_what_is_no_picture_is_refused(tmp_path, capsys):
    for name, content in (("empty.png", b""), ("text.png", b"no picture")):
        (tmp_path / name).write_bytes(content)
        assert main([str(tmp_path / name)]) == 1
        assert f"{name} is no picture" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert main([str(tmp_path / "absent.png")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_says_what_it_needs_where_there_is_no_opencv(picture, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main([str(picture)]) == 1
    assert "pip install opencv-python-headless" in capsys.readouterr().err
