"""The baselines of attention, as settings of the encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import (
    Design,
    EncoderConfig,
    Kernel,
    Order,
    Ranking,
    encode,
    weights_shape,
)
from iap.ranking import patch_scores

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
L = 30
BASELINES = [Ranking.mean_query, Ranking.fixed_filter, Ranking.random]
jitted = jax.jit(encode, static_argnums=0)


def draw(config, seed=0):
    rng = np.random.default_rng(seed)
    shape = weights_shape(config, 3)
    weights, bias = (0.3 * rng.standard_normal(s) for s in (shape, shape[1]))
    return jnp.asarray(weights, jnp.float32), jnp.asarray(bias, jnp.float32)


def explicit(ranking, weights, bias, heads=1, d=4, image=IMAGE):
    """Scores [L] by the formulas of `Ranking`, in float64."""
    patches = image.reshape(6, 4, 5, 4, 3).transpose(0, 2, 1, 3, 4).reshape(L, 48) / 255
    scaled = [d**-0.25 * np.asarray(part, np.float64) for part in (weights, bias)]
    both = (patches @ scaled[0] + scaled[1])[:, : 2 * heads * d]
    queries, keys = both.reshape(L, 2, heads, d).transpose(1, 2, 0, 3)
    own = scaled[1][: heads * d].reshape(heads, d)
    total = np.zeros(L)
    for q, k, b in zip(queries, keys, own, strict=True):
        share = np.exp(k @ (q.mean(axis=0) if ranking is Ranking.mean_query else b))
        total += L * share / share.sum()
    return total / heads


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("ranking", [Ranking.mean_query, Ranking.fixed_filter])
def test_all_patches_ask_one_query(ranking, heads):
    config = EncoderConfig(ranking=ranking, heads=heads, selection=Order.rank)
    weights, bias = draw(config)
    attention = jitted(config, IMAGE, weights, bias).attention
    expected = explicit(ranking, weights, bias, heads)
    # Logits up to about 5, sums of 48 float32 terms.
    np.testing.assert_allclose(attention.scores, expected, rtol=1e-4)
    np.testing.assert_array_equal(attention.index, np.argsort(-expected)[:10])


def test_the_mean_query_ranks_by_its_product_with_keys():
    config = EncoderConfig(ranking=Ranking.mean_query, selection=Order.rank, top_k=L)
    weights, bias = draw(config)
    index = jitted(config, IMAGE, weights, bias).attention.index
    patches = IMAGE.reshape(6, 4, 5, 4, 3).transpose(0, 2, 1, 3, 4).reshape(L, 48) / 255
    both = patches @ np.asarray(weights, np.float64) + np.asarray(bias, np.float64)
    s = both[:, 4:8] @ both[:, :4].mean(axis=0)
    np.testing.assert_array_equal(index, np.argsort(-s))


def test_the_fixed_filter_does_not_see_what_else_is_in_the_image():
    """Patches keep their order whatever the others show; by attention they do not."""
    others = [IMAGE.copy() for _ in range(20)]
    for seed, image in enumerate(others):
        image[4:] = np.random.default_rng(seed).integers(0, 256, (20, 20, 3))

    def orders(**settings):
        config = EncoderConfig(**settings)
        weights, bias = draw(config)
        scores = [jitted(config, i, weights, bias).attention.scores for i in others]
        return {tuple(np.argsort(row[:5])) for row in np.asarray(scores)}

    assert len(orders(ranking=Ranking.fixed_filter)) == 1
    assert len(orders(kernel=Kernel.exact)) > 1


def test_random_patches_are_the_seeds_alone():
    def chosen(image, seed, weights):
        config = EncoderConfig(ranking=Ranking.random, seed=seed)
        encoding = jitted(config, image, *draw(config, weights))
        scores = np.asarray(encoding.attention.scores)
        assert scores.min() > 0 and len(np.unique(scores)) == L
        np.testing.assert_allclose(scores.sum(), L, rtol=1e-5)
        return tuple(np.asarray(encoding.attention.index))

    assert chosen(IMAGE, 0, 0) == chosen(255 - IMAGE, 0, 1)


def test_every_patch_is_chosen_by_some_seed():
    tokens = jnp.zeros((L, 4))
    counts = np.zeros(L, int)
    for seed in range(60):
        scores = patch_scores(
            Ranking.random,
            *(tokens, tokens, tokens[0]),
            kernel=Kernel.exact,
            design=Design(depth=4, seed=seed),
        )
        counts[np.argsort(scores)[-10:]] += 1
    # 600 picks of 30 patches: 20 each, with a standard deviation below 4.4.
    assert counts.min() > 2 and counts.max() < 38


@pytest.mark.parametrize("ranking", BASELINES)
def test_the_baselines_have_attentions_parameters(ranking):
    config = EncoderConfig(ranking=ranking, heads=2, content=True)
    attention = dataclasses.replace(config, ranking=Ranking.attention)
    assert weights_shape(config, 3) == weights_shape(attention, 3)


@pytest.mark.parametrize("ranking", BASELINES[:2])
def test_a_gradient_through_shares_reaches_what_the_baseline_uses(ranking):
    config = EncoderConfig(ranking=ranking, content=True, weighted=True)

    def total(parameters):
        return jnp.sum(encode(config, jnp.asarray(IMAGE), *parameters).features ** 2)

    weights, bias = jax.jit(jax.grad(total))(draw(config))
    used = np.abs(np.asarray(weights)).sum(axis=0) > 0
    asks = ranking is Ranking.mean_query
    np.testing.assert_array_equal(used, [asks] * 4 + [True] * 8)
    assert (np.abs(bias[:4]) > 0).all()


def test_scores_can_be_drawn_from():
    config = EncoderConfig(ranking=Ranking.mean_query, temperature=1.0)
    encoding = jitted(config, IMAGE, *draw(config), jax.random.key(0))
    share = explicit(Ranking.mean_query, *draw(config)) / L
    left, expected = 1.0, 0.0
    for i in np.asarray(encoding.choice):
        expected += np.log(share[i] / left)
        left -= share[i]
    np.testing.assert_allclose(encoding.log_prob, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "settings", [{"score": True}, {"weighted": True}, {"temperature": 0.5}], ids=str
)
def test_random_patches_have_no_attention_to_learn_from(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}={value} does not go with ranking=ra"):
        EncoderConfig(ranking=Ranking.random, **settings)


def test_a_fixed_filter_needs_a_bias():
    with pytest.raises(ValueError, match=r"ranking=fixed_filter asks .*bias=False"):
        EncoderConfig(ranking=Ranking.fixed_filter, bias=False)
    config = EncoderConfig(ranking=Ranking.fixed_filter)
    with pytest.raises(ValueError, match="bias=None has no queries' bias"):
        encode(config, jnp.asarray(IMAGE), draw(config)[0])
