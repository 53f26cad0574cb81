"""The encoder: an image becomes the k patches that receive most attention."""

import dataclasses
import enum
import functools
import math
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from iap import sampling
from iap.directions import Norms, Projection
from iap.features import REGISTRY, Design, Kernel, feature_map
from iap.patches import centres, project
from iap.ranking import Ranking, patch_scores
from iap.selection import Order, select


class Kind(enum.Enum):
    """In which form the chosen patches are handed on.

    rank: theirs alone, one after another. mask: those of all patches, each in its
    place, with zeros for the patches that were not chosen.
    """

    rank = "rank"
    mask = "mask"


class Position(enum.Enum):
    """What of a patch's place joins its pixels before queries and keys are formed."""

    none = "none"
    concat = "concat"
    sincos = "sincos"


class Centring(enum.Enum):
    """Whether exp(q . k) is estimated around the means of queries and keys."""

    auto = "auto"
    means = "means"
    none = "none"


class Origin(enum.Enum):
    """Where the handed-on centres are measured from.

    corner: in [0, 1] from the upper left, as AttentionAgent does. middle: in [-1, 1]
    from the image's middle, the same numbers without a common offset, which a
    controller would otherwise have to unlearn first.
    """

    corner = "corner"
    middle = "middle"


class Scale(enum.Enum):
    """What logits are divided by: the root of a token's length or of q's and k's."""

    d_in = "d_in"
    depth = "depth"


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Settings of the encoder; what depends on the image is checked when it is seen.

    Attributes:
      kind: rank hands the chosen patches on, mask all of them with zeros for the rest.
      window: side of the square patches in pixels.
      stride: distance between neighbouring patches in pixels.
      depth: d, length of queries and keys.
      heads: queries and keys of each patch; its score is the mean over them.
      top_k: patches that are chosen.
      ranking: attention, or a baseline in its place, for which the settings from kernel
        to normalised mean nothing: mean_query (all patches ask the mean of their
        queries), fixed_filter (they ask the queries' bias, whatever the image) or
        random (patches drawn once from seed, the same in every image).
      kernel: what queries and keys are compared by.
      features: m, directions of the random features; elu and taylor have none.
      projection: how they are drawn; none compares plain vectors (relu only).
      norms: lengths of the directions; sqrt_d biases estimates of exp at small depth.
      spread: mean |q + k|^2 that kernel=oprf and saderf are tuned to for the whole run;
        0 measures it on every frame.
      balance: depth numbers by which kernel=saderf multiplies queries and divides keys,
        for the whole run; none measures them on every frame.
      order: even degree at which kernel=taylor cuts the series of exp.
      centring: auto centres every estimator of exp(q . k).
      normalised: divide every row of the attention matrix by its sum.
      position: what of its place a patch carries before the projection.
      scale: what logits are divided by the root of.
      bias: whether queries, keys and contents have a bias.
      selection: order in which kind=rank hands the chosen patches on.
      origin: where the handed-on centres are measured from.
      content: whether each carries its projected content, d numbers.
      score: whether each carries its share of the chosen patches' attention.
      weighted: whether its centre and content are multiplied by k times that share, so
        that a gradient through them says of which patches more is wanted.
      temperature: above 0, patches are drawn in training, with log score / temperature
        as logits, and a policy gradient learns from the draws' log-probability; 0
        takes the best, as a policy's mode always does.
      seed: names the draw of the random features, or of ranking=random's patches, made
        once and shared by all.
    """

    kind: Kind = Kind.rank
    window: int = 4
    stride: int = 4
    depth: int = 4
    heads: int = 1
    top_k: int = 10
    ranking: Ranking = Ranking.attention
    kernel: Kernel = Kernel.relu
    features: int = 64
    projection: Projection = Projection.orthogonal
    norms: Norms = Norms.chi
    spread: float = 0.0
    balance: tuple[float, ...] = ()
    order: int = 2
    centring: Centring = Centring.auto
    normalised: bool = True
    position: Position = Position.none
    scale: Scale = Scale.depth
    bias: bool = True
    selection: Order = Order.position
    origin: Origin = Origin.middle
    content: bool = False
    score: bool = False
    weighted: bool = False
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self):
        # A list, as the command line makes it, would leave the settings without a hash.
        object.__setattr__(self, "balance", tuple(self.balance))
        for name in ("window", "stride", "depth", "heads", "top_k"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be at least 0.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature} must be at least 0 and finite; 0 "
                "takes the best patches."
            )
        if self.ranking is Ranking.fixed_filter and not self.bias:
            raise ValueError(
                "ranking=fixed_filter asks the queries' bias, and bias=False has none; "
                "choose bias=True."
            )
        self._check_random()
        if self.centring is Centring.means and not self._estimates_exp:
            raise ValueError(
                f"centring=means does not go with kernel={self.kernel.value}: shifting "
                "queries and keys leaves scores as they are for estimators of "
                "exp(q . k) only; choose centring=auto or none."
            )
        if self.kernel is not Kernel.exact:
            feature_map(self.kernel, self.design)  # raises what does not fit the kernel

    def _check_random(self):
        if self.ranking is not Ranking.random:
            return
        for name in ("score", "weighted", "temperature"):
            if value := getattr(self, name):
                raise ValueError(
                    f"{name}={value} does not go with ranking=random, whose patches "
                    f"are always the same and receive no attention; leave {name} out."
                )

    @property
    def design(self) -> Design:
        """What the feature map's constants are made from."""
        return Design(
            depth=self.depth,
            features=self.features,
            projection=self.projection,
            order=self.order,
            seed=self.seed,
            norms=self.norms,
            spread=self.spread,
            balance=self.balance,
        )

    @property
    def centred(self) -> bool:
        """Whether scores are estimated around the means of queries and keys."""
        return self.centring is not Centring.none and self._estimates_exp

    @property
    def _estimates_exp(self) -> bool:
        return self.kernel is Kernel.exact or REGISTRY[self.kernel].exponential

    @classmethod
    def attention_agent(cls) -> "EncoderConfig":
        """AttentionAgent's encoder for 96x96 RGB, arXiv 2003.08165."""
        return cls(
            window=7,
            stride=4,
            kernel=Kernel.exact,
            scale=Scale.d_in,
            selection=Order.rank,
            origin=Origin.corner,
        )


class Attention(NamedTuple):
    """What an encoder looked at.

    Attributes:
      scores: f32[L], attention that each patch receives, or what `Ranking` puts in its
        place; they sum to L.
      index: i32[K], the chosen patches, row-major.
      centre: f32[K, 2], their centres (row, column) in pixels.
    """

    scores: jax.Array
    index: jax.Array
    centre: jax.Array


class Encoding(NamedTuple):
    """What an encoder hands on.

    Attributes:
      features: f32[F], for each chosen patch in turn its centre relative to the image
        (`Origin`), then its content and score where these are on; for every patch with
        kind=mask, zeros where it was not chosen; at the end the vector, if any.
      attention: what it looked at.
      choice: i32[K], the patches in the order in which they were drawn; () where the
        best were taken.
      log_prob: f32[], the log-probability of that draw; () where there was none.
    """

    features: jax.Array
    attention: Attention
    choice: Any = ()
    log_prob: Any = ()


def encode(
    config: EncoderConfig,
    image: jax.Array,
    weights: jax.Array,
    bias: jax.Array | None = None,
    key: jax.Array | None = None,
    choice: Any = None,
    vector: jax.Array | None = None,
) -> Encoding:
    """An image -> its most attended patches, as a pure function of the parameters.

    A token is a patch's pixels (row, column, channel), then its position. Queries, keys
    and contents are affine in it, attention compares queries and keys. Several images
    that were taken one after another, or at once, are channels of one.

    Args:
      config: settings.
      image: u8[H, W, C] in [0, 255], or f32[H, W, C].
      weights: f32[d_in, n d] of `weights_shape`; the columns project to the queries of
        all heads, their keys and, with `config.content`, contents.
      bias: f32[n d], or None; ranking=fixed_filter needs one.
      key: of a draw of patches, where `config.temperature` is above 0; without it and
        without `choice` the best are taken.
      choice: an earlier draw that is taken again, as `Encoding.choice`.
      vector: f32[n], what is known beside the pixels (proprioception); it is handed on
        as it is.

    Raises:
      ValueError: where the image is too small for the window or for top_k patches, or
        a bias is needed, or shapes do not fit each other.
    """
    if image.ndim != 3 or weights.shape != weights_shape(config, image.shape[2]):
        raise ValueError(
            f"image {image.shape} and weights {weights.shape} do not fit: expected one "
            "image [H, W, C] and weights of weights_shape(config, C)."
        )
    if bias is None and config.ranking is Ranking.fixed_filter:
        raise ValueError("bias=None has no queries' bias for ranking=fixed_filter.")
    if bias is not None and bias.shape != weights.shape[1:]:
        raise ValueError(
            f"bias has shape {bias.shape}; weights {weights.shape} need "
            f"{weights.shape[1:]}, or None."
        )
    height, width, channels = image.shape
    window, d = config.window, config.depth
    compared = 2 * config.heads * d  # columns of queries and keys
    divisor = len(weights) if config.scale is Scale.d_in else d
    # Scaling the few weights scales the many queries and keys.
    scale = np.ones((1, weights.shape[1]), np.float32)
    scale[:, :compared] = divisor**-0.25
    weights = weights * scale
    bias = None if bias is None else bias * scale[0]

    pixels = window * window * channels
    kernel = weights[:pixels].reshape(window, window, channels, -1)
    tokens = project(image, kernel, bias, config.stride)
    centre = centres(height, width, window, config.stride)
    relative = centre / np.array([[height, width]], np.float32)
    if config.position is not Position.none:
        tokens = tokens + positions(relative, config.position) @ weights[pixels:]

    score = functools.partial(
        patch_scores,
        config.ranking,
        kernel=config.kernel,
        design=config.design,
        normalised=config.normalised,
        centred=config.centred,
    )
    asked = jnp.zeros(compared) if bias is None else bias[:compared]
    if config.heads == 1:
        scores = score(tokens[:, :d], tokens[:, d:compared], asked[:d])
    else:
        heads = tokens[:, :compared].reshape(len(tokens), 2, config.heads, d)
        queries, keys = heads.transpose(1, 2, 0, 3)
        asked = asked.reshape(2, config.heads, d)[0]
        scores = jnp.mean(jax.vmap(score)(queries, keys, asked), axis=0)
    drawn, log_prob = _draw(config, scores, key, choice)
    if isinstance(drawn, tuple):
        index = select(scores, config.top_k, config.selection)
    else:
        index = jnp.sort(drawn) if config.selection is Order.position else drawn
    if config.origin is Origin.middle:
        relative = 2 * relative - 1
    chosen = [jnp.asarray(relative)[index]]
    if config.content:
        chosen.append(tokens[index, compared:])
    if config.weighted or config.score:
        share = scores[index][:, None]
        share = share / jnp.sum(share)
        if config.weighted:
            chosen = [part * (config.top_k * share) for part in chosen]
        if config.score:
            chosen.append(share)
    attention = Attention(scores, index, jnp.asarray(centre)[index])
    rows = jnp.concatenate(chosen, axis=1)
    if config.kind is Kind.mask:
        rows = jnp.zeros((len(tokens), rows.shape[1]), rows.dtype).at[index].set(rows)
    features = join(rows.reshape(-1), vector)
    return Encoding(features, attention, drawn, log_prob)


def join(features: jax.Array, vector: jax.Array | None) -> jax.Array:
    """Features f32[F], and behind them a vector f32[n] or nothing.

    Raises:
      ValueError: where the vector is no vector of floats.
    """
    if vector is None:
        return features
    if vector.ndim != 1 or not jnp.issubdtype(vector.dtype, jnp.floating):
        raise ValueError(
            f"vector has shape {vector.shape} and dtype {vector.dtype}; expected "
            "f32[n], one vector (map a batch with jax.vmap)."
        )
    return jnp.concatenate([features, vector.astype(features.dtype)])


def _draw(
    config: EncoderConfig,
    scores: jax.Array,
    key: jax.Array | None,
    choice: Any,
) -> tuple[Any, Any]:
    """Patches drawn, or drawn before, with their log-probability; () for the best."""
    if not config.temperature or (key is None and choice is None):
        return (), ()
    logits = sampling.logits(scores, config.temperature)
    if key is not None:
        choice = sampling.sample(logits, config.top_k, key)
    elif choice.shape != (config.top_k,):
        raise ValueError(
            f"choice has shape {choice.shape}; expected ({config.top_k},), top_k "
            "patches in the order in which they were drawn."
        )
    return choice, sampling.log_prob(logits, choice)


def weights_shape(config: EncoderConfig, channels: int) -> tuple[int, int]:
    """Shape [d_in, n d] of the weights of `encode` for images of C channels."""
    place = positions(np.zeros((1, 2), np.float32), config.position).shape[1]
    inputs = config.window**2 * channels + place
    return inputs, config.depth * (2 * config.heads + config.content)


def positions(relative: np.ndarray, position: Position) -> np.ndarray:
    """What a patch's place adds to its token.

    Args:
      relative: f32[L, 2], centres divided by the image's height and width.
      position: none, concat (the two numbers) or sincos (sine and cosine of each at
        four octaves from half a period per image).

    Returns:
      f32[L, 0], f32[L, 2] or f32[L, 16].
    """
    if position is Position.none:
        return relative[:, :0]
    if position is Position.concat:
        return relative
    angles = relative[:, :, None] * (np.pi * 2.0 ** np.arange(4))[None, None, :]
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    return waves.reshape(len(relative), -1).astype(np.float32)


class Encoder(hk.Module):
    """Haiku module: Encoder(config)(image) -> Encoding.

    Its parameters are `weights` and `bias` of `encode`. Random features are no
    parameters: `config.seed` draws them, the same for every copy of the module.
    """

    def __init__(self, config: EncoderConfig, name: str = "encoder"):
        super().__init__(name=name)
        self.config = config

    def __call__(
        self,
        image: jax.Array,
        key: jax.Array | None = None,
        choice: Any = None,
        vector: jax.Array | None = None,
    ) -> Encoding:
        """Encode one image, u8[H, W, C] in [0, 255] or f32[H, W, C], as `encode`."""
        inputs, outputs = shape = weights_shape(self.config, image.shape[-1])
        init = hk.initializers.TruncatedNormal(1 / math.sqrt(inputs))
        weights = hk.get_parameter("weights", shape, jnp.float32, init)
        bias = None
        if self.config.bias:
            bias = hk.get_parameter("bias", (outputs,), jnp.float32, jnp.zeros)
        return encode(self.config, image, weights, bias, key, choice, vector)
