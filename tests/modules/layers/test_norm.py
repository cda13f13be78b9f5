"""Batch norm and dropout against numpy and against their own definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.layers.dropout import Dropout, mixed
from modules.layers.norm import BatchNorm

RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, (9, 3)).astype(np.float32)
MASK = np.asarray([1, 1, 0, 1, 1, 1, 0, 0, 1], bool)


def plain(x, scale, bias, mask):
    kept = x if mask is None else x[mask]
    mean, var = kept.mean(0, keepdims=True), kept.var(0, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale[None, :] + bias[None, :]


@pytest.mark.parametrize("mask", [None, MASK])
def test_values_and_gradients_are_those_of_the_definition(mask):
    g = RNG.normal(size=X.shape).astype(np.float32)
    scale, bias = jnp.asarray([0.5, 2.0, -1.0]), jnp.asarray([0.1, 0.0, 3.0])

    def ours(x, scale, bias):
        made = BatchNorm(3)
        made.scale, made.bias = nnx.Param(scale), nnx.Param(bias)
        return made(x, mask=None if mask is None else jnp.asarray(mask), rngs=nnx.Rngs(0))

    np.testing.assert_allclose(ours(X, scale, bias), plain(X, scale, bias, mask), rtol=1e-5, atol=1e-5)
    found = jax.grad(lambda *a: (ours(*a) * g).sum(), argnums=(0, 1, 2))(X, scale, bias)
    right = jax.grad(lambda *a: (plain(*a, mask) * g).sum(), argnums=(0, 1, 2))(X, scale, bias)
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_running_statistics_serve_inference_and_count_the_shift():
    norm, shift = BatchNorm(3, momentum=0.0), jnp.asarray([5.0, 0.0, -2.0])
    trained = norm(jnp.asarray(X), shift=shift, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(norm.mean[...], X.mean(0) + shift, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], X.var(0), rtol=1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(X), shift=shift), trained, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(X) + shift[None, :]), trained, rtol=1e-5, atol=1e-5)


def test_a_batch_of_padding_only_is_finite():
    out = BatchNorm(3)(jnp.asarray(X), mask=jnp.zeros(9, bool), rngs=nnx.Rngs(0))
    assert np.isfinite(out).all()


def test_dropout_keeps_its_share_and_the_mean():
    x = jnp.ones((1000, 64))
    out = np.asarray(Dropout(0.3)(x, rngs=nnx.Rngs(0)))
    np.testing.assert_allclose(np.unique(out), [0, 1 / 0.7], rtol=1e-6)
    np.testing.assert_allclose(out.mean(), 1, atol=0.01)
    for axis in (0, 1):  # no row and no column is favoured
        assert np.abs(out.mean(axis) - 1).max() < 5 * np.sqrt(0.3 / 0.7 / out.shape[axis])
    assert (out != np.asarray(Dropout(0.3)(x, rngs=nnx.Rngs(1)))).mean() == pytest.approx(0.42, abs=0.02)
    np.testing.assert_array_equal(Dropout(0.3)(x), x)


def test_masks_are_not_alike_within_a_batch_and_between_steps():
    """Neighbours, rows and keys one apart: no two see each other's mask."""
    words = jnp.asarray([12345, 678], jnp.uint32)
    draws = np.stack([np.asarray(mixed(words.at[0].add(k), shape=(512, 256))) < 2**31 for k in range(4)]) * 2.0 - 1
    for axis in (0, 1, 2):
        for lag in (1, 2, 3):
            assert abs((draws * np.roll(draws, lag, axis)).mean()) < 0.01


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(rate):
    with pytest.raises(ValueError, match="dropout is"):
        Dropout(rate)
