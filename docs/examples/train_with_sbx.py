"""PPO of SBX with `iap`'s encoder for its eyes, in about a minute on a CPU.

    pip install --editable ".[sbx]"
    python docs/examples/train_with_sbx.py

SBX (Stable-Baselines3 in JAX) lets its features extractor be replaced: `PatchEncoder`
is all that it needs. Actor and critic each make one, with weights of their own, and
gradients train them: each of the ten patches is weighted by its share of attention.
"""

import argparse
import functools
import time

import gymnasium
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
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],  # pyright: ignore[reportOptionalMemberAccess]
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=16384, help="frames to train for")
    parser.add_argument("--worlds", type=int, default=16, help="worlds in lockstep")
    parser.add_argument("--tracks", type=int, default=32, help="tracks to train on")
    parser.add_argument("--size", type=int, default=48, help="pixels along a side")
    parser.add_argument("--length", type=int, default=200, help="frames of an episode")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    from sbx import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from train_with_stable_baselines3 import as_vec_env

    def make():
        return as_vec_env(
            gymnasium.make_vec(
                "envs:iap/CarRacing-v0",
                num_envs=arguments.worlds,
                tracks=arguments.tracks,
                max_episode_steps=arguments.length,
                autoreset_mode="SameStep",
                continuous=False,
                size=arguments.size,
            )
        )

    def score() -> str:
        # Tracks 1000 and up are not among those of training.
        held_out.seed(1000)
        mean, deviation = evaluate_policy(
            model, held_out, n_eval_episodes=arguments.worlds, warn=False
        )
        return f"{mean:.1f} +- {deviation:.1f}"

    training, held_out = make(), make()
    model = PPO(
        "CnnPolicy",
        training,
        n_steps=64,
        batch_size=256,
        n_epochs=4,
        learning_rate=1e-3,
        seed=arguments.seed,
        policy_kwargs={
            "features_extractor_class": functools.partial(PatchEncoder, CONFIG)
        },
    )
    print(f"return of {arguments.length} frames, mean and deviation over tracks")
    print("before", score(), flush=True)
    start = time.perf_counter()
    model.learn(arguments.steps)
    print(f"trained for {arguments.steps} frames: {time.perf_counter() - start:.0f} s")
    print("after", score())


if __name__ == "__main__":
    main()
