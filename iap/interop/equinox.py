"""The encoders as Equinox modules, which hold their parameters."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from iap.cameras import Images, make_parameters
from iap.encoder import Encoding, encode
from iap.settings import EncoderConfig
from iap.trans import TransConfig, trans_network

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
      weights: f32[d_in, n d], see `weights_shape`; a tuple of them for several cameras.
      bias: f32[n d], or None without `config.bias`; a tuple likewise.
    """

    weights: Any
    bias: Any
    config: EncoderConfig = eqx.field(static=True)

    def __init__(
        self,
        config: EncoderConfig,
        channels: int | tuple[int, ...],
        *,
        key: jax.Array,
    ):
        """Draw weights for images of C channels, or of each camera's; biases are zeros.

        The weights of camera i are drawn from fold_in(key, i), those of one image from
        the key itself.
        """

        def make(name, shape):
            if len(shape) == 1:
                return jnp.zeros(shape)
            camera = name.removeprefix("weights").removeprefix("_")
            own = jax.random.fold_in(key, int(camera)) if camera else key
            init = jax.nn.initializers.truncated_normal(1 / math.sqrt(shape[0]))
            return init(own, shape, jnp.float32)

        self.config = config
        self.weights, self.bias = make_parameters(config, channels, make)

    def __call__(
        self,
        image: Images,
        *,
        key: jax.Array | None = None,
        choice: Any = None,
        vector: jax.Array | None = None,
    ) -> Encoding:
        """Encode one image, or one of each camera in a tuple, as `encode`."""
        bias = self.bias
        return encode(self.config, image, self.weights, bias, key, choice, vector)


class TransEncoder(eqx.Module):
    """Equinox module: TransEncoder(config, image, key=key)(image) -> Encoding.

    Its parameters are those of `iap.TransEncoder`, drawn alike.

    Attributes:
      params: haiku's parameters.
    """

    params: Any
    config: TransConfig = eqx.field(static=True)

    def __init__(self, config: TransConfig, image: Images, *, key: jax.Array):
        """Draw parameters for images such as this one, or this tuple of them."""
        self.config = config
        self.params = trans_network(config).init(key, image)

    def __call__(self, image: Images, *, vector: jax.Array | None = None) -> Encoding:
        """Encode what is seen, as `iap.TransEncoder` does.

        Args:
          image: u8[H, W, C] in [0, 255], or f32[H, W, C]; or a tuple with one of each
            camera.
          vector: f32[n] that is handed on as it is, or None.

        Raises:
          ValueError: where an image is too small for the settings, or shapes or numbers
            do not fit each other.
        """
        return trans_network(self.config).apply(self.params, image, vector)
