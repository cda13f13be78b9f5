"""Pretrained vectors as fields: frozen, adapted, tuned; for the candidate and for its history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Dense
from data.sources import SourceConfig
from modules.behavior.din import DIN
from modules.layers.content import Content
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from train.experiment import Experiment
from train.optim import Optimizer
from train.program import Program
from train.sharding import Mesh
from train.tasks.pointwise import Pointwise

FEATURES = rows.features()


def build(features=FEATURES, *, dim: int = 4, widths=None, **content) -> FeatureEmbedding:
    options = Embedding(std=1.0, content={"content": Content(**content)}, widths=widths or {})
    return FeatureEmbedding(features, dim=dim, options=options, rngs=nnx.Rngs(0))


def masked(batch: dict[str, np.ndarray], name: str) -> np.ndarray:
    valid = np.arange(rows.LENGTH)[None] < batch[f"{name}/length"][:, None]
    return batch[name] * valid[..., None]


def test_frozen_vectors_enter_as_they_are_in_their_own_width():
    embed, batch = build(mode="frozen"), rows.batch_of(FEATURES)
    out = embed(rows.on_device(batch))
    np.testing.assert_array_equal(out["content"], batch["content"])
    np.testing.assert_array_equal(out["history_content"], masked(batch, "history_content"))
    assert embed.width("content") == 3 and embed.width("item") == 4
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(embed, nnx.Param))]
    assert not [path for path in paths if path.startswith("dense")]


def test_adapted_vectors_are_the_default_and_may_have_no_bias():
    batch = rows.on_device(rows.batch_of(FEATURES))
    plain = FeatureEmbedding(FEATURES, dim=4, options=Embedding(std=1.0), rngs=nnx.Rngs(0))
    for name, x in build(mode="adapted")(batch).items():
        np.testing.assert_array_equal(x, plain(batch)[name], err_msg=name)
    embed = build(mode="adapted", bias=False)
    kernel = np.asarray(embed.dense["content"].kernel[...])
    np.testing.assert_allclose(embed(batch)["content"], np.asarray(batch["content"]) @ kernel, rtol=1e-5, atol=1e-6)
    assert embed.dense["content"].bias is None


def test_tuned_vectors_start_where_pretraining_left_them_and_learn_by_row():
    embed, batch = build(mode="tuned", hidden=(5,)), rows.batch_of(FEATURES)
    batch["item"][:] = [3, 3, 4, 99, -1, 1]
    layer = embed.dense["content"]
    assert layer.table.shape == (16, 3) and not np.any(layer.table[...])  # 11 ids, rounded up to a multiple of 8

    def expected(table):
        ids = np.where((batch["item"] >= 0) & (batch["item"] < 11), batch["item"], 1)
        one = rows.tower(batch["content"] + table[ids], layer.mlp)
        past = rows.tower(batch["history_content"] + table[batch["history"]], layer.mlp)
        return one, masked({**batch, "past": past, "past/length": batch["history/length"]}, "past")

    for table in (np.zeros((16, 3)), np.random.default_rng(0).normal(size=(16, 3))):
        layer.table[...] = jnp.asarray(table, jnp.float32)
        out = embed(rows.on_device(batch))
        for x, wanted in zip((out["content"], out["history_content"]), expected(table), strict=True):
            np.testing.assert_allclose(x, wanted, rtol=1e-4, atol=1e-5)
    graph, params, rest = nnx.split(embed, nnx.Param, ...)
    grads = jax.grad(lambda p: nnx.merge(graph, p, rest)(rows.on_device(batch))["content"].sum())(params)
    touched = np.flatnonzero(np.any(np.asarray(grads["dense"]["content"]["table"][...]), axis=1))
    assert touched.tolist() == [1, 3, 4]  # 99 and -1 are unknown


@pytest.mark.parametrize("mode", ["frozen", "adapted", "tuned"])
def test_a_tower_with_history_takes_each(mode):
    config = DIN(dim=3, embedding=Embedding(content={"content": Content(mode=mode)}), attention=MLP(widths=(5,)))
    model = config.make(FEATURES, rngs=nnx.Rngs(0))
    assert np.isfinite(rows.logit(model, rows.batch_of(FEATURES), train=True)).all()


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="frozen vectors keep their width 3"):
        build(mode="frozen", widths={"content": 4})
    with pytest.raises(ValueError, match=r"tuned by the ids of table 'brand', but no single id of role 'item'"):
        build(mode="tuned", ids="brand")
    alone = rows.features(rows.ITEM, rows.CONTENT, rows.HISTORY_CONTENT)
    with pytest.raises(ValueError, match="no sequence of length 4 of role 'user'"):
        build(alone, mode="tuned")
    with pytest.raises(ValueError, match="'item' is categorical, not a vector"):
        FeatureEmbedding(FEATURES, dim=4, options=Embedding(content={"item": Content(mode="frozen")}), rngs=nnx.Rngs(0))
    with pytest.raises(KeyError, match="did you mean 'content'"):
        FeatureEmbedding(FEATURES, dim=4, options=Embedding(content={"contnt": Content()}), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="were made with vectors of 3"):
        embed = build()
        batch = rows.batch_of(FEATURES)
        embed(rows.on_device({**batch, "content": np.zeros((6, 5), np.float32)}))
    assert Dense(name="content", role="item", dim=3).shape == (3,)


def test_residuals_can_be_row_sparse():
    """One step moves the residuals of the ids read, of the candidate and of its history, and no others."""
    experiment = Experiment(
        model=DIN(dim=3, embedding=Embedding(content={"content": Content(mode="tuned")}), attention=MLP(widths=(5,))),
        task=Pointwise(),
        source=SourceConfig(),
        optimizer=Optimizer(rows=(r"embed/dense/content/table$", r"embed/table_3$")),
    )
    mesh = Mesh(data=1).make(devices=jax.devices()[:1])
    program = Program(experiment, features=FEATURES, mesh=mesh)
    batch = rows.batch_of(FEATURES)
    with jax.set_mesh(mesh):
        state, _ = program.train_step(program.init(0), rows.on_device(batch))
    moved = np.flatnonzero(np.any(np.asarray(state["params"]["embed/dense/content/table"]), axis=1))
    past = [batch["history"][i, :n] for i, n in enumerate(batch["history/length"])]
    assert set(moved) == set(np.concatenate([batch["item"], *past]).tolist())
