"""AutoInt: the interacting layer in numpy, head by head, and what attention across fields must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.ctr.autoint import AutoInt, FieldAttention
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from tests.modules.ctr import checks

FEATURES = rows.features()
SMALL = {"dim": 3, "embedding": Embedding(std=0.5), "width": 6}
MODELS = {
    "paper": AutoInt(layers=2, heads=2, **SMALL),
    "no_residual": AutoInt(layers=2, heads=3, residual=None, **SMALL),
    "benchmark": AutoInt(layers=3, heads=2, residual="identity", **SMALL),
    "plus": AutoInt(
        layers=2, heads=2, residual="identity", scale=True, layer_norm=True, dropout=0.5, mlp=MLP(widths=(5,)), **SMALL
    ),
}


def make(config: AutoInt):
    model = config.make(FEATURES, rngs=nnx.Rngs(0))
    for layer in model.attention:
        layer.kernel[...] *= 2  # attention that is far from even
        if layer.norm is not None:
            layer.norm.scale[...] = jnp.linspace(0.5, 2, config.width)
            layer.norm.bias[...] = jnp.linspace(-1, 1, config.width)
    return model


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def layer_norm(x, norm):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * rows.float64(norm.scale) + rows.float64(norm.bias)


def interact(e: np.ndarray, layer, config: AutoInt) -> np.ndarray:
    """Equations 5-8 for one row [f, i]."""
    w_q, w_k, w_v, *w_res = np.split(rows.float64(layer.kernel), layer.kernel.shape[1] // config.width, axis=1)
    size = config.width // config.heads
    out = []
    for h in range(config.heads):
        head = slice(h * size, (h + 1) * size)
        logits = (e @ w_q[:, head]) @ (e @ w_k[:, head]).T
        out.append(softmax(logits / np.sqrt(size) if config.scale else logits) @ (e @ w_v[:, head]))
    mixed = np.concatenate(out, axis=-1)
    if config.residual is not None:
        mixed += e @ w_res[0] if w_res else e
    return np.maximum(layer_norm(mixed, layer.norm) if config.layer_norm else mixed, 0)


@pytest.mark.parametrize("name", MODELS)
def test_the_logit_equals_numpy(name):
    model, config, batch = make(MODELS[name]), MODELS[name], rows.batch_of(FEATURES)
    e = np.stack(list(rows.plain_fields(model.embed, batch, FEATURES).values()), axis=1)
    x = e
    for layer in model.attention:
        x = np.stack([interact(row, layer, config) for row in x])
    logit = rows.dense(x.reshape(len(x), -1), model.out)
    if config.mlp is not None:
        logit = logit + rows.tower(e.reshape(len(e), -1), model.mlp)
    np.testing.assert_allclose(rows.logit(model, batch), logit[:, 0], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_one_is_the_row_of_a_batch_and_padding_changes_nothing(name):
    checks.assert_rows_stand_alone(make(MODELS[name]), FEATURES)


@pytest.mark.parametrize("name", MODELS)
def test_a_request_scores_as_its_tiled_batch(name):
    checks.assert_requests_agree(make(MODELS[name]), FEATURES)


def fields(*, seed: int = 0, rows: int = 4, count: int = 5, width: int = 6) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (rows, count, width))


@pytest.mark.parametrize("residual", ["projected", "identity", None])
def test_what_a_field_takes_sums_to_one_and_the_order_of_fields_moves_with_them(residual):
    config = AutoInt(heads=3, width=6, residual=residual, layer_norm=True)
    layer = FieldAttention(6, config=config, rngs=nnx.Rngs(0))
    x = fields()
    weights = layer.weights(x)
    assert weights.shape == (4, 3, 5, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert float(jnp.std(weights)) > 0.01
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(layer(x[:, order]), layer(x)[:, order], rtol=1e-4, atol=1e-5)


def test_the_settings_of_the_benchmark_have_as_many_parameters():
    """Ten fields of width 10; five layers of 128 units: W_Res only where the width changes."""
    names = [checks.categorical(f"field{i}") for i in range(10)]
    config = AutoInt(
        dim=10, layers=5, heads=4, width=128, residual="identity", scale=True, layer_norm=True, dropout=0.1,
        mlp=MLP(widths=(400, 400, 400), norm="batch", dropout=0.1),
    )  # fmt: skip
    model = nnx.eval_shape(lambda: config.make(rows.features(*names), rngs=nnx.Rngs(0)))
    found = nnx.to_flat_state(nnx.state(model, nnx.Param))
    attention = 4 * 10 * 128 + 4 * 3 * 128 * 128 + 5 * 2 * 128
    deep = 101 * 400 + 2 * 401 * 400 + 3 * 800 + 401
    assert sum(int(np.prod(p.shape)) for path, p in found if path[0] != "embed") == attention + deep + 1281


def test_dropout_falls_on_attention_weights_in_training_alone():
    layer = FieldAttention(6, config=AutoInt(heads=2, width=6, dropout=0.5), rngs=nnx.Rngs(0))
    x = fields()
    np.testing.assert_array_equal(layer(x), layer(x))
    assert not np.allclose(layer(x, rngs=nnx.Rngs(1)), layer(x))


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="width=10 does not divide into heads=4"):
        AutoInt(width=10, heads=4)
    with pytest.raises(ValueError, match="layers=0"):
        AutoInt(layers=0)
    with pytest.raises(ValueError, match="do not stack"):
        rows.logit(make(AutoInt(dim=3, embedding=Embedding(widths={"user": 2}))), rows.batch_of(FEATURES))
