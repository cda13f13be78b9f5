"""PRESTO's head: logits of each step from one representation, with slopes that differ by ψ."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.ctr.presto import Presto
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows

FEATURES = rows.features()
CONFIG = Presto(dim=3, embedding=Embedding(std=0.5), mlp=MLP(widths=(5,)), strength=0.1)


def test_every_step_equals_numpy():
    model, batch = CONFIG.make(FEATURES, rngs=nnx.Rngs(0)), rows.batch_of(FEATURES)
    assert not model.psi[...][1:].any()
    psi = np.random.default_rng(0).normal(size=(3, 5))
    model.psi[...] = jnp.asarray(psi, jnp.float32)
    out = model(rows.on_device(batch))
    x = rows.tower(np.concatenate(list(rows.plain_fields(model.embed, batch, FEATURES).values()), -1), model.mlp)
    beta = psi[0]
    for k, step in enumerate(("click", "cart", "purchase")):
        beta = beta + psi[k] if k else beta
        np.testing.assert_allclose(out[f"logit/{step}"], -2.0 * (k + 1) + x @ beta, rtol=2e-4, atol=1e-5)
    assert float(out["aux_loss/slopes"]) == pytest.approx(0.1 * np.abs(psi[1:]).sum(), rel=1e-3)


def test_no_strength_is_no_penalty_and_odd_settings_are_refused():
    model = Presto(dim=3, mlp=MLP(widths=(5,)), strength=0.0).make(FEATURES, rngs=nnx.Rngs(0))
    assert set(model(rows.on_device(rows.batch_of(FEATURES)))) == {"logit/click", "logit/cart", "logit/purchase"}
    with pytest.raises(ValueError, match="at least one step"):
        Presto(steps=())
    with pytest.raises(ValueError, match="at least 0"):
        Presto(strength=-1.0)
