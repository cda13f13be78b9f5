"""QIN: its equations in numpy, the size of the published model, and what its ReLU attention is for."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Dense, Features, Label, Sequence
from modules.behavior.qin import QIN, QuadraticLayer, SparseTargetAttention
from modules.layers.content import Content
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.benchmarks.toy import Toy, auc
from tests.modules import click_rows as rows
from tests.modules.behavior import checks
from train.optim import Optimizer

FEATURES = rows.features()
HISTORIES = ("history", "history_category", "history_content")
TARGETS = ("item", "category", "content")


def make(config: QIN | None = None, features=FEATURES):
    config = config or QIN(dim=3, embedding=Embedding(std=0.5), layers=2, rank=3)
    return config.make(features, rngs=nnx.Rngs(0))


def attended(attention, history, target, *, softmax=False):
    """One row: each behaviour projected by itself, as the paper writes it."""
    q = rows.dense(target, attention.query)
    scores = np.array([q @ rows.dense(e, attention.key) for e in history]) / np.sqrt(len(q))
    weights = np.maximum(scores, 0)
    if softmax and len(scores):
        weights = np.exp(scores) / np.exp(scores).sum()
    pooled = sum((a * rows.dense(e, attention.value) for a, e in zip(weights, history, strict=True)), np.zeros_like(q))
    return rows.dense(pooled, attention.out) + target


def quadratic(x, network):
    """Running statistics are 0 and 1 at the start, and norm's scale and bias 1 and 0."""
    for layer in network.layers:
        maps = rows.dense(x, layer.linear).reshape(len(x), layer.rank, -1)
        y = sum(x * maps[:, r] for r in range(layer.rank)) / np.sqrt(1 + 1e-5)
        x = x + np.where(y > 0, y, 0.25 * y)
    return rows.dense(x, network.head)


@pytest.mark.parametrize("normalise", ["relu", "softmax"])
def test_the_logit_equals_numpy(normalise):
    config = QIN(dim=3, embedding=Embedding(std=0.5), layers=2, rank=3, normalise=normalise)
    model, batch = make(config), rows.batch_of(FEATURES)
    vectors = rows.plain_vectors(model.embed, batch, FEATURES)
    pooled = rows.plain_fields(model.embed, batch, FEATURES)
    history = np.concatenate([vectors[n] for n in HISTORIES], axis=-1)
    target = np.concatenate([vectors[n] for n in TARGETS], axis=-1)
    interest = [
        attended(model.attention[0], h[:n], t, softmax=normalise == "softmax")
        for h, t, n in zip(history, target, batch["history/length"], strict=True)
    ]
    others = [pooled[n] for n in ("user", *TARGETS, "price", "tags", "ages", "title")]
    expected = quadratic(np.concatenate([*others, np.stack(interest)], axis=-1), model.network)[:, 0]
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)


def test_the_published_model_has_31_244_293_parameters():
    """MicroLens_1M_MMCTR: item, tags, a vector of 128; likes and views. A behaviour's tags count as one category."""
    item, tag = Categorical(name="item_id", rows=91_718, role="item"), Categorical(name="tag", rows=11_740, role="item")
    vector = Dense(name="item_emb", dim=128, role="item")
    past = [Sequence(name=f"past_{f.name}", of=f, length=64, role="user") for f in (item, tag, vector)]
    levels = [Categorical(name=name, rows=11, role="item") for name in ("likes_level", "views_level")]
    features = Features(all=(*levels, item, tag, vector, *past, Label(name="label")))
    # The authors' projection of the vectors has no bias.
    config = QIN(dim=128, embedding=Embedding(content={"item_emb": Content(bias=False)}))
    model = nnx.eval_shape(lambda: config.make(features, rngs=nnx.Rngs(0)))

    def count(part) -> int:
        return sum(v.get_value().size for _, v in nnx.to_flat_state(nnx.state(part, nnx.Param)))

    assert count(model.attention) == 1_179_648 and count(model.network.norms) == 8_192
    assert [count(m) for m in (model.network.layers, model.network.slopes, model.network.head)] == [
        16_793_600,
        4,
        1_025,
    ]
    assert count(model) == 31_244_293


def test_padding_weighs_nothing_and_an_empty_history_gives_the_target():
    attention = SparseTargetAttention(4, inner=8, normalise="relu", rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    history, target = (
        jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32),
        jnp.asarray(rng.normal(size=(2, 4)), jnp.float32),
    )
    mask = jnp.asarray([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    out = attention(history, target=target, mask=mask)
    np.testing.assert_array_equal(attention(history.at[:, 2:].set(9.0), target=target, mask=mask), out)
    np.testing.assert_array_equal(out[1], target[1])
    # More of the same interest is more of it: twice the behaviours, twice the sum.
    twice = attention(jnp.tile(history[:, :2], (1, 2, 1)), target=target, mask=jnp.ones((2, 4), bool))
    once = attention(history[:, :2], target=target, mask=jnp.ones((2, 2), bool))
    np.testing.assert_allclose(twice - target, 2 * (once - target), rtol=1e-4, atol=1e-5)


def test_a_quadratic_layer_sums_its_maps_with_and_without_dropout():
    layer = QuadraticLayer(4, rank=3, dropout=0.5, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2000, 4)), jnp.float32)
    x = x.at[:].set(x[:1])
    summed = layer(x)
    maps = rows.dense(np.asarray(x[:1], np.float64), layer.linear).reshape(3, 4)
    np.testing.assert_allclose(summed[:1], np.asarray(x[:1]) * maps.sum(0), rtol=1e-4, atol=1e-6)
    dropped = np.asarray(layer(x, rngs=nnx.Rngs(1)))
    assert len(np.unique(dropped[:, 0].round(5))) == 8  # each of three maps is there or not
    np.testing.assert_allclose(dropped.mean(0), summed[0], atol=0.15)


def test_what_every_tower_with_a_history_owes():
    checks.assert_requests_agree(make(), FEATURES)
    # Batch norm makes a training row depend on the others.
    checks.assert_only_the_row_matters(make, FEATURES, train=False)


def test_a_plain_tower_stands_in_for_the_quadratic_layers():
    model = make(QIN(dim=3, mlp=MLP(widths=(6,))))
    assert rows.logit(model, rows.batch_of(FEATURES)).shape == (6,)
    assert rows.logit(make(), rows.batch_of(FEATURES), train=True).shape == (6,)


def intensity(rows_: int, *, seed: int) -> dict[str, np.ndarray]:
    """Clicks by how many of 1 to 20 behaviours are of the candidate's kind, 5 kinds of 8 items each."""
    rng = np.random.default_rng(seed)
    target, past = rng.integers(0, 40, rows_), rng.integers(0, 40, (rows_, 20))
    length = rng.integers(1, 21, rows_)
    alike = ((past % 5 == target[:, None] % 5) & (np.arange(20)[None] < length[:, None])).sum(1)
    click = rng.random(rows_) < 1 / (1 + np.exp(2.0 - 1.0 * alike))
    return {
        "item": (2 + target).astype(np.int32),
        "history": (2 + past).astype(np.int32),
        "history/length": length.astype(np.int32),
        "click": click.astype(np.float32),
    }


@pytest.mark.slow
def test_relu_attention_counts_what_softmax_averages_away():
    """ReLU above softmax by a point of AUC or more, as the acceptance of the reproduction asks."""
    item = Categorical(name="item", role="item", rows=42)
    past = Sequence(name="history", of=Categorical(name="h", rows=42, share="item"), length=20, role="user")
    features = Features(all=(item, past, Label(name="click")))
    train, test = intensity(40_000, seed=1), intensity(20_000, seed=2)
    figures = {}
    for normalise in ("relu", "softmax"):
        model = QIN(dim=8, embedding=Embedding(std=0.1), layers=1, rank=1, dropout=0.0, normalise=normalise)
        toy = Toy(model, features=features, optimizer=Optimizer(lr=5e-3), epochs=6, batch=500, rows=40_000)
        predictions, _ = toy.fit(train, test=test, seed=0)
        figures[normalise] = auc(test["click"], score=predictions["score"])
    assert figures["relu"] >= figures["softmax"] + 0.01, figures
