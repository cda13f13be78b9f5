"""Evaluators over in-memory sources: padding, slices, masks, sampled names, retrieval in both directions."""

import json

import chz
import numpy as np
import pytest
import sklearn.metrics

from data.errors import UserError
from data.features import Categorical, Features, Group, Label, Numeric, Sequence
from data.pipeline import VALID, Loader
from data.sources import InMemory, SourceConfig
from train.evaluators import Evaluate, Evaluation, RankItems, Retrieve, Slice, save_curves
from train.metrics.auc import AUC
from train.metrics.calibration import ECE
from train.metrics.gauc import GAUC
from train.metrics.point import LogLoss
from train.metrics.ranking import MRR, NDCG, Coverage, HitRate, Recall

ITEMS = 12


@chz.chz
class Clicks(SourceConfig):
    rows: int = 50

    def make(self):
        rng = np.random.default_rng(1)
        x = rng.random(self.rows)
        columns = {"x": x, "click": rng.random(self.rows) < x, "is_cold": rng.integers(0, 2, self.rows)}
        features = Features(all=(Numeric(name="x"), Label(name="click"), Group(name="is_cold")))
        return InMemory(columns, features=features)


@chz.chz
class Sessions(SourceConfig):
    """Row i has read items i + 2 and i + 3 and goes on with i + 4."""

    rows: int = 7

    def make(self):
        item = Categorical(name="item", rows=ITEMS)
        i = np.arange(self.rows)
        columns = {
            "history": np.stack((i + 2, i + 3, 0 * i), axis=1),
            "history/length": 0 * i + 2,
            "target": i + 4,
            "negatives": np.stack((i % 3 + 2, (i + 1) % 3 + 2), axis=1),
            "negatives/length": 0 * i + 2,
        }
        features = Features(
            all=(
                Sequence(name="history", of=item, length=3),
                Group(name="target"),
                Sequence(name="negatives", of=item, length=2),
            )
        )
        return InMemory(columns, features=features)


@chz.chz
class Vectors(SourceConfig):
    """`rows` one-hot queries in four dimensions for items 10, 11, ..., or those items."""

    rows: int
    keys: int = 4
    side: str = "query"
    stride: int = 1

    def make(self):
        key = 10 + np.arange(self.rows) * self.stride % self.keys
        features = Features(all=(Numeric(name=self.side), Group(name="item"), Group(name="seen")))
        return InMemory({self.side: key - 10, "item": key, "seen": 10 + (key - 11) % self.keys}, features=features)


def predict_score(batch):
    return {"score": batch["x"]}


def test_point_metrics_ignore_padding_rows():
    found = Evaluate(source=Clicks(), metrics=(AUC(), LogLoss()), batch_size=32).run(predict_score)
    rows = Clicks().make().columns
    assert found.rows == 50
    assert found.values["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(rows["click"], rows["x"]), abs=1e-12)
    assert found.curves["auc"]["kind"] == "roc"


def test_a_batch_of_padding_alone_counts_nothing(monkeypatch):
    metrics = (AUC(), GAUC(group="is_cold"), LogLoss(), ECE())
    evaluate = Evaluate(
        source=Clicks(), metrics=metrics, batch_size=16, slices={"cold": Slice(feature="is_cold", equals=1)}
    )
    wanted = evaluate.run(predict_score)
    once = Loader.once

    def with_padding(loader, source, **process):
        for batch in once(loader, source, **process):
            yield {**batch, VALID: np.zeros_like(batch[VALID])}
            yield batch

    monkeypatch.setattr(Loader, "once", with_padding)
    found = evaluate.run(predict_score)
    assert found.values == wanted.values and found.rows == 50

    def nothing(loader, source, **process):
        yield from ({**batch, VALID: np.zeros_like(batch[VALID])} for batch in once(loader, source, **process))

    monkeypatch.setattr(Loader, "once", nothing)
    empty = evaluate.run(predict_score)
    missing = {name for name, value in empty.values.items() if np.isnan(value)}
    assert empty.rows == 0 and {"auc", "gauc", "cold/auc"} <= missing == set(empty.reasons)


def test_slices_and_names_under_the_evaluators_key():
    slices = {"cold": Slice(feature="is_cold", equals=1), "likely": Slice(feature="x", at_least=0.5)}
    found = Evaluate(source=Clicks(), metrics=(AUC(),), batch_size=16, slices=slices).run(predict_score).under("valid")
    rows = Clicks().make().columns
    for name, mask in (("cold", rows["is_cold"] == 1), ("likely", rows["x"] >= 0.5)):
        want = sklearn.metrics.roc_auc_score(rows["click"][mask], rows["x"][mask])
        assert found.values[f"valid/{name}/auc"] == pytest.approx(want, abs=1e-12)
    assert set(found.curves) == {"valid/auc", "valid/cold/auc", "valid/likely/auc"}


def test_an_empty_slice_is_nan_with_its_reason():
    slices = {"none": Slice(feature="x", below=-1)}
    found = Evaluate(source=Clicks(), metrics=(AUC(),), batch_size=16, slices=slices).run(predict_score)
    assert np.isnan(found.values["none/auc"]) and found.reasons["none/auc"] == "no row was seen"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metrics": (AUC(), AUC(bits=16))}, "two metrics are named 'auc'"),
        ({"slices": {"a": Slice(feature="is_colt", equals=1)}}, "did you mean 'is_cold'"),
        ({"source": Clicks(rows=0)}, "no rows"),
    ],
)
def test_mistakes_are_named(change, says):
    evaluator = chz.replace(Evaluate(source=Clicks(), metrics=(AUC(),), batch_size=16), **change)
    with pytest.raises(UserError, match=says):
        evaluator.run(predict_score)


def test_a_slice_that_selects_nothing_is_refused():
    with pytest.raises(ValueError, match="equals, at_least or below"):
        Slice(feature="x")


def test_cadence_and_progress():
    evaluator = Evaluate(source=Clicks(), metrics=(AUC(),), batch_size=32, every=10)
    assert [step for step in range(31) if evaluator.due(step)] == [10, 20, 30]
    assert chz.replace(evaluator, every=None).due(7, last=True) and not chz.replace(evaluator, every=None).due(10)
    seen = []
    evaluator.run(predict_score, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(32, 50), (50, 50)]


def rank(scores, **fields):
    config = RankItems(source=Sessions(), metrics=(HitRate(ks=(1, 3)), MRR(), Coverage(ks=(1,))), batch_size=4)
    return chz.replace(config, **fields).run(lambda batch: {"scores": scores(batch)}).values


def newest_first(batch):
    """Scores the last read item highest, then the one after it, and ids 0 and 1 above all."""
    distance = np.abs(np.arange(ITEMS) - batch["history"][:, 1:2] - 0.25)
    return np.where(np.arange(ITEMS) < 2, 100.0, -distance).astype(np.float32)


def test_next_item_with_and_without_history_masked():
    plain, masked = rank(newest_first), rank(newest_first, history="history")
    assert plain["mrr"] == 0.5 and plain["hit_rate@1"] == 0.0 and plain["hit_rate@3"] == 1.0
    assert masked["mrr"] == 1.0 and masked["coverage@1"] == pytest.approx(7 / (ITEMS - 2))
    assert masked["targets_in_history"] == 0.0 and masked["ties"] == 0.0


def test_constant_scores_rank_last_and_half_ties_are_reported_beside():
    found = rank(lambda batch: np.zeros((len(batch["target"]), ITEMS), np.float32))
    assert found["ties"] == 1.0
    assert found["mrr"] == pytest.approx(1 / 10) and found["half_ties/mrr"] == pytest.approx(1 / 5.5)


def test_sampled_negatives_carry_their_number_in_the_name():
    found = rank(newest_first, candidates="negatives", metrics=(MRR(),))
    assert set(found) == {"mrr/sampled2", "ties"}
    assert found["mrr/sampled2"] > rank(newest_first)["mrr"]


def one_hot(batch):
    """The query of item k points at item k and a little at the item before it."""
    out = {}
    if "query" in batch:
        at = batch["query"].astype(int)
        out["query"] = (np.eye(4)[at] + 0.5 * np.eye(4)[at - 1]).astype(np.float32)
    if "item" in batch and "query" not in batch:
        out["item"] = np.eye(4, dtype=np.float32)[batch["item"] - 10]
    return out


def retrieve(**fields):
    config = Retrieve(
        source=Vectors(rows=10),
        corpus=Vectors(rows=4, side="price"),
        metrics=(Recall(ks=(1,)), NDCG(ks=(2,))),
        batch_size=4,
    )
    return chz.replace(config, **fields)


def test_retrieval_from_a_corpus_of_its_own(monkeypatch):
    monkeypatch.setattr("train.metrics.ranks.BLOCK", 12)  # three queries a block
    found = retrieve(reverse=True).run(one_hot)
    assert found.values["recall@1"] == 1.0 and found.values["ndcg@2"] == 1.0
    assert found.values["reverse/ndcg@2"] == 1.0
    assert found.values["reverse/recall@1"] == pytest.approx(np.mean([1 / 3, 1 / 3, 1 / 2, 1 / 2]))
    assert found.values["targets_missing"] == 0.0


def test_a_corpus_may_come_in_any_order_and_repeat_itself():
    shuffled = retrieve(corpus=Vectors(rows=8, side="price", stride=3), metrics=(Recall(ks=(1,)), Coverage(ks=(1,))))
    assert shuffled.run(one_hot).values["recall@1"] == 1.0
    assert shuffled.run(one_hot).values["coverage@1"] == 1.0  # four items, not eight


def test_vectors_that_know_nothing_find_k_of_n(rng):
    many = retrieve(
        source=Vectors(rows=600, keys=200),
        corpus=Vectors(rows=200, keys=200, side="price"),
        metrics=(Recall(ks=(20,)),),
        batch_size=100,
    )
    found = many.run(lambda batch: {n: rng.normal(size=(100, 8)) for n in ("query", "item")})
    assert found.values["recall@20"] == pytest.approx(0.1, abs=0.04)


def test_retrieval_of_wrong_vectors_fails():
    found = retrieve(reverse=True).run(lambda batch: {n: v[:, ::-1] for n, v in one_hot(batch).items()})
    assert found.values["recall@1"] == 1.0  # both sides are turned alike
    wrong = retrieve().run(lambda batch: {n: v[:, ::-1] if n == "item" else v for n, v in one_hot(batch).items()})
    assert wrong.values["recall@1"] == 0.0


def test_targets_outside_the_corpus_count_as_missed():
    found = retrieve(corpus=Vectors(rows=3, side="price")).run(one_hot).values
    assert found["targets_missing"] == pytest.approx(0.2) and found["recall@1"] == pytest.approx(0.8)
    with pytest.raises(UserError, match="same ids"):
        retrieve(key="price", corpus=Vectors(rows=3, side="price")).run(one_hot)


def test_pairs_are_their_own_corpus_and_equal_items_count_once():
    def both(batch):
        return {**one_hot(batch), "item": np.eye(4, dtype=np.float32)[batch["item"] - 10]}

    found = retrieve(corpus=None, metrics=(Recall(ks=(1,)), Coverage(ks=(1,)))).run(both)
    assert found.values["recall@1"] == 1.0 and found.values["coverage@1"] == 1.0


def test_retrieval_hides_history():
    def seen_first(batch):
        found = one_hot(batch)
        if "query" in found:
            found["query"] = found["query"] + np.eye(4)[batch["query"].astype(int) - 1]
        return found

    assert retrieve().run(seen_first).values["recall@1"] == 0.0
    assert retrieve(history="seen").run(seen_first).values["recall@1"] == 1.0
    assert retrieve(history="item").run(one_hot).values["recall@1"] == 1.0  # a target is always a candidate


def test_curves_are_kept_for_the_report(tmp_path):
    found = Evaluate(source=Clicks(), metrics=(AUC(),), batch_size=16).run(predict_score)
    save_curves(tmp_path, name="valid", curves=found.curves)
    assert json.loads((tmp_path / "curves" / "valid.json").read_text()) == {"name": "valid", "curves": found.curves}
    save_curves(tmp_path, name="none", curves=Evaluation(values={}).curves)
    assert [p.name for p in (tmp_path / "curves").iterdir()] == ["valid.json"]
