"""The encoder: images become the k patches that receive most attention."""

import functools
import math
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jax import lax

from iap import sampling
from iap.cameras import Images, channels_of, look, make_parameters
from iap.ranking import Ranking, patch_scores
from iap.selection import Order, select
from iap.settings import EncoderConfig, Kind, Origin


class Attention(NamedTuple):
    """What an encoder looked at.

    Attributes:
      scores: f32[L], attention that each patch receives, or what `Ranking` puts in its
        place; they sum to L.
      index: i32[K], the chosen patches, row-major; those of a second camera are counted
        on from the first's (`locate` leads back).
      centre: f32[K, 2], their centres (row, column) in pixels of their image.
    """

    scores: jax.Array
    index: jax.Array
    centre: jax.Array


class Encoding(NamedTuple):
    """What an encoder hands on.

    Attributes:
      features: f32[F], for each chosen patch in turn its centre relative to the image
        (`Origin`), then its content and score where these are on, then of several
        cameras which it is of, one-hot; for every patch with kind=mask, zeros where it
        was not chosen; at the end the vector, if any.
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
    image: Images,
    weights: Any,
    bias: Any = None,
    key: jax.Array | None = None,
    choice: Any = None,
    vector: jax.Array | None = None,
) -> Encoding:
    """An image -> its most attended patches, as a pure function of the parameters.

    A token is a patch's pixels (row, column, channel), then its position. Queries, keys
    and contents are affine in it, attention compares queries and keys. Several images
    of one size that were taken one after another, or at once, are channels of one.

    Cameras of different sizes are a tuple of images, with a tuple of weights and of
    biases; all of their patches attend to each other and are ranked together.

    Args:
      config: settings.
      image: u8[H, W, C] in [0, 255], or f32[H, W, C], one NaN or infinity of which
        makes all scores NaN, and all features of patches; or one of each camera.
      weights: f32[d_in, n d] of `weights_shape`; the columns project to the queries of
        all heads, their keys and, with `config.content`, contents. One of each camera.
      bias: f32[n d], or None; ranking=fixed_filter needs one. One of each camera, whose
        mean is the fixed filter's query.
      key: of a draw of patches, where `config.temperature` is above 0; without it and
        without `choice` the best are taken.
      choice: an earlier draw that is taken again, as `Encoding.choice`.
      vector: f32[n], what is known beside the pixels (proprioception); it is handed on
        as it is.

    Raises:
      ValueError: where an image is too small for the window or all are for top_k
        patches, or a bias is needed, or shapes or numbers do not fit each other.
    """
    if bias is None and config.ranking is Ranking.fixed_filter:
        raise ValueError("bias=None has no queries' bias for ranking=fixed_filter.")
    sight = look(config, image, weights, bias)
    tokens, relative, d = sight.tokens, sight.relative, config.depth
    compared = 2 * config.heads * d  # columns of queries and keys
    score = functools.partial(
        patch_scores,
        config.ranking,
        kernel=config.kernel,
        design=config.design,
        normalised=config.normalised,
        centred=config.centred,
    )
    asked = sight.asked[:compared]
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
    if isinstance(image, tuple):
        chosen.append(jnp.asarray(sight.camera)[index])
    attention = Attention(scores, index, jnp.asarray(sight.centre)[index])
    rows = jnp.concatenate(chosen, axis=1)
    if any(jnp.issubdtype(one.dtype, jnp.floating) for one in jax.tree.leaves(image)):
        # Where scores are no numbers, what is handed on must not look like some.
        rows = rows + jnp.sum(0 * lax.stop_gradient(scores))
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


class Encoder(hk.Module):
    """Haiku module: Encoder(config)(image) -> Encoding.

    Its parameters are `weights` and `bias` of `encode`, of several cameras `weights_0`,
    `bias_0`, `weights_1` and so on. Random features are no parameters: `config.seed`
    draws them, the same for every copy of the module.
    """

    def __init__(self, config: EncoderConfig, name: str = "encoder"):
        super().__init__(name=name)
        self.config = config

    def __call__(
        self,
        image: Images,
        key: jax.Array | None = None,
        choice: Any = None,
        vector: jax.Array | None = None,
    ) -> Encoding:
        """Encode one image, or one of each camera in a tuple, as `encode`."""

        def make(name, shape):
            init = jnp.zeros
            if len(shape) == 2:
                init = hk.initializers.TruncatedNormal(1 / math.sqrt(shape[0]))
            return hk.get_parameter(name, shape, jnp.float32, init)

        parameters = make_parameters(self.config, channels_of(image), make)
        return encode(self.config, image, *parameters, key, choice, vector)
