"""The encoder as a tool: an image with the patches that receive most attention.

    python -m iap image.png
    python -m iap image.png --weights runs/NAME/checkpoints/best.npz --kernel relu

Writes the image with its k most attended patches lit and outlined, the brighter the
more attended, and prints where they are. Without --weights, queries and keys are random
projections of the patches, drawn from --seed: an untrained policy's eye.
"""

import argparse
import enum
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from iap.encoder import encode
from iap.features import Kernel
from iap.parameters import random_parameters, read_parameters
from iap.selection import Order
from iap.settings import EncoderConfig, Position, Scale

DIM = 0.5  # light left to what is not attended
OUTLINE = np.array([255, 200, 61])
ACROSS = 96  # patches along a large image's longer side, unless the window is given
ALIKE = 1e-5  # of a score: rounding of float32 sums
LARGEST = 16384  # pixels that a side may be enlarged to
SHOWN = 480  # pixels that a small image's longer side is enlarged to, about


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the command line asks for; 1 for a mistake, told in one sentence."""
    arguments = _parser().parse_args(argv)
    try:
        print(_run(arguments))
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m iap",
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, EncoderConfig()
    add("image", type=Path, help="any picture that OpenCV reads")
    add("--out", type=Path, help="PNG to write; image-attended.png beside the image")
    add(
        "--window",
        type=int,
        help=f"side of patches in pixels; {default.window}, or on large images, "
        f"without --weights, a {ACROSS}th of the longer side",
    )
    add("--stride", type=int, help="pixels between patches; their side, unless given")
    add("--k", type=int, default=default.top_k, help="patches to show; %(default)s")
    add(
        "--kernel",
        default="taylor",
        choices=_names(Kernel),
        help="what queries and keys are compared by; %(default)s",
    )
    add(
        "--features",
        type=int,
        default=default.features,
        help="directions of random features; %(default)s",
    )
    add(
        "--order",
        type=int,
        default=default.order,
        help="degree of --kernel taylor; %(default)s",
    )
    add(
        "--depth",
        type=int,
        default=default.depth,
        help="length of queries and keys; %(default)s",
    )
    add(
        "--heads",
        type=int,
        default=default.heads,
        help="queries and keys of a patch; %(default)s",
    )
    add(
        "--position",
        default="none",
        choices=_names(Position),
        help="what of its place a patch carries; %(default)s",
    )
    add(
        "--scale",
        default="depth",
        choices=_names(Scale),
        help="what logits are divided by the root of; %(default)s",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="of random weights and features; %(default)s",
    )
    add(
        "--weights",
        type=Path,
        help="npz with arrays weights and bias, or encoder/weights and encoder/bias as "
        "a run's checkpoint has them; give the settings that they were trained with",
    )
    add(
        "--zoom",
        type=int,
        default=0,
        help="times to enlarge; without, small images are",
    )
    return parser


def _names(choices: type[enum.Enum]) -> list[str]:
    return [choice.name for choice in choices]


def _run(arguments: argparse.Namespace) -> str:
    out = arguments.out
    if out is None:
        out = arguments.image.parent / f"{arguments.image.stem}-attended.png"
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out} must end in .png, the format that is written.")
    if arguments.zoom < 0:
        raise ValueError(f"--zoom {arguments.zoom} must be at least 1, or 0.")
    image = _read(arguments.image)
    longer = max(image.shape[:2])
    if arguments.zoom * longer > LARGEST:
        raise ValueError(
            f"--zoom {arguments.zoom} makes {arguments.zoom * longer} pixels of "
            f"{longer}; choose at most {max(1, LARGEST // longer)}."
        )
    window = arguments.window
    if window is None:
        window = EncoderConfig().window
        if arguments.weights is None:
            H, W, _ = image.shape
            window = max(window, min(longer // ACROSS, H, W))
    config = EncoderConfig(
        window=window,
        stride=window if arguments.stride is None else arguments.stride,
        depth=arguments.depth,
        heads=arguments.heads,
        top_k=arguments.k,
        kernel=Kernel[arguments.kernel],
        features=arguments.features,
        order=arguments.order,
        position=Position[arguments.position],
        scale=Scale[arguments.scale],
        selection=Order.rank,
        seed=arguments.seed,
    )
    if arguments.weights is None:
        parameters = random_parameters(config, arguments.seed)
    else:
        parameters = read_parameters(arguments.weights, config)
    encoding = jax.jit(encode, static_argnums=0)(config, image, *parameters)
    scores, index, centre = map(np.asarray, encoding.attention)
    zoom = arguments.zoom or max(1, SHOWN // longer)
    _write(out, draw(image, centre, config.window, zoom))
    times = scores[index] / scores.mean()
    lines = [
        f"Wrote {out}: of {len(scores)} patches of {window}x{window} pixels, the "
        f"{len(index)} with most attention, {times.mean():.3g} times the average.",
        "row column (of the patch's centre, in pixels)  times the average",
    ]
    if arguments.weights is None:
        lines.insert(
            1,
            "The weights are random: an untrained eye. --weights takes a run's "
            "checkpoints/best.npz.",
        )
    for (row, column), more in zip(centre, times, strict=True):
        lines.append(f"{row:.0f} {column:.0f}  {more:.3g}")
    last = times[-1] * scores.mean()
    alike = (scores >= last - ALIKE * abs(last)).sum() - len(index)
    if alike > 0:
        lines.append(f"With as much attention as the last of these: {alike} more.")
    return "\n".join(lines)


def draw(image: np.ndarray, centre: np.ndarray, window: int, zoom: int) -> np.ndarray:
    """The image enlarged, dim but for the given patches, which are outlined.

    Args:
      image: u8[H, W, 3].
      centre: f32[K, 2], (row, column) of patches in pixels, the most attended first.
      window: side of a patch in pixels.
      zoom: times to enlarge.

    Returns:
      u8[H zoom, W zoom, 3].
    """
    large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    out = (DIM * large).astype(np.uint8)
    corners = (centre.astype(int) - window // 2) * zoom
    side = window * zoom
    # The outline lies outside the patch and is seen on large pictures as well.
    line = max(1, min(max(zoom, max(large.shape) // 360), side // 4))
    boxes = [
        tuple(slice(max(0, at - edge), at + side + edge) for at in corner)
        for corner in corners.tolist()
        for edge in (line, 0)
    ]
    for i in reversed(range(len(centre))):  # the most attended on top
        strength = 1 - 0.6 * i / len(centre)
        out[boxes[2 * i]] = (strength * OUTLINE).astype(np.uint8)
    for box in boxes[1::2]:  # no outline hides what another patch shows
        out[box] = large[box]
    return out


def _read(path: Path) -> np.ndarray:
    cv2 = _opencv()
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a picture.")
    content = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        raise ValueError(f"{path} is no picture that OpenCV can read; try a PNG.")
    return np.ascontiguousarray(image[..., ::-1])


def _write(path: Path, image: np.ndarray) -> None:
    _, content = _opencv().imencode(".png", image[..., ::-1])
    path.write_bytes(content.tobytes())


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            "reading pictures needs OpenCV: pip install opencv-python-headless."
        ) from error
    return cv2


if __name__ == "__main__":
    sys.exit(main())
