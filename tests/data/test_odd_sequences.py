"""What sequence files may hold that models do not expect, and what is made of it."""

import chz
import numpy as np
import pyarrow as pa
import pytest

from data.building.interactions import Log
from data.errors import TooManyRejects
from data.features import Categorical, Features, Label, Sequence
from data.pipeline import Loader
from data.sequence_file import SequenceFile
from data.sources import InMemory, SourceConfig
from data.transforms.history import NextTargets
from data.transforms.target_counts import TargetCounts
from data.whole_histories import sequences_of
from train.floors import Floors, RankFloors
from train.metrics.ranking import HitRate

GOOD = "".join(f"{user} {1 + user % 5} {1 + (user + 1) % 5} {1 + (user + 2) % 5}\n" for user in range(10, 130))


@pytest.fixture
def write(tmp_path):
    def written(text, items=None):
        (tmp_path / "sequences.txt").write_text(text)
        if items is not None:
            (tmp_path / "items.tsv").write_text("item_id\ttitle\n" + "".join(f"{i}\tthing {i}\n" for i in items))
        return str(tmp_path)

    return written


def test_a_user_with_one_event_is_set_aside_by_name_and_many_stop_the_run(write):
    source = SequenceFile(path=write(GOOD + "500 3\n")).make()
    assert 500 not in source.columns["user"] and len(source) == 120
    with pytest.raises(TooManyRejects, match="fewer than 2 items"):
        SequenceFile(path=write(GOOD + "500 3\n501 4\n502 1\n")).make()


def test_users_with_two_events_are_judged_but_train_nothing(write):
    path = write(GOOD + "500 3 4\n")
    assert 500 in SequenceFile(path=path, split="valid").make().columns["user"]
    assert 500 not in SequenceFile(path=path).make().columns["user"]


def test_a_history_of_a_hundred_thousand_events_keeps_the_newest_and_is_counted_whole(write):
    """One long line does not widen the rows of all; the floors count all of it."""
    long = 1 + np.arange(100_000) % 5
    path = write(GOOD + f"500 {' '.join(map(str, long))}\n")
    source = SequenceFile(path=path, max_len=8)
    rows = source.make()
    row = int(np.flatnonzero(rows.columns["user"] == 500)[0])
    assert rows.columns["history"].shape == (121, 8)
    assert rows.columns["history"][row].tolist() == (long[-10:-2] + 1).tolist()
    items, lengths = source.sequences()
    assert lengths[row] == 99_999 and items[-99_999:].tolist() == (long[:-1] + 1).tolist()
    known = RankFloors(source=source, train=source, metrics=(HitRate(),), history="history").counted()
    assert known.popularity.sum() == 99_999 + 2 * 120


def test_items_never_seen_are_candidates_with_nothing_for_them(write):
    path = write(GOOD, items=range(1, 9))
    train, valid = (SequenceFile(path=path, split=split) for split in ("train", "valid"))
    assert train.make().features["history"].size == 8 + 2
    known = RankFloors(source=valid, train=train, texts=path, metrics=(HitRate(),)).counted()
    scores = known.scores("seqknn", history=np.array([[2, 3]]), length=np.array([2]))
    assert scores.shape == (1, 10) and not scores[0, 7:].any() and scores[0, 2:7].any()


def test_an_items_table_that_lacks_some_ids_names_the_line_that_has_them(write):
    """The table says which ids there are: its highest bounds them, holes below have no words (see test_floors)."""
    text = GOOD + "500 1 2 9\n"
    with_hole = SequenceFile(path=write(text, items=(1, 2, 3, 5, 9)), split="valid").make()
    assert with_hole.features["history"].size == 9 + 2 and 500 in with_hole.columns["user"]
    cut = SequenceFile(path=write(text, items=(1, 2, 3, 4, 5)), split="valid").make()
    assert 500 not in cut.columns["user"] and len(cut) == 120


def test_logs_out_of_order_are_sorted_by_user_and_time_and_ties_keep_the_order_of_the_file():
    log = pa.table({"user": [2, 1, 2, 1, 1], "item": [10, 20, 30, 40, 50], "time": [5, 9, 5, 1, 9]})
    found = Log(log)
    order = log.take(pa.array(found.order))
    assert list(zip(order["user"].to_pylist(), order["item"].to_pylist(), strict=True)) == [
        (1, 40),
        (1, 20),
        (1, 50),
        (2, 10),
        (2, 30),
    ]


def test_how_often_training_saw_the_target(write):
    path = write("1 1 2 3 4\n2 1 2 2 1\n3 3 1 5 6\n4 2 2 1 2\n", items=range(1, 8))
    train, valid = (SequenceFile(path=path, split=split) for split in ("train", "valid"))
    transforms = (NextTargets(target="target"), TargetCounts(seen=train))
    batch = next(iter(Loader(batch_size=4, transforms=transforms).once(valid.make())))
    assert batch["target"].tolist() == [5, 2, 7, 3]
    assert batch["target_count"].tolist() == [0, 4, 0, 5]


@chz.chz
class Bought(SourceConfig):
    second: int = 4

    def make(self):
        columns = {
            "history": np.array([[2, 3], [3, 0]]),
            "history/length": np.array([2, 1]),
            "bought": np.array([3, self.second]),
        }
        history = Sequence(name="history", of=Categorical(name="item", rows=6), length=2)
        return InMemory(columns, features=Features(all=(history, Label(name="bought", type="class"))))


def test_targets_of_training_count_too_whatever_their_name():
    counts = TargetCounts(seen=Bought(), target="bought").bind(Bought().make())
    assert counts({"bought": np.array([3, 4, 2, 5])}, rng=None)["target_count"].tolist() == [3, 1, 1, 0]


def test_a_row_without_a_target_ends_with_its_history():
    items, lengths = sequences_of(Bought(second=0), target="bought")
    assert items.tolist() == [2, 3, 3, 3] and lengths.tolist() == [3, 1]


def test_windows_wider_than_a_history_count_what_there_is():
    counts = Floors(window=9).transitions(np.array([2, 3, 4]), np.array([0, 0, 1]), rows=5).toarray()
    assert np.argwhere(counts).tolist() == [[2, 3], [3, 2]]
