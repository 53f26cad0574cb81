"""The encoders as Flax (linen) modules, whose parameters Flax keeps."""

import math
from typing import Any

import jax

from iap.cameras import Images, channels_of, make_parameters
from iap.encoder import Encoding, encode
from iap.settings import EncoderConfig
from iap.trans import TransConfig, trans_network

try:
    from flax import linen as nn
except ImportError as error:
    raise ImportError(
        "iap.interop.linen needs Flax; install it with pip install flax."
    ) from error


class Encoder(nn.Module):
    """Flax module: Encoder(config).apply({"params": ...}, image) -> Encoding.

    Its parameters are those of `iap.Encoder`, by the same names: `encode` gives the
    same numbers from them in every framework. Random features are no parameters.

    Attributes:
      config: settings.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        image: Images,
        key: jax.Array | None = None,
        choice: Any = None,
        vector: jax.Array | None = None,
    ) -> Encoding:
        """Encode one image, or one of each camera in a tuple, as `encode`."""

        def make(name, shape):
            init = nn.initializers.zeros
            if len(shape) == 2:
                init = nn.initializers.truncated_normal(1 / math.sqrt(shape[0]))
            return self.param(name, init, shape)

        parameters = make_parameters(self.config, channels_of(image), make)
        return encode(self.config, image, *parameters, key, choice, vector)


class TransEncoder(nn.Module):
    """Flax module: TransEncoder(config).apply({"params": ...}, image) -> Encoding.

    Its parameters are those of `iap.TransEncoder`, as one entry `trans`.

    Attributes:
      config: settings.
    """

    config: TransConfig

    @nn.compact
    def __call__(self, image: Images, vector: jax.Array | None = None) -> Encoding:
        """Encode what is seen, as `iap.TransEncoder` does.

        Args:
          image: u8[H, W, C] in [0, 255], or f32[H, W, C]; or a tuple with one of each
            camera.
          vector: f32[n] that is handed on as it is, or None.

        Raises:
          ValueError: where an image is too small for the settings, or shapes or numbers
            do not fit each other.
        """
        network = trans_network(self.config)
        params = self.param("trans", network.init, image)
        return network.apply(params, image, vector)
