"""Queries and keys -> the score of each patch: by attention, or by a baseline."""

import enum

import jax
import jax.numpy as jnp
import numpy as np

from iap.attention import linear_scores
from iap.exact import exact_scores
from iap.features import Design, Kernel, feature_map


class Ranking(enum.Enum):
    """What patches are ranked by: attention, or what it has to be held against.

    The baselines cost attention one part of itself each, with parameters of the same
    shapes. Their scores sum to L and are not negative, as those of attention, so that
    shares, draws and entropies keep their meaning.

    attention: what a patch receives from all patches. mean_query: what it receives if
    all of them ask the mean of their queries; it ranks by mean(q) . k_j. fixed_filter:
    the same with the queries' bias as the query, which no image changes; b . k_j is one
    linear filter. random: patches that the seed chose, the same in every image and for
    all weights; nothing about where to look is learned.
    """

    attention = "attention"
    mean_query = "mean_query"
    fixed_filter = "fixed_filter"
    random = "random"


def patch_scores(
    ranking: Ranking,
    queries: jax.Array,
    keys: jax.Array,
    bias: jax.Array,
    *,
    kernel: Kernel,
    design: Design,
    normalised: bool = True,
    centred: bool = False,
) -> jax.Array:
    """The score of every patch.

    Args:
      ranking: what it is.
      queries: f32[L, d], scaled.
      keys: f32[L, d], scaled.
      bias: f32[d] of the queries, scaled as they are.
      kernel: of attention, as the others below.
      design: what its feature map is made from; its seed chooses the random patches.
      normalised: as in `linear_scores`.
      centred: as in `linear_scores`.

    Returns:
      f32[L], sum L.
    """
    if ranking is Ranking.random:
        return jnp.asarray(_drawn(len(keys), design.seed))
    if ranking is Ranking.mean_query:
        return _asked(jnp.mean(queries, axis=0), keys)
    if ranking is Ranking.fixed_filter:
        return _asked(bias, keys)
    if kernel is Kernel.exact:
        return exact_scores(queries, keys, normalised=normalised)
    features = feature_map(kernel, design)
    return linear_scores(
        queries, keys, features, normalised=normalised, centred=centred
    )


def _asked(query: jax.Array, keys: jax.Array) -> jax.Array:
    """Exact attention's scores if all queries were this one, f32[d]."""
    return len(keys) * jax.nn.softmax(keys @ query)


def _drawn(length: int, seed: int) -> np.ndarray:
    """Distinct positive scores f32[L] in an order that the seed draws, sum L."""
    order = np.random.default_rng(seed).permutation(length)
    return ((order + 1) * (2 / (length + 1))).astype(np.float32)
