"""The encoder *trans*: blocks of linear attention, no choice of patches.

Every token reads all others in each block, in time linear in their number; their mean
is handed on. As an option the grid of tokens is restructured first, as Tokens-to-Token
does (arXiv 2101.11986), here with Performer attention in between.
"""

import dataclasses
import math

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from iap.attention import linear_attention, linear_scores
from iap.cameras import Images, channels_of, positions
from iap.directions import Norms, Projection
from iap.encoder import Attention, Encoding, join
from iap.exact import exact_attention, exact_scores
from iap.features import Design, FeatureMap, Kernel, feature_map
from iap.patches import centres, check_image, grid, project
from iap.selection import Order, select
from iap.settings import Position

SIDE, STEP = 3, 2  # of the windows of tokens that Tokens-to-Token joins


@dataclasses.dataclass(frozen=True)
class TransConfig:
    """Settings of an encoder of stacked Performer blocks.

    Attributes:
      name: tells these settings from others.
      window: side of the square patches in pixels.
      stride: distance between neighbouring patches in pixels.
      width: numbers that a token holds, and that are handed on.
      heads: parts that a token's queries, keys and values are cut into.
      layers: blocks.
      hidden: units of the perceptron in each block.
      restructured: times that a block and a projection of 3x3 tokens, 2 apart, come
        before the others (Tokens-to-Token); each leaves about a quarter of the tokens.
      top_k: patches that count as most attended, for films only.
      kernel: what queries and keys are compared by.
      features: m, directions of the random features; elu and taylor have none.
      projection: how they are drawn; none compares plain vectors (relu only).
      norms: lengths of the directions; sqrt_d biases estimates of exp at small depth.
      spread: mean |q + k|^2 that kernel=oprf and saderf are tuned to for the whole run;
        0 measures it for every block, head and image, a fixed one is shared by all.
      balance: width / heads numbers by which kernel=saderf multiplies queries and
        divides keys, for the whole run, the same in every block and head; none measures
        them for every block, head and image.
      order: even degree at which kernel=taylor cuts the series of exp.
      seed: names the draw of the random features, made once and shared by all.
    """

    name: str = "trans"
    window: int = 4
    stride: int = 4
    width: int = 32
    heads: int = 4
    layers: int = 2
    hidden: int = 64
    restructured: int = 0
    top_k: int = 10
    kernel: Kernel = Kernel.relu
    features: int = 64
    projection: Projection = Projection.orthogonal
    norms: Norms = Norms.chi
    spread: float = 0.0
    balance: tuple[float, ...] = ()
    order: int = 2
    seed: int = 0

    def __post_init__(self):
        # A list, as the command line makes it, would leave the settings without a hash.
        object.__setattr__(self, "balance", tuple(self.balance))
        least = {
            **dict.fromkeys(("window", "stride", "width", "heads", "layers"), 1),
            **{"hidden": 1, "top_k": 1, "restructured": 0, "seed": 0},
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(
                    f"{name}={getattr(self, name)} must be at least {bound}."
                )
        if self.width % self.heads:
            raise ValueError(
                f"width={self.width} must be a multiple of heads={self.heads}."
            )
        self.feature_map()  # raises what does not fit the kernel

    def feature_map(self) -> FeatureMap | None:
        """The kernel's, for one head; None for kernel=exact."""
        if self.kernel is Kernel.exact:
            return None
        design = Design(
            depth=self.width // self.heads,
            features=self.features,
            projection=self.projection,
            order=self.order,
            seed=self.seed,
            norms=self.norms,
            spread=self.spread,
            balance=self.balance,
        )
        return feature_map(self.kernel, design)


class Block(hk.Module):
    """Attention of several heads, then a perceptron, each added to the tokens.

    Normalised before each (pre-norm). exp(q . k) is estimated around the means of
    queries and keys wherever the kernel estimates it.
    """

    def __init__(self, config: TransConfig, name: str = "block"):
        super().__init__(name=name)
        self.config = config

    def __call__(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tokens f32[L, width] -> tokens, and the mean attention each received, f32[L].

        The attention sums to L over the tokens.
        """
        config, length = self.config, len(tokens)
        depth = config.width // config.heads
        features = config.feature_map()

        def attend(q, k, v):
            if features is None:
                return exact_attention(q, k, v), exact_scores(q, k)
            centred = features.exponential
            return (
                linear_attention(q, k, v, features, centred=centred),
                linear_scores(q, k, features, centred=centred),
            )

        three = hk.Linear(3 * config.width, name="attend")(_normed(tokens, "norm_1"))
        three = three.reshape(length, 3, config.heads, depth).transpose(1, 2, 0, 3)
        scale = depth**-0.25
        read, scores = jax.vmap(attend)(scale * three[0], scale * three[1], three[2])
        read = read.swapaxes(0, 1).reshape(length, config.width)
        tokens = tokens + hk.Linear(config.width, name="join")(read)
        hidden = hk.Linear(config.hidden, name="hidden")(_normed(tokens, "norm_2"))
        out = hk.Linear(config.width, name="out")(jax.nn.gelu(hidden))
        return tokens + out, jnp.mean(scores, axis=0)


class TransEncoder(hk.Module):
    """Haiku module: TransEncoder(config)(image) -> Encoding.

    Its attention is that of the first block, which alone attends to patches of the
    image, as the mean over heads. Random features are no parameters.
    """

    def __init__(self, config: TransConfig, name: str = "encoder"):
        super().__init__(name=name)
        self.config = config

    def __call__(self, image: Images, vector: jax.Array | None = None) -> Encoding:
        """Encode what is seen, and beside it a vector that is handed on as it is.

        Args:
          image: u8[H, W, C] in [0, 255], or f32[H, W, C]; or a tuple with one of each
            camera, each with a projection of its own (`tokens_0`, `tokens_1` and so
            on). Tokens of all cameras read each other.
          vector: f32[n], or None.

        Raises:
          ValueError: where an image is too small for the settings, or none; or tokens
            of several cameras, which are no grid, are to be restructured.
        """
        config = self.config
        channels_of(image)  # raises what is neither one image nor a tuple
        several = isinstance(image, tuple)
        if several and config.restructured:
            raise ValueError(
                f"restructured={config.restructured} does not go with {len(image)} "
                "cameras, whose tokens are no grid; choose restructured=0."
            )
        images = image if several else (image,)
        place = hk.Linear(config.width, with_bias=False, name="place")
        shape, parts, middles = (0, 0), [], []
        for i, one in enumerate(images):
            check_image(one)
            height, width, _ = one.shape
            shape = grid(height, width, config.window, config.stride)
            middles.append(centres(height, width, config.window, config.stride))
            relative = middles[-1] / np.array([[height, width]], np.float32)
            name = f"tokens_{i}" if several else "tokens"
            own = self._projected(name, one, config.window, config.stride)
            at = place(jnp.asarray(positions(relative, Position.sincos)))
            parts.append(own + at)
        tokens, centre = jnp.concatenate(parts), np.concatenate(middles)

        seen = []
        for i in range(config.restructured):
            tokens, scores = Block(config, f"block_t{i}")(tokens)
            seen.append(scores)
            if min(shape) < SIDE:
                raise ValueError(
                    f"restructured={config.restructured} is too often: {i} of them "
                    f"leave {shape[0]}x{shape[1]} tokens, and the next needs "
                    f"{SIDE}x{SIDE}; choose restructured={i} or smaller patches."
                )
            plane = tokens.reshape(*shape, config.width)
            tokens = self._projected(f"tokens_t{i}", plane, SIDE, STEP)
            shape = grid(*shape, SIDE, STEP)
        for i in range(config.layers):
            tokens, scores = Block(config, f"block_{i}")(tokens)
            seen.append(scores)
        index = select(seen[0], config.top_k, Order.rank)
        attention = Attention(seen[0], index, jnp.asarray(centre)[index])
        features = jnp.mean(_normed(tokens, "norm"), axis=0)
        return Encoding(join(features, vector), attention)

    def _projected(
        self, name: str, image: jax.Array, window: int, stride: int
    ) -> jax.Array:
        """Windows of pixels, or of tokens, to tokens: f32[L, width]."""
        shape = (window, window, image.shape[2], self.config.width)
        init = hk.initializers.TruncatedNormal(1 / math.sqrt(math.prod(shape[:3])))
        weights = hk.get_parameter(name, shape, jnp.float32, init)
        bias = hk.get_parameter(f"{name}_bias", shape[3:], jnp.float32, jnp.zeros)
        return project(image, weights, bias, stride)


def trans_network(config: TransConfig) -> hk.Transformed:
    """TransEncoder as two pure functions, for code that is no haiku module.

    init(key, image) -> parameters; apply(parameters, image, vector=None) -> Encoding.
    """

    def call(image: Images, vector: jax.Array | None = None) -> Encoding:
        return TransEncoder(config)(image, vector)

    return hk.without_apply_rng(hk.transform(call))


def _normed(tokens: jax.Array, name: str) -> jax.Array:
    return hk.LayerNorm(-1, create_scale=True, create_offset=True, name=name)(tokens)
