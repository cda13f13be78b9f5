"""Prefixes: which rows there are, what each holds, and that nothing after its target is in it."""

import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Dense, Features, Group, Label, Numeric, Sequence
from data.pipeline import Loader
from data.prefixes import Prefixes
from data.sources import InMemory, SourceConfig
from data.transforms.same_target import SameTarget

T = 4
ROWS = [[2, 3, 4, 5], [6, 3], [7], []]
ITEM = Categorical(name="item", rows=9)
PLAIN = Features(
    all=(
        Sequence(name="history", of=ITEM, length=T),
        Sequence(name="vectors", of=Dense(name="vector", dim=2), length=T),
        Group(name="user"),
    )
)


@chz.chz
class Users(SourceConfig):
    labelled: bool = False

    def make(self):
        history = np.zeros((len(ROWS), T), np.int32)
        for i, row in enumerate(ROWS):
            history[i, : len(row)] = row
        length = np.array([len(r) for r in ROWS])
        columns = {"history": history, "history/length": length, "user": np.arange(len(ROWS)), "target": [8, 5, 6, 2]}
        columns |= {"vectors": np.repeat(history[..., None], 2, axis=2), "vectors/length": length}
        features = PLAIN.plus(Label(name="target", type="class")) if self.labelled else PLAIN
        return InMemory(columns, features=features)


def rows_of(source):
    taken = source.take(np.arange(len(source)))
    for name, (shape, dtype) in source.features.arrays().items():
        assert taken[name].shape[1:] == shape and taken[name].dtype == dtype, name
    histories = [h[:n].tolist() for h, n in zip(taken["history"], taken["history/length"], strict=True)]
    assert all((h[n:] == 0).all() for h, n in zip(taken["history"], taken["history/length"], strict=True))
    np.testing.assert_array_equal(taken["vectors"][..., 0], taken["history"])
    np.testing.assert_array_equal(taken["vectors/length"], taken["history/length"])
    return list(zip(taken["user"].tolist(), histories, taken["target"].tolist(), strict=True))


def test_every_beginning_is_a_row_with_what_came_next():
    assert rows_of(Prefixes(of=Users()).make()) == [
        (0, [2], 3),
        (0, [2, 3], 4),
        (0, [2, 3, 4], 5),
        (1, [6], 3),
    ]
    assert rows_of(Prefixes(of=Users(), least=2).make()) == [(0, [2, 3], 4), (0, [2, 3, 4], 5)]


def test_the_whole_history_is_a_row_where_its_target_is_known():
    assert rows_of(Prefixes(of=Users(labelled=True), least=2).make()) == [
        (0, [2, 3], 4),
        (0, [2, 3, 4], 5),
        (0, [2, 3, 4, 5], 8),
        (1, [6, 3], 5),
    ]


def test_a_row_alone_is_the_row_of_the_block():
    source = Prefixes(of=Users()).make()
    block = source.take(np.arange(3))
    for name, value in source[2].items():
        np.testing.assert_array_equal(value, block[name][2])


def test_what_prefixes_refuse():
    with pytest.raises(ValueError, match="needs an item"):
        Prefixes(of=Users(), least=0)

    @chz.chz
    class Prices(SourceConfig):
        def make(self):
            features = Features(all=(Sequence(name="history", of=Numeric(name="price"), length=T),))
            return InMemory({"history": np.zeros((1, T)), "history/length": np.ones(1)}, features=features)

    with pytest.raises(UserError, match="no sequence of ids"):
        Prefixes(of=Prices()).make()


def test_the_other_history_has_the_same_target_and_is_another_where_there_is_one():
    read = Loader(batch_size=4, shuffle=False, transforms=(SameTarget(),), prefetch=0).open(Prefixes(of=Users()).make())
    batches = [next(read) for _ in range(8)]
    assert read.features["other_history"].table == "item"
    for batch in batches:
        assert batch["target"].tolist() == [3, 4, 5, 3]
        # Both rows before item 3 find each other; the others have but themselves.
        assert batch["other_history"].tolist() == [[6, 0, 0, 0], [2, 3, 0, 0], [2, 3, 4, 0], [2, 0, 0, 0]]
        assert batch["other_history/length"].tolist() == [1, 2, 3, 1]


def test_partners_are_drawn_anew():
    @chz.chz
    class Many(SourceConfig):
        def make(self):
            history = np.stack([np.arange(2, 8), np.full(6, 8)], axis=1)  # six users, one item after all
            features = Features(all=(Sequence(name="history", of=ITEM, length=2),))
            return InMemory({"history": history, "history/length": np.full(6, 2)}, features=features)

    source = Prefixes(of=Many()).make()
    read = Loader(batch_size=6, shuffle=False, transforms=(SameTarget(),), prefetch=0).open(source)
    drawn = np.stack([next(read)["other_history"][:, 0] for _ in range(40)])
    assert (drawn != np.arange(2, 8)).all()
    assert all(len(np.unique(drawn[:, row])) == 5 for row in range(6))
