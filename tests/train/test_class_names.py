"""Class names as prompts and as queries, linear probes, every listing of a text: against plain loops."""

import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import Dense, Features, Group, Label
from data.sources import InMemory, SourceConfig
from train.class_names import ClassNames
from train.evaluators import Slice
from train.linear_probe import LinearProbe, ridge
from train.metrics.classes import ClassAccuracy, Precision
from train.metrics.ranking import MRR, Recall
from train.retrieve_every import RetrieveEvery

D, CLASSES = 6, 4
CENTRES = np.random.default_rng(3).normal(size=(CLASSES, D))


@chz.chz
class Rows(SourceConfig):
    """Noisy copies of class centres; every fifth row is of no class, class 3 has no prompt of its own."""

    rows: int = 40
    seed: int = 0
    noise: float = 0.7

    def make(self):
        rng = np.random.default_rng(self.seed)
        kind = np.arange(self.rows) % CLASSES
        x = CENTRES[kind] + self.noise * rng.normal(size=(self.rows, D))
        columns = {"x": x, "kind": np.where(np.arange(self.rows) % 5 == 4, -1, kind), "key": kind, "half": kind % 2}
        features = (Dense(name="x", dim=D), *(Label(name=n, type="class") for n in ("kind", "key")), Group(name="half"))
        return InMemory(columns, features=Features(all=features))


@chz.chz
class Names(SourceConfig):
    """Two prompts of each class but the last, one of them far longer."""

    wide: float = 1.5

    def make(self):
        kind = np.repeat(np.arange(CLASSES - 1), 2)
        rng = np.random.default_rng(28)
        spread = np.array([0.1, self.wide, 0.1])[kind][:, None]  # the prompts of class 1 agree least
        x = (CENTRES[kind] + spread * rng.normal(size=(len(kind), D))) * np.tile([1.0, 30.0], CLASSES - 1)[:, None]
        return InMemory(
            {"x": x, "kind": kind}, features=Features(all=(Dense(name="x", dim=D), Label(name="kind", type="class")))
        )


def predict(batch):
    return {"item": batch["x"], "query": batch["x"][:, ::-1] if "key" in batch else batch["x"]}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def prompts():
    rows = Names().make().columns
    return unit(np.stack([unit(rows["x"][rows["kind"] == c]).sum(0) for c in range(CLASSES - 1)]))


@pytest.mark.parametrize("blend", [0.0, 0.3])
def test_classes_by_name_and_rows_by_class_name(blend):
    evaluator = ClassNames(
        source=Rows(),
        prompts={"kind": Names()},
        batch_size=16,
        blend=blend,
        slices={"odd": Slice(feature="half", equals=1)},
    )
    values = evaluator.run(predict).values
    rows = Rows().make().columns
    x, kind = unit(rows["x"]), rows["kind"]
    best = (x @ prompts().T).argmax(1)
    right = best == kind  # a row of class 3 has no name to be found by
    assert values["kind/accuracy@1"] == pytest.approx(right[kind >= 0].mean())
    assert values["kind/odd/accuracy@1"] == pytest.approx(right[(kind >= 0) & (rows["half"] == 1)].mean())
    per_class = [right[kind == c].mean() for c in range(CLASSES)]
    assert values["kind/class_accuracy@1"] == pytest.approx(np.mean(per_class)) and per_class[3] == 0
    found = unit((1 - blend) * x + blend * unit(rows["x"][:, ::-1]))
    order = np.argsort(-(prompts() @ found.T), axis=1)
    hits = kind[order] == np.arange(CLASSES - 1)[:, None]
    assert values["kind/query/precision@10"] == pytest.approx(hits[:, :10].mean())
    assert values["kind/query/precision@1"] == pytest.approx(hits[:, 0].mean())
    assert values["kind/query/mrr"] == pytest.approx((1 / (1 + hits.argmax(1))).mean())


def test_equal_rows_of_the_class_sought_are_no_ties_against_it():
    found = ClassNames(source=Rows(noise=0.0), prompts={"kind": Names(wide=0.1)}).run(predict).values
    # Of the ten rows that are alike two are of no class; those alone tie with the eight that are sought.
    assert found["kind/query/mrr"] == pytest.approx(1 / 3) and found["kind/query/precision@10"] == pytest.approx(0.8)


def test_what_cannot_be_named_is_said():
    with pytest.raises(UserError, match="did you mean 'kind'"):
        ClassNames(source=Rows(), prompts={"kinds": Names()}).run(predict)
    with pytest.raises(UserError, match="no row has a class 'kind'"):
        ClassNames(source=Nobody(), prompts={"kind": Names()}).run(predict)
    with pytest.raises(UserError, match="its support"):
        LinearProbe(source=Rows(), support=Nobody(), labels=("kind",)).run(predict)
    with pytest.raises(ValueError, match="ridge above 0"):
        LinearProbe(source=Rows(), support=Rows(), labels=("kind",), ridge=0.0)


@chz.chz
class Nobody(Rows):
    def make(self):
        rows = Rows().make()
        return InMemory({**rows.columns, "kind": 0 * rows.columns["kind"] - 1}, features=rows.features)


def test_ridge_is_the_minimum_of_its_loss(rng):
    x, which = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    w = ridge(x, which, classes=3, strength=0.2)

    def loss(w):
        residual = x @ w[:-1] + w[-1] - np.eye(3)[which]
        return np.square(residual).sum() / len(x) + 0.2 * np.square(w[:-1]).sum()

    for _ in range(20):
        assert loss(w) < loss(w + 1e-3 * rng.normal(size=w.shape))


def test_a_probe_of_all_rows_and_of_few():
    whole = LinearProbe(source=Rows(seed=1), support=Rows(), labels=("kind", "key"), shots=None, batch_size=16)
    values = whole.run(predict).values
    train, test = Rows().make().columns, Rows(seed=1).make().columns
    known = train["kind"] >= 0
    w = ridge(unit(train["x"])[known], train["kind"][known], classes=CLASSES, strength=0.01)
    best = (unit(test["x"]) @ w[:-1] + w[-1]).argmax(1)
    assert values["kind/accuracy@1"] == pytest.approx((best == test["kind"])[test["kind"] >= 0].mean())
    few = chz.replace(whole, shots=1, draws=4, support=Rows(noise=0.01), source=Rows(seed=1, noise=0.01))
    assert few.run(predict).values["key/accuracy@1"] == 1  # one example of each class says it all
    assert (
        chz.replace(whole, shots=1, draws=9).run(predict).values["kind/accuracy@1"] < values["kind/accuracy@1"] - 0.05
    )
    unlearnt = chz.replace(few, support=Rows(rows=3, noise=0.01)).run(predict).values
    assert unlearnt["key/accuracy@1"] == pytest.approx(0.75)  # class 3 is not among the three rows


def test_every_listing_of_a_text_is_an_answer():
    evaluator = RetrieveEvery(
        source=Rows(rows=8), corpus=Rows(rows=30, seed=5), target="key", key="key", metrics=(Recall(ks=(10,)), MRR())
    )
    values = evaluator.run(lambda batch: {"query": batch["x"], "item": batch["x"]}).values
    ask, corpus = Rows(rows=8).make().columns, Rows(rows=30, seed=5).make().columns
    order = np.argsort(-(ask["x"] @ corpus["x"].T), axis=1)
    hits = corpus["key"][order] == ask["key"][:, None]
    assert values["recall@10"] == pytest.approx((hits[:, :10].sum(1) / hits.sum(1)).mean())
    assert values["mrr"] == pytest.approx((1 / (1 + hits.argmax(1))).mean())
    missing = chz.replace(evaluator, corpus=Rows(rows=3, seed=5)).run(lambda b: {"query": b["x"], "item": b["x"]})
    assert missing.values["targets_missing"] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="takes no history"):
        chz.replace(evaluator, history="key")


def test_precision_and_class_accuracy_merge():
    label, catalogue = np.array([0, 1]), np.array(3)
    parts = [
        ({"rank": np.array([[1], [3]])}, {"relevant": np.array([[1, 0, 1], [0, 0, 1]]), "class": label}),
        ({"rank": np.array([[2], [0]])}, {"relevant": np.array([[0, 1, 1], [1, 1, 1]]), "class": label}),
    ]
    for metric, wanted in ((Precision(ks=(2,)), 1 / 3), (ClassAccuracy(ks=(2,)), 0.5)):
        one, other = metric.make(), metric.make()
        for accumulator, (predictions, batch) in zip((one, other), parts, strict=True):
            accumulator.update({**predictions, "catalogue": catalogue}, batch)
        one.merge(other)
        assert one.compute() == pytest.approx({f"{metric.name}@2": wanted})
        assert np.isnan(next(iter(metric.make().compute().values()))) and metric.make().reasons()
    with pytest.raises(UserError, match="needs as many results"):
        wide = {"rank": np.ones((1, 1)), "catalogue": np.array(9)}
        Precision(ks=(4,)).make().update(wide, {"relevant": np.ones((1, 3))})
