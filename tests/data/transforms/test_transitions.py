"""Transitions: counts of what followed what, and of which items a batch is told them."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label, Numeric, Sequence
from data.pipeline import Loader
from data.sources import InMemory
from data.transforms.history import NextTargets
from data.transforms.transitions import NEXT, PLACE, STRENGTH, Transitions

T = 5
ROWS = [[2, 3, 4, 5], [2, 3, 2, 4], [2, 4, 1, 5], [3], []]
TARGET = [2, 3, 2, 6, 7]


@pytest.fixture
def source():
    history = np.zeros((len(ROWS), T), np.int32)
    for i, row in enumerate(ROWS):
        history[i, : len(row)] = row
    history[3, 3:] = 5, 6  # padding, whatever stands there
    features = Features(
        all=(
            Sequence(name="history", of=Categorical(name="item", rows=9), length=T),
            Label(name="target", type="class"),
        )
    )
    columns = {"history": history, "history/length": np.array([len(r) for r in ROWS]), "target": np.array(TARGET)}
    return InMemory(columns, features=features)


def run(source, *transforms):
    read = Loader(batch_size=len(source), shuffle=False, transforms=transforms, prefetch=0).open(source)
    batch = next(read)
    for name, (shape, dtype) in read.features.arrays().items():
        assert batch[name].shape[1:] == shape and batch[name].dtype == dtype, name
    return batch


def told(batch, item):
    """Successors and strengths of an item, from wherever the batch drew it."""
    drawn = np.take_along_axis(batch["history"], batch[PLACE], axis=1)
    row, place = np.argwhere(drawn == item)[0]
    return batch[NEXT][row, place].tolist(), batch[STRENGTH][row, place].tolist()


def test_successors_are_counted_over_all_histories_and_the_most_frequent_kept(source):
    batch = run(source, Transitions(count=40, successors=2))
    assert told(batch, 2) == ([4, 3], [1.0, 1.0])  # 2-3 and 2-4 twice each, but 4 also follows 3
    assert told(batch, 3) == ([4, 2], [1.0, 1.0])
    assert told(batch, 4) == ([5, 0], [1.0, 0.0])  # 4-1 and 1-5 are steps of an unknown item
    assert told(batch, 1) == ([0, 0], [0.0, 0.0])
    assert not batch[NEXT][4].any() and not batch[PLACE][4].any()
    with_target = run(source, Transitions(count=40, successors=2, target="target"))
    assert told(with_target, 4) == ([3, 5], [1.0, 1.0])
    assert told(with_target, 5) == ([2, 0], [1.0, 0.0])
    assert told(with_target, 3)[0] == [4, 2]  # each once, as 3-6: 2 and 4 follow as often, 4 first


def test_strengths_are_shares_of_the_largest(source):
    source.columns["history"][1] = [2, 3, 2, 3, 0]
    batch = run(source, Transitions(count=40, successors=3))
    assert told(batch, 2) == ([3, 4, 0], pytest.approx([1.0, 1 / 3, 0.0]))


def test_places_are_drawn_anew_of_what_the_batch_holds(source):
    batch = run(source, NextTargets(), Transitions(count=40))
    assert (batch[PLACE][:4] < np.maximum(batch["history/length"][:4, None], 1)).all()
    assert len(np.unique(batch[PLACE][0])) == 3  # the newest item is a target now


def test_what_it_refuses(source):
    with pytest.raises(UserError, match="no label 'next'; set target=None"):
        run(source, Transitions(target="next"))
    with pytest.raises(ValueError, match="at least 1"):
        Transitions(count=0)
    features = Features(all=(Sequence(name="history", of=Numeric(name="price"), length=T),))
    with pytest.raises(UserError, match="no sequence of ids"):
        Transitions().features(features)
