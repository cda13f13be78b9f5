"""KL of Gaussians by hand, and as a mean of log ratios."""

import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.gaussian import gaussian_kl


def test_kl_by_hand():
    mean, deviation = jnp.array([[1.0], [0.0]]), jnp.array([[2.0], [1.0]])
    found = gaussian_kl(mean, deviation, of_mean=jnp.zeros((2, 1)), of_deviation=jnp.ones((2, 1)))
    np.testing.assert_allclose(found, [np.log(1 / 2) + (4 + 1) / 2 - 1 / 2, 0.0], rtol=1e-6)


def test_kl_is_the_mean_log_ratio_of_densities(rng):
    (a, b), (s, t) = rng.normal(size=(2, 1, 3)), rng.uniform(0.5, 1.5, (2, 1, 3))
    x = a + s * rng.normal(size=(200_000, 3))
    ratio = (np.log(t / s) - (x - a) ** 2 / (2 * s**2) + (x - b) ** 2 / (2 * t**2)).sum(axis=1)
    found = gaussian_kl(*map(jnp.asarray, (a, s)), of_mean=jnp.asarray(b), of_deviation=jnp.asarray(t))
    assert float(found[0]) == pytest.approx(ratio.mean(), rel=0.02)
