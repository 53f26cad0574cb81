"""Images -> tokens: those of one camera, or of several of any sizes, in one row.

Every camera has a projection of its own, so that its tokens say whose they are. Behind
it attention knows no cameras: the tokens of the second follow those of the first.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from iap.patches import centres, grid, project
from iap.settings import EncoderConfig, Position, Scale

Images: TypeAlias = jax.Array | tuple[jax.Array, ...]
"""One image u8[H, W, C] in [0, 255] or f32[H, W, C], or one of each camera."""

Shape: TypeAlias = tuple[int, ...]
Array = TypeVar("Array")


class Sight(NamedTuple):
    """The tokens of all cameras.

    Attributes:
      tokens: f32[L, n d], what the weights make of each patch.
      asked: f32[n d], the bias of the tokens, its mean over cameras; zeros for none.
      centre: f32[L, 2], centres of patches (row, column) in pixels of their image.
      relative: f32[L, 2], the same divided by its height and width.
      camera: f32[L, N], which of N cameras a patch is of, one-hot; N = 0 for one image.
    """

    tokens: jax.Array
    asked: jax.Array
    centre: np.ndarray
    relative: np.ndarray
    camera: np.ndarray


def look(config: EncoderConfig, images: Images, weights: Any, bias: Any) -> Sight:
    """Project the patches of all images; queries and keys come scaled.

    Args:
      config: settings.
      images: one, or one of each camera.
      weights: f32[d_in, n d] of `weights_shape`; for several cameras one of each.
      bias: f32[n d], or None; for several cameras one of each, or None.

    Raises:
      ValueError: where an image is too small for the window, or shapes or numbers do
        not fit each other.
    """
    wanted = _count(images)
    for name, given in (("weights", weights), ("bias", bias)):
        found = wanted if name == "bias" and given is None else _count(given)
        if found != wanted:
            raise ValueError(
                f"image is {wanted} and {name} {found}; give one array each, or tuples "
                "with as many."
            )
    if not isinstance(images, tuple):
        return _seen(config, images, weights, bias)
    biases = [None] * len(images) if bias is None else bias
    parts = [
        _seen(config, *camera) for camera in zip(images, weights, biases, strict=True)
    ]
    one_hot = np.eye(len(parts), dtype=np.float32)
    return Sight(
        tokens=jnp.concatenate([part.tokens for part in parts]),
        asked=jnp.mean(jnp.stack([part.asked for part in parts]), axis=0),
        centre=np.concatenate([part.centre for part in parts]),
        relative=np.concatenate([part.relative for part in parts]),
        camera=np.repeat(one_hot, [len(part.centre) for part in parts], axis=0),
    )


def _count(given: Any) -> str:
    """What was given: an array, or a tuple of how many."""
    if not isinstance(given, (list, tuple)):
        return "an array"
    if isinstance(given, list) or not given:
        raise ValueError(
            f"a {type(given).__name__} of {len(given)} was given for cameras; give one "
            "array, or a tuple with one of each camera."
        )
    return f"a tuple of {len(given)}"


def _seen(
    config: EncoderConfig, image: jax.Array, weights: jax.Array, bias: jax.Array | None
) -> Sight:
    if image.ndim != 3 or weights.shape != weights_shape(config, image.shape[2]):
        raise ValueError(
            f"image {image.shape} and weights {weights.shape} do not fit: expected one "
            "image [H, W, C] and weights of weights_shape(config, C)."
        )
    if bias is not None and bias.shape != weights.shape[1:]:
        raise ValueError(
            f"bias has shape {bias.shape}; weights {weights.shape} need "
            f"{weights.shape[1:]}, or None."
        )
    height, width, channels = image.shape
    window = config.window
    divisor = len(weights) if config.scale is Scale.d_in else config.depth
    # Scaling the few weights scales the many queries and keys.
    scale = np.ones((1, weights.shape[1]), np.float32)
    scale[:, : 2 * config.heads * config.depth] = divisor**-0.25
    weights = weights * scale
    bias = None if bias is None else bias * scale[0]

    pixels = window * window * channels
    kernel = weights[:pixels].reshape(window, window, channels, -1)
    tokens = project(image, kernel, bias, config.stride)
    centre = centres(height, width, window, config.stride)
    relative = centre / np.array([[height, width]], np.float32)
    if config.position is not Position.none:
        tokens = tokens + positions(relative, config.position) @ weights[pixels:]
    asked = jnp.zeros(weights.shape[1]) if bias is None else bias
    none = np.zeros((len(centre), 0), np.float32)
    return Sight(tokens, asked, centre, relative, none)


def locate(
    config: Any, shapes: Sequence[Shape], index: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """From places in the row of all cameras' patches back to cameras and patches.

    Args:
      config: settings with a `window` and a `stride`.
      shapes: [H, W, C] of the image of each camera.
      index: i32[K], as `Attention.index`.

    Returns:
      The cameras, i32[K] from 0, and the patches in them, i32[K], row-major.

    Raises:
      ValueError: where there is no camera, or no window fits an image.
    """
    if not shapes:
        raise ValueError("shapes is empty; give [H, W, C] of the image of each camera.")
    grids = [grid(shape[0], shape[1], config.window, config.stride) for shape in shapes]
    ends = np.cumsum([math.prod(sides) for sides in grids])
    starts = jnp.asarray(np.concatenate([[0], ends[:-1]]), jnp.int32)
    camera = jnp.searchsorted(starts, index, side="right").astype(jnp.int32) - 1
    return camera, index - starts[camera]


def weights_shape(config: EncoderConfig, channels: int) -> tuple[int, int]:
    """Shape [d_in, n d] of the weights of `encode` for images of C channels."""
    place = positions(np.zeros((1, 2), np.float32), config.position).shape[1]
    inputs = config.window**2 * channels + place
    return inputs, config.depth * (2 * config.heads + config.content)


def channels_of(images: Images) -> int | tuple[int, ...]:
    """C of one image, or of the image of each camera.

    Raises:
      ValueError: where images are a list or none.
    """
    _count(images)
    if isinstance(images, tuple):
        return tuple(image.shape[-1] for image in images)
    return images.shape[-1]


def make_parameters(
    config: EncoderConfig,
    channels: int | tuple[int, ...],
    make: Callable[[str, Shape], Array],
) -> tuple[Any, Any]:
    """Weights and bias in the form that `encode` takes, made one by one.

    Args:
      config: settings; without `config.bias` there is none.
      channels: of `channels_of`.
      make: (name, shape) -> array. One image has `weights` and `bias`, of several
        cameras the first has `weights_0` and `bias_0`.

    Returns:
      Weights and bias, or the tuples of the cameras' weights and biases; None for no
      bias.
    """
    if not isinstance(channels, tuple):
        shape = weights_shape(config, channels)
        weights = make("weights", shape)
        return weights, make("bias", shape[1:]) if config.bias else None
    shapes = [weights_shape(config, count) for count in channels]
    weights = tuple(make(f"weights_{i}", shape) for i, shape in enumerate(shapes))
    if not config.bias:
        return weights, None
    return weights, tuple(
        make(f"bias_{i}", shape[1:]) for i, shape in enumerate(shapes)
    )


def positions(relative: np.ndarray, position: Position) -> np.ndarray:
    """What a patch's place adds to its token.

    Args:
      relative: f32[L, 2], centres divided by the image's height and width.
      position: none, concat (the two numbers) or sincos (sine and cosine of each at
        four octaves from half a period per image).

    Returns:
      f32[L, 0], f32[L, 2] or f32[L, 16].
    """
    if position is Position.none:
        return relative[:, :0]
    if position is Position.concat:
        return relative
    angles = relative[:, :, None] * (np.pi * 2.0 ** np.arange(4))[None, None, :]
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    return waves.reshape(len(relative), -1).astype(np.float32)
