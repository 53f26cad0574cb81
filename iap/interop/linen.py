"""The encoder as a Flax (linen) module: `encode` of parameters that Flax keeps."""

import math
from typing import Any

import jax

from iap.encoder import EncoderConfig, Encoding, encode, weights_shape

try:
    from flax import linen as nn
except ImportError as error:
    raise ImportError(
        "iap.interop.linen needs Flax; install it with pip install flax."
    ) from error


class Encoder(nn.Module):
    """Flax module: Encoder(config).apply({"params": ...}, image) -> Encoding.

    Its parameters, `weights` and `bias`, are those of `iap.Encoder`: `encode` gives the
    same numbers from them in every framework. Random features are no parameters.

    Attributes:
      config: settings.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        key: jax.Array | None = None,
        choice: Any = None,
        vector: jax.Array | None = None,
    ) -> Encoding:
        """Encode one image, u8[H, W, C] in [0, 255] or f32[H, W, C], as `encode`."""
        inputs, outputs = shape = weights_shape(self.config, image.shape[-1])
        init = nn.initializers.truncated_normal(1 / math.sqrt(inputs))
        weights = self.param("weights", init, shape)
        bias = None
        if self.config.bias:
            bias = self.param("bias", nn.initializers.zeros, (outputs,))
        return encode(self.config, image, weights, bias, key, choice, vector)
