"""Shifted targets and drawn negatives."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label, Numeric, Sequence
from data.pipeline import Loader
from data.sources import InMemory
from data.transforms.history import NextTargets, UniformNegatives

FEATURES = Features(
    all=(
        Sequence(name="history", of=Categorical(name="item", rows=12), length=4),
        Numeric(name="age"),
        Label(name="target", type="class"),
    )
)
ROWS = {
    "history": np.array([[5, 6, 7, 8], [9, 3, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]]),
    "history/length": np.array([4, 2, 1, 0]),
    "age": np.zeros(4),
    "target": np.array([10, 11, 2, 3]),
}
SOURCE = InMemory(ROWS, features=FEATURES)


def first(*transforms, batch_size=4, **kwargs):
    batches = Loader(batch_size=batch_size, shuffle=False, transforms=transforms, prefetch=0).open(SOURCE, **kwargs)
    batch = next(batches)
    declared = batches.features.arrays()
    assert {name: (a.shape[1:], a.dtype) for name, a in batch.items()} == declared
    return batch


def test_a_history_shifts_into_its_own_targets():
    batch = first(NextTargets())
    assert batch["targets"].tolist() == [[6, 7, 8, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert batch["history"].tolist() == [[5, 6, 7, 0], [9, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert batch["history/length"].tolist() == [3, 1, 0, 0]


def test_a_label_is_the_newest_positions_target():
    batch = first(NextTargets(target="target"))
    assert batch["targets"].tolist() == [[6, 7, 8, 10], [3, 11, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]]
    assert batch["history"].tolist() == ROWS["history"].tolist()


def test_the_source_is_left_as_it_was():
    first(NextTargets())
    assert SOURCE.take(np.arange(4))["history"].tolist() == ROWS["history"].tolist()


@pytest.mark.parametrize(("shared", "shape"), [(False, (4, 4, 300)), (True, (4, 300))])
def test_negatives_are_all_items_and_items_alone(shared, shape):
    negatives = first(UniformNegatives(count=300, shared=shared))["negatives"]
    assert negatives.shape == shape
    assert set(np.unique(negatives)) == set(range(2, 12))


def test_negatives_do_not_depend_on_the_process_count():
    whole = first(UniformNegatives(count=3))["negatives"]
    parts = [first(UniformNegatives(count=3), process_index=i, process_count=2) for i in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate([p["negatives"] for p in parts]))


def test_wrong_declarations_are_refused():
    with pytest.raises(UserError, match="'age' is no sequence of ids but numeric"):
        first(UniformNegatives(history="age"))
    with pytest.raises(UserError, match="'age' is no sequence of ids but numeric"):
        first(NextTargets(history="age"))
    with pytest.raises(UserError, match="no label 'next'"):
        first(NextTargets(target="next"))
