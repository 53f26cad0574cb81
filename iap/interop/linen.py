"""The encoder as a Flax (linen) module: `encode` of parameters that Flax keeps."""

import math
from typing import Any

import jax

from iap.cameras import Images, channels_of, make_parameters
from iap.encoder import Encoding, encode
from iap.settings import EncoderConfig

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
