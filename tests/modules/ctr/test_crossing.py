"""DeepFM, DCN and xDeepFM: their equations in numpy, written as the papers do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.ctr import xdeepfm
from modules.ctr.dcn import DCN
from modules.ctr.deepfm import DeepFM
from modules.ctr.xdeepfm import CIN, xDeepFM
from modules.layers.cross import VectorCross
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from tests.modules.ctr import checks

FEATURES = rows.features()
SMALL = {"dim": 3, "embedding": Embedding(std=0.5), "mlp": MLP(widths=(6, 5))}
MODELS = {
    "deepfm": DeepFM(**SMALL),
    "dcn": DCN(depth=3, **SMALL),
    "xdeepfm": xDeepFM(cin=(4, 3), **SMALL),
    "xdeepfm_without_cin": xDeepFM(cin=(), **SMALL),
}


def make(config):
    return config.make(FEATURES, rngs=nnx.Rngs(0))


def linear_part(model, batch):
    weights = rows.plain_fields(model.linear.embed, batch, FEATURES)
    return sum(w[:, 0] for w in weights.values()) + rows.float64(model.linear.bias)


def deepfm_logit(model, e, batch):
    pairs = sum((e[:, i] * e[:, j]).sum(-1) for i in range(e.shape[1]) for j in range(i + 1, e.shape[1]))
    return linear_part(model, batch) + pairs + rows.tower(e.reshape(len(e), -1), model.mlp)[:, 0]


def crossed(x0, cross):
    x = x0
    for w, b in zip(rows.float64(cross.kernel).T, rows.float64(cross.bias), strict=True):
        x = x0 * (x @ w)[:, None] + b + x
    return x


def dcn_logit(model, e, batch):
    x0 = e.reshape(len(e), -1)
    return rows.dense(np.concatenate([crossed(x0, model.cross), rows.tower(x0, model.mlp)], axis=-1), model.out)[:, 0]


def cin(e, kernels, out):
    """Map by map and pair by pair."""
    pooled, x = [], e
    for kernel in kernels:
        w = rows.float64(kernel)
        maps = []
        for h in range(w.shape[2]):
            maps.append(sum(w[i, j, h] * x[:, i] * e[:, j] for i in range(w.shape[0]) for j in range(w.shape[1])))
        x = np.stack(maps, axis=1)
        pooled.append(x.sum(-1))
    return rows.dense(np.concatenate(pooled, axis=-1), out)[:, 0]


def xdeepfm_logit(model, e, batch):
    logit = linear_part(model, batch) + rows.tower(e.reshape(len(e), -1), model.mlp)[:, 0]
    return logit if model.cin is None else logit + cin(e, model.cin.kernels, model.cin.out)


ORACLES = {"deepfm": deepfm_logit, "dcn": dcn_logit}


@pytest.mark.parametrize("name", MODELS)
def test_the_logit_equals_numpy(name):
    model, batch = make(MODELS[name]), rows.batch_of(FEATURES)
    if name == "dcn":
        model.cross.bias[...] = jax.random.normal(jax.random.key(1), model.cross.bias.shape)
    else:
        model.linear.bias[...] = jnp.float32(0.3)
    e = np.stack(list(rows.plain_fields(model.embed, batch, FEATURES).values()), axis=1)
    expected = ORACLES.get(name, xdeepfm_logit)(model, e, batch)
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_one_is_the_row_of_a_batch_and_padding_changes_nothing(name):
    checks.assert_rows_stand_alone(make(MODELS[name]), FEATURES)


@pytest.mark.parametrize("name", MODELS)
def test_a_request_scores_as_its_tiled_batch(name):
    checks.assert_requests_agree(make(MODELS[name]), FEATURES)


def test_crosses_start_as_the_linear_layers_of_the_benchmark():
    cross = VectorCross(4000, depth=3, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(np.std(cross.kernel[...], axis=0), np.sqrt(2 / 4001), rtol=0.05)


def test_how_many_pairs_are_held_at_once_changes_neither_value_nor_gradient(monkeypatch):
    graph, state = nnx.split(CIN(5, maps=(4, 3), rngs=nnx.Rngs(0)))
    e = jax.random.normal(jax.random.key(0), (6, 5, 3))

    def run(e, state):
        return jnp.square(nnx.merge(graph, state)(e)).sum()

    whole = jax.value_and_grad(run, argnums=(0, 1))(e, state)
    monkeypatch.setattr(xdeepfm, "PAIRS", 9)  # one or two fields at a time, the last alone
    parts = jax.value_and_grad(run, argnums=(0, 1))(e, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), parts, whole)


def test_a_wide_cin_does_not_hold_all_pairs():
    """All pairs of 128 maps and 40 fields would take forty times the bytes of a layer."""
    graph, state = nnx.split(CIN(40, maps=(128, 128), rngs=nnx.Rngs(0)))
    rows_, dim = 512, 16

    def run(e, state):
        return nnx.merge(graph, state)(e).sum()

    compiled = jax.jit(jax.grad(run)).lower(jax.ShapeDtypeStruct((rows_, 40, dim), jnp.float32), state).compile()
    all_pairs = 4 * rows_ * dim * 128 * 40
    assert compiled.memory_analysis().temp_size_in_bytes < all_pairs / 2


def test_fields_that_meet_elementwise_have_one_width():
    options = Embedding(widths={"user": 2})
    for config in (DeepFM(dim=3, embedding=options), xDeepFM(dim=3, embedding=options)):
        with pytest.raises(ValueError, match="do not stack"):
            rows.logit(make(config), rows.batch_of(FEATURES))
    assert rows.logit(make(DCN(dim=3, embedding=options)), rows.batch_of(FEATURES)).shape == (6,)
