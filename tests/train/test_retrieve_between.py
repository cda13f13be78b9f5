"""Retrieval in chosen directions between the sides of a row."""

import chz
import numpy as np
import pytest

from data.features import Features, Group, Numeric
from data.sources import InMemory, SourceConfig
from train.metrics.ranking import Recall
from train.retrieve_across import RetrieveBetween


@chz.chz
class Line(SourceConfig):
    def make(self):
        columns = {"x": np.array([0.0, 0.5, 1.0, 1.5]), "spu": np.arange(4)}
        return InMemory(columns, features=Features(all=(Numeric(name="x"), Group(name="spu"))))


EVALUATOR = RetrieveBetween(
    source=Line(),
    target="spu",
    key="spu",
    domains=("a", "b", "c"),
    directions=(("a", "b"), ("c", "b")),
    metrics=(Recall(ks=(1,)),),
)


def on_circle(x):
    return np.stack([np.cos(x), np.sin(x)], axis=1)


def test_only_the_chosen_directions_are_gone():
    def predict(batch):
        x = batch["x"]
        # The last row of c has nothing to show, and its first is nearer to the second row of b.
        c = on_circle(np.where(x == 0, 0.4, x)) * (x < 1.5)[:, None]
        return {"a": on_circle(x + 0.1), "b": on_circle(x), "c": c}

    values = EVALUATOR.run(predict).values
    assert {n.split("/")[0] for n in values} == {"a-b", "c-b"}
    assert values["a-b/recall@1"] == 1 and values["c-b/recall@1"] == pytest.approx(2 / 3)


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="'z', which is none of domains"):
        chz.replace(EVALUATOR, directions=(("a", "z"),))
