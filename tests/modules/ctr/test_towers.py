"""LR, FM, DNN and DCN V2: their equations in numpy, and what must hold for each click tower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.ctr.dcnv2 import DCNv2
from modules.ctr.dnn import DNN
from modules.ctr.fm import FM
from modules.ctr.lr import LR
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows

FEATURES = rows.features()
SMALL = {"dim": 3, "embedding": Embedding(std=0.5)}
MODELS = {
    "lr": LR(embedding=Embedding(std=0.5)),
    "fm": FM(**SMALL),
    "dnn": DNN(mlp=MLP(widths=(6, 5)), **SMALL),
    "dcnv2_parallel": DCNv2(depth=2, mlp=MLP(widths=(6,)), **SMALL),
    "dcnv2_stacked": DCNv2(depth=2, structure="stacked", mlp=MLP(widths=(6,)), **SMALL),
    "dcnv2_mixture": DCNv2(depth=2, rank=2, experts=3, mlp=MLP(widths=(6,)), **SMALL),
}


def lr_logit(model, batch):
    weights = rows.plain_fields(model.embed, batch, FEATURES)
    return sum(w[:, 0] for w in weights.values()) + rows.float64(model.bias)


def fm_logit(model, batch):
    e = list(rows.plain_fields(model.embed, batch, FEATURES).values())
    pairs = sum((e[i] * e[j]).sum(-1) for i in range(len(e)) for j in range(i + 1, len(e)))
    return lr_logit(model.linear, batch) + pairs


def flat(model, batch):
    return np.concatenate(list(rows.plain_fields(model.embed, batch, FEATURES).values()), axis=-1)


def dnn_logit(model, batch):
    return rows.tower(flat(model, batch), model.mlp)[:, 0]


def cross(model, x0):
    x = x0
    for layer in model.cross.layers:
        if hasattr(layer, "linear"):
            x = x0 * rows.dense(x, layer.linear) + x
            continue
        logits = x @ rows.float64(layer.gate.kernel)
        gates = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        u, c, v, b = (rows.float64(p) for p in (layer.u, layer.c, layer.v, layer.b))
        experts = [x0 * (np.tanh(np.tanh(x @ v[k]) @ c[k]) @ u[k] + b) for k in range(len(u))]
        x = sum(gates[:, k : k + 1] * expert for k, expert in enumerate(experts)) + x
    return x


def dcnv2_logit(model, batch):
    x0 = flat(model, batch)
    if model.structure == "stacked":
        return rows.dense(rows.tower(cross(model, x0), model.mlp), model.out)[:, 0]
    return rows.dense(np.concatenate([cross(model, x0), rows.tower(x0, model.mlp)], -1), model.out)[:, 0]


ORACLES = {"lr": lr_logit, "fm": fm_logit, "dnn": dnn_logit}


@pytest.mark.parametrize("name", MODELS)
def test_the_logit_equals_numpy(name):
    model = MODELS[name].make(FEATURES, rngs=nnx.Rngs(0))
    if name == "dcnv2_mixture":
        for layer in model.cross.layers:
            layer.b[...] = jnp.linspace(-1, 1, layer.b.shape[0])
    batch = rows.batch_of(FEATURES)
    np.testing.assert_allclose(
        rows.logit(model, batch), ORACLES.get(name, dcnv2_logit)(model, batch), rtol=2e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_one_is_the_row_of_a_batch_and_padding_changes_nothing(name):
    model = MODELS[name].make(FEATURES, rngs=nnx.Rngs(0))
    batch = rows.batch_of(FEATURES)
    logit = rows.logit(model, batch)
    one = rows.logit(model, {n: x[2:3] for n, x in batch.items()})
    np.testing.assert_allclose(one, logit[2:3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows.logit(model, rows.repadded(batch, FEATURES)), logit)


def test_no_model_reads_the_label():
    batch = rows.on_device(rows.batch_of(FEATURES))
    batch.pop("click")
    for name, config in MODELS.items():
        shape = jax.eval_shape(lambda b, c=config: c.make(FEATURES, rngs=nnx.Rngs(0))(b), batch)["logit"].shape
        assert shape == (6,), name


def test_widths_of_fields_may_differ_where_they_are_laid_side_by_side():
    options = Embedding(widths={"user": 2, "content": 7})
    model = DNN(dim=3, embedding=options).make(FEATURES, rngs=nnx.Rngs(0))
    assert rows.logit(model, rows.batch_of(FEATURES)).shape == (6,)


def test_experts_need_a_rank():
    with pytest.raises(ValueError, match="give rank"):
        DCNv2(experts=2)
