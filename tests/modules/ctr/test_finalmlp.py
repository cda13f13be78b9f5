"""FinalMLP: gates, streams and bilinear fusion in numpy, the published parameter counts, and what the fusion is for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.metrics import roc_auc_score

from modules.ctr.finalmlp import FinalMLP, Fusion
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from tests.modules.ctr import checks

FEATURES = rows.features()
SMALL = {"dim": 3, "embedding": Embedding(std=0.5), "gate_mlp": MLP(widths=(5,))}
STREAMS = {"mlp1": MLP(widths=(7, 6)), "mlp2": MLP(widths=(4,)), "heads": 2}
MODELS = {
    "user_and_item": FinalMLP(context1=("user", "history"), context2=("item", "tags"), **SMALL, **STREAMS),
    "learned_context": FinalMLP(**SMALL, **STREAMS),
    "narrow_first": FinalMLP(mlp1=MLP(widths=(4,)), mlp2=MLP(widths=(6,)), heads=2, context1=("user",), **SMALL),
    "dual_mlp": FinalMLP(gates=False, fusion="sum", **SMALL, **STREAMS),
    "sum": FinalMLP(fusion="sum", context2=("content", "price"), **SMALL, **STREAMS),
}


def make(config: FinalMLP, features=FEATURES):
    return config.make(features, rngs=nnx.Rngs(0))


def gate(gate, batch, names):
    context = rows.float64(gate.context)[None] if gate.embed is None else None
    if context is None:
        features = FEATURES.select(names=names)
        context = np.concatenate(list(rows.plain_fields(gate.embed, batch, features).values()), axis=-1)
    return 2 / (1 + np.exp(-rows.tower(context, gate.mlp)))


def final_mlp(model, config, batch):
    """Row by row and head by head."""
    x = np.concatenate(list(rows.plain_fields(model.embed, batch, FEATURES).values()), axis=-1)
    x1 = x2 = x
    if config.gates:
        x1, x2 = (x * gate(g, batch, c) for g, c in zip(model.gates, (config.context1, config.context2), strict=True))
    o1, o2 = rows.tower(x1, model.mlp1), rows.tower(x2, model.mlp2)
    logit = (rows.dense(o1, model.fusion.out1) + rows.dense(o2, model.fusion.out2))[:, 0]
    if config.fusion == "bilinear":
        for row in range(len(x)):
            for w, a, b in zip(
                rows.float64(model.fusion.products),
                np.split(o1[row], config.heads),
                np.split(o2[row], config.heads),
                strict=True,
            ):
                logit[row] += a @ w @ b
    return logit


@pytest.mark.parametrize("name", MODELS)
def test_the_logit_equals_numpy(name):
    model, batch = make(MODELS[name]), rows.batch_of(FEATURES)
    expected = final_mlp(model, MODELS[name], batch)
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_one_is_the_row_of_a_batch_and_padding_changes_nothing(name):
    checks.assert_rows_stand_alone(make(MODELS[name]), FEATURES)


@pytest.mark.parametrize("name", MODELS)
def test_a_request_scores_as_its_tiled_batch(name):
    checks.assert_requests_agree(make(MODELS[name]), FEATURES)


def test_a_gate_whose_last_layer_is_zero_lets_everything_pass():
    model, batch = make(MODELS["user_and_item"]), rows.on_device(rows.batch_of(FEATURES))
    for g in model.gates:
        weights = np.asarray(g(batch))
        assert np.all((weights > 0) & (weights < 2)) and weights.std() > 0
        g.mlp.out.kernel[...] = jnp.zeros_like(g.mlp.out.kernel[...])
        np.testing.assert_array_equal(np.asarray(g(batch)), 1.0)


def test_gates_have_their_own_tables_and_one_row_per_user_in_a_request():
    model = make(MODELS["user_and_item"])
    assert model.gates[0].embed.names == ("user", "history") and model.gates[1].embed.names == ("item", "tags")
    request = rows.on_device(checks.request_of(FEATURES))
    assert model.gates[0](request).shape[0] == 1 and model.gates[1](request).shape[0] == 6
    tables = [p for p in jax.tree.leaves(nnx.state(model, nnx.Param)) if p.ndim == 2 and p.shape[1] == 3]
    assert len(tables) >= 3


def test_a_learned_context_is_trained():
    model = make(MODELS["learned_context"])
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    batch = rows.on_device(rows.batch_of(FEATURES))
    gradients = jax.grad(lambda p: nnx.merge(graph, p, rest)(batch)["logit"].sum())(params)
    assert all(np.any(np.asarray(g["context"][...])) for g in gradients["gates"].values())


def count(config: FinalMLP, features) -> int:
    """Parameters but those of tables."""
    state = nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: make(config, features)), nnx.Param))
    return sum(int(np.prod(p.shape)) for path, p in state if not str(path[-1]).startswith("table"))


def test_parameters_are_as_many_as_published():
    names = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
    frappe = rows.features(*(checks.categorical(n, role="user" if n == "user" else "item") for n in names))
    bn = {"norm": "batch", "dropout": 0.4}
    config = FinalMLP(
        dim=10, mlp1=MLP(widths=(400,), **bn), mlp2=MLP(widths=(100,), **bn), gate_mlp=MLP(widths=(400,)),
        context1=("user",), context2=("item",), heads=5,
    )  # fmt: skip
    assert count(config, frappe) == 149_002
    movies = rows.features(*(checks.categorical(n, role="item") for n in ("user", "item", "tag")))
    config = FinalMLP(
        dim=10, mlp1=MLP(widths=(400,), **bn), mlp2=MLP(widths=(800,), **bn), gate_mlp=MLP(widths=(800,)), heads=10
    )
    assert count(config, movies) == 138_482


def test_what_is_wrong_is_named():
    with pytest.raises(KeyError, match="did you mean 'user'"):
        make(FinalMLP(context1=("usr",)))
    with pytest.raises(KeyError, match="no embedded feature 'click'"):
        make(FinalMLP(context2=("user", "click")))
    with pytest.raises(ValueError, match="mlp2 ends in 10 units, which do not divide into heads=4"):
        FinalMLP(mlp1=MLP(widths=(8,)), mlp2=MLP(widths=(10,)), heads=4)
    with pytest.raises(ValueError, match="widths is empty"):
        FinalMLP(mlp1=MLP(widths=()))


def test_options_of_other_features_are_no_business_of_a_gate():
    options = Embedding(widths={"content": 7, "user": 2}, hash_buckets={"item": 5})
    model = make(FinalMLP(dim=3, embedding=options, context1=("user",), context2=("item",)))
    assert model.gates[0].embed.width() == 2 and model.gates[1].embed.slot("item").rows == 5
    assert rows.logit(model, rows.batch_of(FEATURES)).shape == (6,)


def products(rng: np.random.Generator, weights: np.ndarray, *, count: int) -> tuple[np.ndarray, ...]:
    u, v = rng.normal(size=(2, count, 10)).astype(np.float32)
    logit = 2.5 * (np.tanh(u @ weights[:, :3]) * np.tanh(v @ weights[:, 1:])).sum(1)
    return u, v, (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["bilinear", "sum"])
def test_only_the_bilinear_fusion_learns_products_of_what_two_streams_see_alone(fusion):
    """Stream 1 sees u, stream 2 v, and the label depends on their products alone: their sum is blind."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(10, 4)) / np.sqrt(10) * 2
    train, test = products(rng, weights, count=32_000), products(rng, weights, count=8_000)
    rngs = nnx.Rngs(0)
    model = nnx.Dict(
        {
            "mlp1": MLP(widths=(40,)).make(10, rngs=rngs),
            "mlp2": MLP(widths=(20,)).make(10, rngs=rngs),
            "fusion": Fusion((40, 20), heads=5 if fusion == "bilinear" else None, rngs=rngs),
        }
    )
    graph, state = nnx.split(model)
    optimizer = optax.adam(3e-3)

    def logits(state, u, v):
        m = nnx.merge(graph, state)
        return m["fusion"](m["mlp1"](u), m["mlp2"](v))

    @jax.jit
    def step(state, moments, u, v, y):
        loss = lambda s: optax.sigmoid_binary_cross_entropy(logits(s, u, v), y).mean()  # noqa: E731
        updates, moments = optimizer.update(jax.grad(loss)(state), moments)
        return optax.apply_updates(state, updates), moments

    moments = optimizer.init(state)
    for _ in range(15):
        order = rng.permutation(len(train[0])).reshape(-1, 256)
        for i in order:
            state, moments = step(state, moments, *(a[i] for a in train))
    auc = roc_auc_score(test[2], np.asarray(logits(state, *test[:2])))
    assert auc >= 0.85 if fusion == "bilinear" else auc <= 0.55
