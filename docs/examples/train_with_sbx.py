"""PPO of SBX with `iap`'s encoder for its eyes, in about a minute on a CPU.

    pip install --editable ".[sbx]"
    python docs/examples/train_with_sbx.py

SBX (Stable-Baselines3 in JAX) lets its features extractor be replaced: `PatchEncoder`
is all that it needs. Actor and critic each make one, with weights of their own, and
gradients train them: each of the ten patches is weighted by its share of attention.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from iap import EncoderConfig, Kernel
from iap.interop.linen import Encoder

CONFIG = EncoderConfig(kernel=Kernel.taylor, content=True, weighted=True)


class PatchEncoder(nn.Module):
    """Images as SBX has them -> their k most attended patches.

    Attributes:
      config: settings of the encoder.
      features_dim: SBX's word for the width of what is handed on, which `config` says
        here; not used.
      activation_fn: not used either.
    """

    config: EncoderConfig
    features_dim: int = 0
    activation_fn: object = None

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Encode B images u8[B, C, H, W], channels first as in PyTorch: f32[B, F]."""
        encoder = nn.vmap(
            Encoder, variable_axes={"params": None}, split_rngs={"params": False}
        )
        images = jnp.moveaxis(images, 1, -1)
        return encoder(self.config, name="encoder")(images).features


def main() -> None:
    """Trains, and prints the mean return before and after."""
    from sbx import PPO
    from train_with_stable_baselines3 import run

    def agent(worlds, seed: int) -> PPO:
        extractor = functools.partial(PatchEncoder, CONFIG)
        return PPO(
            "CnnPolicy",
            worlds,
            n_steps=64,
            batch_size=256,
            n_epochs=4,
            learning_rate=1e-3,
            seed=seed,
            policy_kwargs={"features_extractor_class": extractor},
        )

    run((__doc__ or "").splitlines()[0], agent, steps=16384)


if __name__ == "__main__":
    main()
