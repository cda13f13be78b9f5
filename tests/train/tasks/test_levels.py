"""Losses by level: sums, weights, what is missing, negatives; and retrieval between predictions by name."""

import chz
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.features import Features, Group, Numeric
from data.sources import InMemory, SourceConfig
from modules.losses.contrastive import Outside, softmax_contrastive
from train.metrics.ranking import Recall
from train.retrieve_named import RetrieveNamed
from train.tasks.levels import Level, Levels

N, D = 6, 4
LABELS = {"spu": jnp.arange(N)}
TASK = Levels(
    levels={"image": Level(query="query", item="image"), "text": Level(query="query", item="text", weight=0.5)},
    temperature=0.5,
)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def outputs(rng):
    found = {name: jnp.asarray(unit(rng.normal(size=(N, D)))) for name in ("query", "image", "text")}
    return {**found, "aux_loss/hidden": jnp.asarray(0.25)}


def test_levels_are_weighed_named_and_summed(outputs):
    loss, logs = TASK.loss(outputs, LABELS)
    image, text = (float(softmax_contrastive(outputs["query"], outputs[n], scale=2.0)) for n in ("image", "text"))
    assert float(loss) == pytest.approx(image + 0.5 * text + 0.25, rel=1e-5)
    assert float(logs["image"]) == pytest.approx(image, rel=1e-5)
    none = Levels(levels={"image": Level(query="query", item="image"), "lost": Level(query="a", item="b", weight=0)})
    assert "lost" not in none.loss(outputs, LABELS)[1]
    assert set(TASK.predict(outputs, LABELS)) == {"query", "image", "text"}


def test_rows_without_a_side_are_left_out(outputs):
    known = {"query/known": jnp.arange(N) != 1, "image/known": jnp.arange(N) != 4}
    _, logs = TASK.loss({**outputs, **known}, LABELS)
    rows = np.array([0, 2, 3, 5])
    few = softmax_contrastive(outputs["query"][rows], outputs["image"][rows], scale=2.0)
    assert float(logs["image"]) == pytest.approx(float(few), rel=1e-5)


def test_each_level_has_its_own_negatives(outputs, rng):
    bank, other = (jnp.asarray(unit(rng.normal(size=shape))) for shape in ((3, D), (N, 1, D)))
    more = {"image/bank": bank, "image/bank/known": jnp.asarray([True, True, False])}
    more |= {"image/negatives": other, "image/negatives/known": jnp.ones((N, 1), bool)}
    _, logs = TASK.loss({**outputs, **more}, LABELS)
    wanted = softmax_contrastive(
        outputs["query"], outputs["image"], scale=2.0, negatives=Outside(other), bank=Outside(bank[:2])
    )
    assert float(logs["image"]) == pytest.approx(float(wanted), rel=1e-5)
    assert float(logs["text"]) == pytest.approx(float(TASK.loss(outputs, LABELS)[1]["text"]), rel=1e-6)


def test_what_is_not_there_is_named(outputs):
    with pytest.raises(UserError, match="'image'"):
        TASK.loss({n: a for n, a in outputs.items() if n != "image"}, LABELS)
    with pytest.raises(UserError, match="'spu'"):
        TASK.loss(outputs, {})


@chz.chz
class Four(SourceConfig):
    def make(self):
        columns = {"x": np.arange(4.0), "item": np.array([7, 8, 9, 10])}
        return InMemory(columns, features=Features(all=(Numeric(name="x"), Group(name="item"))))


def test_any_side_asks_and_any_is_found():
    """`a` and `b` of a row are alike, its `c` is what the next row's are."""

    def predict(batch):
        at = batch["x"].astype(int)
        return {"a": np.eye(4)[at], "b": np.eye(4)[at], "c": np.eye(4)[(at + 1) % 4]}

    def recall(asks, finds):
        evaluator = RetrieveNamed(
            source=Four(), metrics=(Recall(ks=(1,)),), batch_size=4, asks=asks, finds=finds, target="item", key="item"
        )
        return evaluator.run(predict).values["recall@1"]

    assert (recall("a", "b"), recall("a", "c")) == (1.0, 0.0)
    with pytest.raises(UserError, match="neither 'lost' nor 'gone'"):
        recall("lost", "gone")
