import itertools

import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label, Sequence
from data.packing import Packed, Windows, pack
from data.pipeline import Buckets, Loader
from data.sources import InMemory, SourceConfig

FEATURES = Features(
    all=(
        Sequence(name="history", of=Categorical(name="item", rows=5000), length=12),
        Categorical(name="user", rows=1000),
        Label(name="click"),
    )
)


@chz.chz
class Toy(SourceConfig):
    rows: int = 300

    def make(self):
        rng = np.random.default_rng(0)
        length = rng.integers(0, 13, self.rows)
        values = 2 + np.arange(self.rows * 12).reshape(-1, 12)
        history = np.where(np.arange(12) < length[:, None], values, 0)
        columns = {"history": history, "history/length": length, "user": np.arange(self.rows), "click": length % 2}
        return InMemory(columns, features=FEATURES)


def histories(source):
    rows = source.take(np.arange(len(source)))
    return [list(h[:n]) for h, n in zip(rows["history"], rows["history/length"], strict=True)]


def test_windows_cover_each_history_from_its_end():
    plain, cut = Toy().make(), Windows(source=Toy(), length=5, stride=3).make()
    found: dict[int, list] = {}
    for user, part in zip(cut.take(np.arange(len(cut)))["user"], histories(cut), strict=True):
        found.setdefault(int(user), []).append(part)
    for user, whole in enumerate(histories(plain)):
        parts = found[user]
        assert parts[0] == whole[-5:]
        assert sorted({i for part in parts for i in part}) == whole
        for newer, older in itertools.pairwise(parts):
            assert newer[0] == older[0] + 3 or older[0] == whole[0]
    assert cut.features["history"].length == 5 and cut[0]["history"].shape == (5,)


def test_packing_loses_nothing_and_wastes_little():
    plain, packed = Toy().make(), Packed(source=Toy(), length=16).make()
    rows = packed.take(np.arange(len(packed)))
    back = []
    for values, segments, positions in zip(
        rows["history"], rows["history/segment"], rows["history/position"], strict=True
    ):
        for segment in range(1, segments.max() + 1):
            back.append(list(values[segments == segment]))
            assert positions[segments == segment].tolist() == list(range(len(back[-1])))
        assert (values[segments == 0] == 0).all()
    assert sorted(back) == sorted(h for h in histories(plain) if h)
    assert rows["history/length"].mean() > 0.9 * 16
    for name, (shape, dtype) in packed.features.arrays().items():
        assert rows[name].shape[1:] == shape and rows[name].dtype == dtype
    with pytest.raises(UserError, match="at most 8"):
        Packed(source=Toy(), length=8).make()


def test_pack_never_overfills():
    lengths = np.random.default_rng(0).integers(1, 33, 5000)
    bins = pack(lengths, width=32)
    assert np.bincount(bins, weights=lengths).max() <= 32
    assert len(np.unique(bins)) == bins.max() + 1 < 1.05 * lengths.sum() / 32


def test_buckets_hold_like_lengths_and_every_row_once():
    loader = Loader(batch_size=20, epochs=2, buckets=Buckets(widths=(4, 8), window=5), prefetch=0)
    batches = list(loader.open(Toy().make()))
    users = np.concatenate([b["user"] for b in batches])
    assert sorted(users) == sorted([*range(300)] * 2)
    widths = {b["history"].shape[1] for b in batches}
    assert widths == {4, 8, 12}
    for batch in batches:
        longest = batch["history/length"].max()
        assert longest <= batch["history"].shape[1]
        assert longest > {4: 0, 8: 4, 12: 8}[batch["history"].shape[1]]
    resumed = loader.open(Toy().make())
    resumed.set_state({"batch": 7})
    assert np.array_equal(next(resumed)["user"], batches[7]["user"])
    parts = [loader.open(Toy().make(), process_index=i, process_count=2) for i in range(2)]
    for whole in batches:
        halves = [next(part)["history"] for part in parts]
        assert np.array_equal(np.concatenate(halves), whole["history"])


def of_several(rows=300):
    """A click log: histories of items and of their categories side by side, and another of its own length."""
    rng = np.random.default_rng(0)
    features = Features(
        all=(
            Sequence(name="history", of=Categorical(name="item", rows=5000), length=12),
            Sequence(name="history_category", of=Categorical(name="category", rows=9), length=12),
            Sequence(name="searches", of=Categorical(name="query", rows=9), length=12),
            Sequence(name="recent", of=Categorical(name="item", rows=5000), length=3),
            Label(name="click"),
        )
    )
    length = rng.integers(0, 13, rows)
    own = rng.integers(0, 13, rows)
    columns = {"click": length % 2, "history/length": length, "history_category/length": length}
    columns |= {"searches/length": own, "recent/length": np.minimum(length, 3)}
    for f in features:
        columns[f.name] = rng.integers(2, 9, (rows, f.max_len)) * (
            np.arange(f.max_len) < columns[f"{f.name}/length"][:, None]
        )
    return InMemory(columns, features=features)


def test_buckets_cut_all_histories_of_one_length_and_lose_nothing():
    loader = Loader(batch_size=20, epochs=1, buckets=Buckets(widths=(4, 8), window=5), prefetch=0)
    names = ("history", "history_category", "searches")
    source, kept = of_several(), dict.fromkeys(names, 0)
    for batch in loader.open(source):
        assert len({batch[name].shape[1] for name in names}) == 1
        assert batch["recent"].shape[1] == 3
        for name in names:
            assert batch[f"{name}/length"].max() <= batch[name].shape[1]
            kept[name] += batch[name].sum()
    rows = source.take(np.arange(len(source)))
    assert kept == {name: rows[name].sum() for name in names}


def test_buckets_by_what_is_no_sequence_are_refused():
    with pytest.raises(UserError, match="'click' is label, not a sequence"):
        Loader(buckets=Buckets(sequence="click", widths=(4,))).open(of_several())
