import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iap import Design, Kernel, feature_map, linear_scores
from iap.quadratic import PRODUCTS, fits

D = 4
TAYLOR = feature_map(Kernel.taylor, Design(D, order=2))


def tokens(length, scale=0.7):
    rng = np.random.default_rng(length)
    both = scale * rng.normal(size=(2, length, D)) + 0.5
    return tuple(jnp.asarray(z, jnp.float32) for z in both)


def numbers(features, normalised, centred):
    """Scores, and their gradients with a weight for each of them."""

    def total(queries, keys):
        scores = linear_scores(
            queries, keys, features, normalised=normalised, centred=centred
        )
        upstream = jnp.asarray(np.cos(np.arange(len(queries))), jnp.float32)
        return jnp.sum(upstream * scores), scores

    return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_moments_give_what_features_give(normalised, centred):
    z = tokens(576)  # 96/4/4
    assert fits(z[0]) and TAYLOR.quadratic
    by_moments = numbers(TAYLOR, normalised, centred)
    by_features = numbers(TAYLOR._replace(quadratic=False), normalised, centred)
    (_, scores), gradients = by_moments(*z)
    (_, expected), others = by_features(*z)
    # Sums of 576 float32 terms in another order: sqrt(576) * 2^-23 is 3e-6.
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        # Terms as large as a score, about 1.
        np.testing.assert_allclose(gradient, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_large_logits_of_either_sign(normalised):
    queries, keys = tokens(576, scale=3.0)
    scores = numbers(TAYLOR, normalised, False)(queries, keys)[0][1]
    logits = np.asarray(queries, np.float64) @ np.asarray(keys, np.float64).T
    assert logits.max() > 60 and logits.min() < -60
    rows = 1 + logits + logits**2 / 2
    if normalised:
        expected = (rows / rows.sum(axis=1, keepdims=True)).sum(axis=0)
    else:
        expected = rows.sum(axis=0) / rows.sum(axis=0).mean()
    # As above: terms of up to 61^2 / 2 cancel a bit or two.
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def widths(length):
    """How many numbers a token has in all arrays on the way to the scores."""
    jaxpr = jax.make_jaxpr(lambda q, k: linear_scores(q, k, TAYLOR))(*tokens(length))
    shapes = [result.aval.shape for each in jaxpr.eqns for result in each.outvars]
    return {min(shape) for shape in shapes if len(shape) == 2 and length in shape}


def test_few_tokens_have_no_features_and_many_do():
    most = PRODUCTS // (D + 1) ** 2
    assert max(widths(most)) == D + 1
    assert 15 in widths(most + 1)


def test_other_orders_and_fixed_shifts_have_no_such_way():
    from iap import shifted

    assert not feature_map(Kernel.taylor, Design(D, order=4)).quadratic
    assert not feature_map(Kernel.positive, Design(D)).quadratic
    assert not shifted(TAYLOR, jnp.zeros(D), jnp.zeros(D)).quadratic
