import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from agents.beta import digamma, log_beta

A, B = np.float32(np.meshgrid(np.geomspace(1, 3000, 60), np.geomspace(1, 3000, 60)))


def test_functions_are_scipys():
    a, b = np.float64(A), np.float64(B)
    expected = scipy.special.betaln(a, b)
    # A float32 product with a logarithm, of numbers up to a + b, and terms of size 40.
    np.testing.assert_allclose(jax.jit(log_beta)(A, B), expected, rtol=2e-6, atol=2e-5)
    np.testing.assert_allclose(
        jax.jit(digamma)(A), scipy.special.digamma(a), rtol=2e-6, atol=2e-6
    )


def test_their_gradients_are_scipys():
    a, b = np.float64(A), np.float64(B)
    grad = jax.jit(jax.grad(lambda a, b: jnp.sum(log_beta(a, b)), (0, 1)))
    for found, x in zip(grad(A, B), (a, b), strict=True):
        expected = scipy.special.digamma(x) - scipy.special.digamma(a + b)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    found = jax.jit(jax.grad(lambda a: jnp.sum(digamma(a))))(A)
    expected = scipy.special.polygamma(1, a)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
