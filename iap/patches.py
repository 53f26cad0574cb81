"""Image <-> patches: the projection of possibly overlapping patches, patch centres.

Patches are VALID windows in row-major order: L = rows * columns of them, where
rows = (H - window) // stride + 1 and columns likewise.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def grid(height: int, width: int, window: int, stride: int) -> tuple[int, int]:
    """Number of patches (rows, columns) that fit an image without padding.

    Args:
      height: image height in pixels.
      width: image width in pixels.
      window: side of the square patches in pixels.
      stride: distance between neighbouring patches in pixels.

    Raises:
      ValueError: where window or stride is below 1, or no window fits the image.
    """
    if window < 1 or stride < 1:
        raise ValueError(
            f"window={window} and stride={stride} must both be at least 1 pixel."
        )
    if window > min(height, width):
        raise ValueError(
            f"window={window} does not fit an image of {height}x{width} pixels; "
            f"choose a window of at most {min(height, width)}."
        )
    return (height - window) // stride + 1, (width - window) // stride + 1


def centres(height: int, width: int, window: int, stride: int) -> np.ndarray:
    """Centre pixel (row, column) of every patch, `window // 2 + i * stride`.

    Args:
      height: image height in pixels.
      width: image width in pixels.
      window: side of the square patches in pixels.
      stride: distance between neighbouring patches in pixels.

    Returns:
      f32[L, 2] in pixels, a numpy constant.
    """
    rows, columns = grid(height, width, window, stride)
    index = np.indices((rows, columns)).reshape(2, -1).T
    return (window // 2 + index * stride).astype(np.float32)


def project(
    image: jax.Array,
    weights: jax.Array,
    bias: jax.Array | None = None,
    stride: int = 1,
) -> jax.Array:
    """Affine projection of every patch, without materialising overlapping patches.

    The image is cut into stride-sized cells and the kernel, padded to whole cells, into
    blocks; a patch sums, over the cells under it, cell times block. These are plain
    matrix products, also under `vmap` over images that share the weights.

    Args:
      image: u8[H, W, C], taken as intensities in [0, 255] / 255, or f32[H, W, C].
      weights: f32[window, window, C, d].
      bias: f32[d], or None.
      stride: distance between neighbouring patches in pixels.

    Returns:
      f32[L, d], patches in row-major order.

    Raises:
      ValueError: where the shapes do not fit each other.
    """
    check_image(image)
    if weights.ndim != 4 or weights.shape[0] != weights.shape[1]:
        raise ValueError(
            f"weights have shape {weights.shape}; expected [window, window, C, d]."
        )
    height, width, channels = image.shape
    window, _, inputs, _ = weights.shape
    if inputs != channels:
        raise ValueError(
            f"weights expect {inputs} channels, the image has {channels}; "
            "make the two equal."
        )
    if bias is not None and bias.shape != weights.shape[3:]:
        raise ValueError(
            f"bias has shape {bias.shape}; weights {weights.shape} need "
            f"{weights.shape[3:]}, or None."
        )
    rows, columns = grid(height, width, window, stride)
    if image.dtype == jnp.uint8:
        image = image.astype(weights.dtype)
        weights = weights * np.float32(1 / 255)
    elif image.dtype != weights.dtype:
        raise ValueError(
            f"image has dtype {image.dtype}; expected uint8 in [0, 255] or "
            f"{weights.dtype}, as the weights."
        )

    blocks = math.ceil(window / stride)  # cells under a patch, per axis
    side = min(window, stride)  # a cell leaves out the pixels between patches
    cells = _cells(image, rows + blocks - 1, columns + blocks - 1, stride, side)
    kernel = _kernel_blocks(weights, blocks, side)
    # Shifting cells before the products, not results after, keeps every intermediate
    # as small as the image and was fastest on a CPU, backwards above all: a convolution
    # of the same numbers took 1-2 times as long, its gradient 2-7 times.
    out = jnp.zeros((1, 1), weights.dtype) if bias is None else bias[None, :]
    for down in range(blocks):
        for right in range(blocks):
            under = cells[down : down + rows, right : right + columns]
            out = under.reshape(rows * columns, -1) @ kernel[down, right] + out
    return out


def check_image(image: jax.Array) -> None:
    """Refuse what is not one image.

    Raises:
      ValueError: where the rank is not 3.
    """
    if image.ndim != 3:
        raise ValueError(
            f"image has shape {image.shape}; expected one image [H, W, C] "
            "(map a batch with jax.vmap)."
        )


def _cells(
    image: jax.Array, rows: int, columns: int, stride: int, side: int
) -> jax.Array:
    """[H, W, C] -> [rows, columns, side * side * C]."""
    height, width = rows * stride, columns * stride
    image = image[:height, :width]
    missing = (height - image.shape[0], width - image.shape[1])
    image = jnp.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)))
    image = image.reshape(rows, stride, columns, stride, -1)[:, :side, :, :side]
    return image.swapaxes(1, 2).reshape(rows, columns, -1)


def _kernel_blocks(weights: jax.Array, blocks: int, side: int) -> jax.Array:
    """[window, window, C, d] -> [blocks, blocks, side * side * C, d]."""
    window, _, channels, depth = weights.shape
    padding = (0, blocks * side - window)
    weights = jnp.pad(weights, (padding, padding, (0, 0), (0, 0)))
    weights = weights.reshape(blocks, side, blocks, side, channels, depth)
    return weights.swapaxes(1, 2).reshape(blocks, blocks, -1, depth)
