"""The plain tower, its norms, Dice and PReLU against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.layers.activations import Activation, Dice
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows

X = np.random.default_rng(0).normal(1.0, 2.0, (7, 3)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_tower_equals_numpy():
    mlp = MLP(widths=(5, 4)).make(3, outputs=2, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(mlp(jnp.asarray(X)), rows.tower(X.astype(np.float64), mlp), rtol=1e-5, atol=1e-6)
    assert mlp.width == 2 and MLP(widths=(5, 4)).make(3, rngs=nnx.Rngs(0)).width == 4


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_norm_comes_between_linear_and_activation(norm):
    mlp = MLP(widths=(5,), norm=norm).make(3, rngs=nnx.Rngs(0))
    h = rows.dense(X.astype(np.float64), mlp.hidden[0].linear)
    axis = 0 if norm == "batch" else 1
    h = (h - h.mean(axis, keepdims=True)) / np.sqrt(h.var(axis, keepdims=True) + mlp.hidden[0].norm.epsilon)
    np.testing.assert_allclose(mlp(jnp.asarray(X), rngs=nnx.Rngs(0)), np.maximum(h, 0), rtol=1e-4, atol=1e-5)


def test_running_statistics_are_those_of_the_last_batches():
    """Fifty batches are one pass of a small data set, and the evaluation after it must not see the start."""
    mlp = MLP(widths=(5,), norm="batch").make(3, rngs=nnx.Rngs(0))
    for _ in range(50):
        trained = mlp(jnp.asarray(X), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(mlp(jnp.asarray(X)), trained, atol=0.02)


def test_masked_rows_stay_out_of_the_statistics():
    for config in (MLP(widths=(5,), norm="batch"), MLP(widths=(5,), activation="dice")):
        mlp = config.make(3, rngs=nnx.Rngs(0))
        mask = jnp.arange(7) < 4
        full = mlp(jnp.asarray(X), mask=mask, rngs=nnx.Rngs(0))
        part = config.make(3, rngs=nnx.Rngs(0))(jnp.asarray(X[:4]), rngs=nnx.Rngs(0))
        np.testing.assert_allclose(full[:4], part, rtol=1e-4, atol=1e-5)


def test_dropout_is_identity_at_inference():
    mlp = MLP(widths=(64,), dropout=0.5).make(3, rngs=nnx.Rngs(0))
    x = jnp.asarray(X)
    whole, dropped = mlp(x), mlp(x, rngs=nnx.Rngs(1))
    np.testing.assert_allclose(whole, rows.tower(X.astype(np.float64), mlp), rtol=1e-5, atol=1e-5)
    kept = np.asarray(dropped != 0)
    np.testing.assert_allclose(np.asarray(dropped)[kept], 2 * np.asarray(whole)[kept], rtol=1e-5)
    assert kept.sum() < 0.7 * np.asarray(whole != 0).sum()


def test_dice_follows_the_batch_in_training_and_running_statistics_at_inference():
    dice = Dice(3, momentum=0.9)
    dice.alpha[...] = jnp.asarray([0.0, 0.5, -1.0])
    alpha, mean, var = rows.float64(dice.alpha), X.mean(0), X.var(0)
    p = sigmoid((X - mean) / np.sqrt(var + 1e-8))
    trained = dice(jnp.asarray(X), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(trained, p * X + alpha * (1 - p) * X, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dice.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(dice.var[...], 0.9 + 0.1 * var, rtol=1e-5)
    before = np.asarray(dice.mean[...])
    p = sigmoid((X - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-8))
    np.testing.assert_allclose(dice(jnp.asarray(X)), p * X + alpha * (1 - p) * X, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(dice.mean[...], before)


def test_dice_with_alpha_one_is_the_identity():
    dice = Dice(3)
    dice.alpha[...] = jnp.ones(3)
    for rngs in (None, nnx.Rngs(0)):
        np.testing.assert_allclose(dice(jnp.asarray(X), rngs=rngs), X, rtol=1e-6)


def test_dice_of_an_empty_or_constant_batch_is_finite():
    dice = Dice(3)
    out = dice(jnp.ones((4, 3)), mask=jnp.zeros(4, bool), rngs=nnx.Rngs(0))
    assert np.isfinite(out).all() and np.isfinite(dice(jnp.ones((4, 3)), rngs=nnx.Rngs(0))).all()


def test_prelu_slopes_below_zero():
    x = jnp.asarray([[-2.0, 3.0]])
    np.testing.assert_allclose(Activation("prelu", width=2)(x), [[-0.5, 3.0]])
