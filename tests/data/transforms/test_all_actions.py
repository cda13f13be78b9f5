"""AllActions: what is cut, drawn and left out, row by row."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Dense, Features, Sequence
from data.transforms.all_actions import AllActions

L = 12
ITEM = Categorical(name="item", rows=100)
FEATURES = Features(
    all=(
        Sequence(name="history", of=ITEM, length=L),
        Sequence(name="history_content", of=Dense(name="content", dim=3), length=L),
    )
)


def batch_of(lengths, *, repeat=False):
    lengths = np.array(lengths, np.int32)
    ids = np.tile(np.arange(2, 2 + L, dtype=np.int32), (len(lengths), 1))
    ids = ids // 2 + 1 if repeat else ids
    there = np.arange(L) < lengths[:, None]
    ids = np.where(there, ids, 0)
    vectors = np.repeat(ids[:, :, None], 3, axis=2).astype(np.float32)
    return {"history": ids, "history/length": lengths, "history_content": vectors, "history_content/length": lengths}


def test_targets_lie_in_the_window_behind_the_cut_and_positions_before_it():
    batch = batch_of([L] * 300 + [5] * 300 + [1, 0])
    out = AllActions(window=3, targets=2, positions=4)(batch, rng=np.random.default_rng(0))
    cut = out["history/length"]
    assert set(cut[:300]) == set(range(6, L)) and set(cut[300:600]) == {3, 4}  # anywhere in the second half
    place = out["targets"] - 2
    known = out["targets"] > 0
    assert (place >= cut[:, None])[known].all() and (place < cut[:, None] + 3)[known].all()
    np.testing.assert_array_equal(known.sum(1), np.minimum(batch["history/length"] - cut, 2))
    assert (out["positions"] < cut[:, None]).all()
    np.testing.assert_array_equal((out["positions"] >= 0).sum(1), np.minimum(cut, 4))
    drawn = [set(row[row >= 0]) for row in out["positions"]]
    assert [len(d) for d in drawn] == np.minimum(cut, 4).tolist()  # none twice
    np.testing.assert_array_equal(out["targets_content"][..., 0], out["targets"])
    np.testing.assert_array_equal(out["history_content"][..., 1], out["history"])
    np.testing.assert_array_equal(out["history_content/length"], cut)
    assert ((out["history"] > 0).sum(1) == cut).all()


def test_an_item_is_drawn_once_where_there_are_others():
    out = AllActions(window=6, targets=3)(batch_of([L] * 200, repeat=True), rng=np.random.default_rng(1))
    for row, cut in zip(out["targets"], out["history/length"], strict=True):
        there = len(set(np.arange(2, 2 + L)[cut : cut + 6] // 2 + 1))
        assert len(set(row[row > 0])) == min(3, there)


def test_the_next_action_alone():
    options = AllActions(window=1, targets=1, positions=1, newest=True)
    out = options(batch_of([L] * 50), rng=np.random.default_rng(2))
    np.testing.assert_array_equal(out["targets"][:, 0], 2 + out["history/length"])
    np.testing.assert_array_equal(out["positions"][:, 0], out["history/length"] - 1)


def test_it_declares_what_it_makes_and_refuses_what_it_cannot_cut():
    config = AllActions(targets=4, positions=20, window=5)
    made = config.features(FEATURES).arrays()
    out = config(batch_of([L, 3]), rng=np.random.default_rng(0))
    assert {n: (out[n].shape[1:], out[n].dtype) for n in made} == {n: (tuple(s), d) for n, (s, d) in made.items()}
    with pytest.raises(UserError, match="no sequence of ids"):
        AllActions(history="history_content").features(FEATURES)
    with pytest.raises(ValueError, match="window"):
        AllActions(targets=3, window=2)
