"""The encoder as an Equinox module: `encode` of parameters that the module holds."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from iap.encoder import EncoderConfig, Encoding, encode, weights_shape

try:
    import equinox as eqx
except ImportError as error:
    raise ImportError(
        "iap.interop.equinox needs Equinox; install it with pip install equinox."
    ) from error


class Encoder(eqx.Module):
    """Equinox module: Encoder(config, channels, key=key)(image) -> Encoding.

    Its parameters are those of `iap.Encoder`: `encode` gives the same numbers from them
    in every framework. Random features are no parameters.

    Attributes:
      config: settings.
      weights: f32[d_in, n d], see `weights_shape`.
      bias: f32[n d], or None without `config.bias`.
    """

    weights: jax.Array
    bias: jax.Array | None
    config: EncoderConfig = eqx.field(static=True)

    def __init__(self, config: EncoderConfig, channels: int, *, key: jax.Array):
        """Draw weights for images of C channels; the bias is zeros."""
        inputs, outputs = shape = weights_shape(config, channels)
        init = jax.nn.initializers.truncated_normal(1 / math.sqrt(inputs))
        self.config = config
        self.weights = init(key, shape, jnp.float32)
        self.bias = jnp.zeros(outputs) if config.bias else None

    def __call__(
        self,
        image: jax.Array,
        *,
        key: jax.Array | None = None,
        choice: Any = None,
        vector: jax.Array | None = None,
    ) -> Encoding:
        """Encode one image, u8[H, W, C] in [0, 255] or f32[H, W, C], as `encode`."""
        bias = self.bias
        return encode(self.config, image, self.weights, bias, key, choice, vector)
