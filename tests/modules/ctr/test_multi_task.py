"""Towers of several heads against their equations in numpy."""

import numpy as np
import pytest
from flax import nnx

from modules.ctr.esmm import ESMM, both
from modules.ctr.mmoe import MMoE
from modules.ctr.shared_bottom import SharedBottom
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows

FEATURES = rows.features()
SMALL = {"dim": 3, "embedding": Embedding(std=0.5)}
HEADS = ("click", "purchase")
MODELS = {
    "shared_bottom": SharedBottom(heads=HEADS, bottom=MLP(widths=(6,)), tower=MLP(widths=(4,)), **SMALL),
    "mmoe": MMoE(heads=HEADS, experts=3, expert=MLP(widths=(6, 5)), tower=MLP(widths=(4,)), **SMALL),
    "esmm": ESMM(mlp=MLP(widths=(6,)), **SMALL),
}


def flat(model, batch):
    return np.concatenate(list(rows.plain_fields(model.embed, batch, FEATURES).values()), -1)


def shared_bottom(model, batch):
    bottom = rows.tower(flat(model, batch), model.bottom)
    return {h: rows.tower(bottom, model.towers[h])[:, 0] for h in HEADS}


def mmoe(model, batch):
    x, out = flat(model, batch), {}
    for head in HEADS:
        z = np.exp(x @ rows.float64(model.gates[head].kernel))
        mixed = sum(z[:, i : i + 1] / z.sum(-1, keepdims=True) * rows.tower(x, f) for i, f in enumerate(model.experts))
        out[head] = rows.tower(mixed, model.towers[head])[:, 0]
    return out


def esmm(model, batch):
    x = flat(model, batch)
    click, cvr = (rows.tower(x, m)[:, 0] for m in (model.click, model.conversion))
    p = 1 / (1 + np.exp(-click)) / (1 + np.exp(-cvr))
    return {"click": click, "cvr": cvr, "purchase": np.log(p) - np.log(1 - p)}


ORACLES = {"shared_bottom": shared_bottom, "mmoe": mmoe, "esmm": esmm}


def outputs(model, batch):
    return {n: np.asarray(v) for n, v in model(rows.on_device(batch)).items()}


@pytest.mark.parametrize("name", MODELS)
def test_every_head_equals_numpy(name):
    model, batch = MODELS[name].make(FEATURES, rngs=nnx.Rngs(0)), rows.batch_of(FEATURES)
    expected = ORACLES[name](model, batch)
    found = outputs(model, batch)
    assert found.keys() == {f"logit/{head}" for head in expected}
    for head, logit in expected.items():
        np.testing.assert_allclose(found[f"logit/{head}"], logit, rtol=2e-4, atol=1e-5, err_msg=head)


@pytest.mark.parametrize("name", MODELS)
def test_a_request_equals_its_tiled_batch(name):
    model, batch = MODELS[name].make(FEATURES, rngs=nnx.Rngs(0)), rows.batch_of(FEATURES)
    users = {n for f in FEATURES if f.role == "user" for n in f.arrays()}
    tiled = {n: np.repeat(a[1:2], 6, axis=0) if n in users else a for n, a in batch.items()}
    request = {n: a[:1] if n in users else a for n, a in tiled.items()}
    expected = outputs(model, tiled)
    for head, logit in outputs(model, request).items():
        np.testing.assert_allclose(logit, expected[head], rtol=1e-5, atol=1e-6)


def test_the_product_of_probabilities_keeps_its_logarithm_far_out():
    a, b = np.array([0.0, -40.0, 40.0, 40.0, -60.0], np.float32), np.array([0.0, -40.0, 40.0, -30.0, 60.0], np.float32)
    with np.errstate(all="raise"):
        log_p = -np.logaddexp(0, -a.astype(np.float64)) - np.logaddexp(0, -b.astype(np.float64))
        expected = log_p - np.log(-np.expm1(log_p))
    np.testing.assert_allclose(both(a, b), expected, rtol=1e-5)


def test_a_mixture_needs_experts():
    with pytest.raises(ValueError, match="at least 1"):
        MMoE(experts=0)
