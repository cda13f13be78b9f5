"""Every query with every item, by a model that scores pairs."""

import chz
import numpy as np
import pytest

from data.features import Features, Group, Label, Numeric
from data.sources import InMemory, SourceConfig
from train.metrics.ranking import MRR, Recall
from train.retrieve_pairs import RetrievePairs


@chz.chz
class Pairs(SourceConfig):
    def make(self):
        rng = np.random.default_rng(4)
        key = np.array([3, 1, 4, 1, 5, 9, 2, 6])
        columns = {"asks": rng.normal(size=8), "shown": rng.normal(size=8), "spu": key, "half": key % 2}
        features = (Numeric(name="asks"), Numeric(name="shown"), Label(name="spu", type="class"), Group(name="half"))
        return InMemory(columns, features=Features(all=features))


def test_ranks_are_those_of_the_square_of_scores():
    seen = []

    def predict(batch):
        seen.append(set(batch))
        return {"score": np.sin(7 * batch["asks"] + batch["shown"])}

    metrics = (Recall(ks=(1, 3)), MRR())
    evaluator = RetrievePairs(source=Pairs(), query=("asks",), item=("shown",), metrics=metrics, batch_size=20)
    values = evaluator.run(predict).values
    rows = Pairs().make().columns
    first = [0, 1, 2, 4, 5, 6, 7]  # the fourth row is another of the second's product
    score = np.sin(7 * rows["asks"][first][:, None] + rows["shown"][first][None])
    own = np.diag(score)
    for prefix, axis in (("", 1), ("reverse/", 0)):
        rank = (score >= np.expand_dims(own, axis)).sum(axis)
        assert values[f"{prefix}mrr"] == pytest.approx((1 / rank).mean())
        assert values[f"{prefix}recall@3"] == pytest.approx((rank <= 3).mean())
    assert seen[0] == {"asks", "shown"} and len(seen) == 3
    few = chz.replace(evaluator, rows_compared=2).run(predict).values
    assert few["recall@3"] == 1
