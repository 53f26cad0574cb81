"""The encoder's parameters apart from any network: drawn, or read from a file."""

import math
from pathlib import Path

import numpy as np

from iap.cameras import weights_shape
from iap.settings import EncoderConfig


def random_parameters(
    config: EncoderConfig, seed: int, channels: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Weights N(0, 1 / d_in), f32[d_in, n d], and a bias of zeros, f32[n d]."""
    shape = weights_shape(config, channels)
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(shape) / math.sqrt(shape[0])
    return weights.astype(np.float32), np.zeros(shape[1], np.float32)


def read_parameters(
    path: Path, config: EncoderConfig, channels: int = 3
) -> tuple[np.ndarray, np.ndarray | None]:
    """The projections to queries and keys from an npz file; the bias may be None.

    Args:
      path: holds `weights` f32[d_in, n d] and perhaps `bias` f32[n d], or both under
        `encoder/`. Further columns, of projected contents, are left out.
      config: the settings that they have to fit.
      channels: of the image.

    Raises:
      ValueError: the file holds no such arrays, or they do not fit.
      OSError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            prefix = "encoder/" if "encoder/weights" in file else ""
            named = {
                name: file[prefix + name]
                for name in ("weights", "bias")
                if prefix + name in file
            }
    except OSError:
        raise
    except Exception as error:  # zipfile and NumPy have many names for a broken file
        raise ValueError(f"{path} is no sound npz file ({error}).") from error
    if "weights" not in named:
        raise ValueError(
            f"{path} holds neither weights nor encoder/weights; save the projection "
            "to queries and keys under one of these names."
        )
    inputs, outputs = weights_shape(config, channels)
    found = named["weights"].shape
    # With contents there are d columns more; any other number is of other heads.
    if found not in [(inputs, outputs), (inputs, outputs + config.depth)]:
        raise ValueError(
            f"the weights of {path} have shape {found}, but these settings need "
            f"({inputs}, {outputs}): give the window, depth, heads and position that "
            f"they were trained with (images have {channels} channels here)."
        )
    weights, bias = named["weights"][:, :outputs], named.get("bias")
    if bias is None:
        return np.asarray(weights, np.float32), None
    if bias.shape != found[1:]:
        raise ValueError(
            f"the bias of {path} has shape {bias.shape}; its weights need {found[1:]}."
        )
    return np.asarray(weights, np.float32), np.asarray(bias[:outputs], np.float32)
