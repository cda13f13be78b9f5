"""Two towers against numpy, and each side alone."""

import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features, Label, Numeric, Sequence
from modules.layers.mlp import MLP
from modules.retrieval.two_tower import TwoTower

ITEM = Categorical(name="item", role="item", rows=30)
FEATURES = Features(
    all=(
        Categorical(name="user", role="user", rows=12),
        Sequence(name="history", role="user", of=Categorical(name="item", rows=30), length=5),
        Numeric(name="hour", role="context"),
        ITEM,
        Label(name="click"),
    )
)
QUERY = ("user", "history", "history/length", "hour")


@pytest.fixture(scope="module")
def model():
    config = TwoTower(dim=4, query=MLP(widths=(8,)), item=MLP(widths=(8,)))
    return config.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture
def batch(rng):
    length = rng.integers(0, 6, 3)
    return {
        "user": rng.integers(2, 12, 3),
        "history": np.where(np.arange(5) < length[:, None], rng.integers(2, 30, (3, 5)), 0),
        "history/length": length,
        "hour": rng.normal(size=3).astype(np.float32),
        "item": rng.integers(2, 30, 3),
    }


def test_towers_equal_numpy(model, batch):
    def tower(mlp, x):
        first, last = ([np.asarray(p[...]) for p in (x.kernel, x.bias)] for x in (mlp.hidden[0].linear, mlp.out))
        y = np.maximum(x @ first[0] + first[1], 0) @ last[0] + last[1]
        return y / np.linalg.norm(y, axis=-1, keepdims=True)

    outputs = model(batch)

    def look(name, ids):
        return np.asarray(model.embed.look_up(ids, name=name))

    history = look("history", batch["history"]) * (batch["history"] > 0)[..., None]
    query = np.concatenate(
        [
            look("user", batch["user"]),
            history.sum(1) / np.maximum(batch["history/length"], 1)[:, None],
            batch["hour"][:, None] * np.asarray(model.embed.numeric_4[...]),
        ],
        axis=-1,
    )
    np.testing.assert_allclose(outputs["query"], tower(model.query, query), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["item"], tower(model.item, look("item", batch["item"])), rtol=1e-4, atol=1e-5)
    assert float(outputs["log_scale"]) == pytest.approx(np.log(20))


def test_each_side_stands_alone(model, batch):
    whole = model(batch)
    query = model({name: batch[name] for name in QUERY})
    item = model({"item": batch["item"]})
    assert set(query) == {"query", "log_scale"}
    assert set(item) == {"item", "log_scale"}
    np.testing.assert_allclose(query["query"], whole["query"], atol=1e-6)
    np.testing.assert_allclose(item["item"], whole["item"], atol=1e-6)
    with pytest.raises(KeyError, match="hour missing"):
        model({name: batch[name] for name in QUERY if name != "hour"})


def test_history_and_item_share_a_table(model):
    assert model.embed.slot("history").index == model.embed.slot("item").index


def test_without_normalize_and_temperature():
    model = TwoTower(dim=4, normalize=False, temperature=None).make(FEATURES, rngs=nnx.Rngs(0))
    outputs = model({"item": np.arange(2, 30)})
    assert set(outputs) == {"item"}
    assert np.linalg.norm(outputs["item"], axis=-1).std() > 0


def test_a_source_of_items_alone_is_refused():
    with pytest.raises(ValueError, match="role user or context; the source declares none"):
        TwoTower().make(Features(all=(ITEM,)), rngs=nnx.Rngs(0))
