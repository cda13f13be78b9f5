import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label
from data.pipeline import VALID, Loader
from data.sources import InMemory
from data.transforms.base import Transform

FEATURES = Features(all=(Categorical(name="row", rows=1000), Label(name="click")))


@chz.chz
class Noise(Transform):
    def __call__(self, batch, *, rng):
        rows = len(batch["row"])
        noise = rng.random((rows, 2)) + rng.integers(0, batch["row"] + 1)[:, None]
        return {**batch, "noise": noise, "common": np.full(rows, rng.random())}


def source(rows=103, blocks=None):
    made = InMemory({"row": np.arange(rows), "click": np.arange(rows) % 2}, features=FEATURES)
    if blocks is not None:
        made.blocks, made.window = np.asarray(blocks), 40
    return made


def read(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes()


@pytest.mark.parametrize("blocks", [None, [0, 10, 10, 37, 80, 103]])
def test_every_row_once_an_epoch_and_none_dropped(blocks):
    rows = np.concatenate([b["row"] for b in Loader(batch_size=20, epochs=3, prefetch=0).open(source(blocks=blocks))])
    assert len(rows) == 320  # 309 rows in three epochs, filled to whole batches
    for epoch in range(3):
        assert sorted(rows[103 * epoch : 103 * (epoch + 1)]) == list(range(103))
    assert not np.array_equal(rows[:103], np.arange(103))
    assert not np.array_equal(rows[:103], rows[103:206])


def test_block_windows_keep_blocks_together():
    blocks = np.arange(0, 1001, 10)
    made = InMemory({"row": np.arange(1000), "click": np.zeros(1000)}, features=FEATURES)
    made.blocks, made.window = blocks, 100
    first = np.concatenate([b["row"] for b in Loader(batch_size=50, epochs=1, prefetch=0).open(made)])[:100]
    assert len(set(first // 10)) == 10
    assert not np.array_equal(first // 10, np.repeat(first[::10] // 10, 10))


@pytest.mark.parametrize("change", [{"prefetch": 0}, {"threads": 3}, {"prefetch": 1}])
def test_resume_gives_the_same_bytes(change):
    loader = Loader(batch_size=20, transforms=(Noise(),), seed=3)
    whole = read(loader.open(source()), 12)
    first = loader.open(source())
    read(first, 5)
    state = first.get_state()
    assert state == {"batch": 5}
    first.close()
    second = chz.replace(loader, **change).open(source())
    second.set_state(state)
    assert_same(read(second, 7), whole[5:])
    second.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_resume_with_workers_gives_the_same_bytes(workers):
    loader = Loader(batch_size=20, transforms=(Noise(),), seed=3)
    whole = read(loader.open(source()), 9)
    there = chz.replace(loader, workers=workers).open(source())
    there.set_state({"batch": 4})
    assert_same(read(there, 5), whole[4:])
    there.close()


@pytest.mark.parametrize("count", [2, 4, 5])
def test_process_slices_join_to_the_batch_of_one_process(count):
    loader = Loader(batch_size=20, transforms=(Noise(),), seed=3)
    whole = read(loader.open(source()), 8)
    parts = [read(loader.open(source(), process_index=i, process_count=count), 8) for i in range(count)]
    joined = [{name: np.concatenate([p[name] for p in same]) for name in same[0]} for same in zip(*parts, strict=True)]
    assert_same(joined, whole)


def test_once_pads_and_marks():
    batches = list(Loader(batch_size=40).once(source()))
    assert [b[VALID].sum() for b in batches] == [40, 40, 23]
    assert all(len(b["row"]) == 40 for b in batches)
    assert np.array_equal(np.concatenate([b["row"][b[VALID]] for b in batches]), np.arange(103))
    parts = [list(Loader(batch_size=40).once(source(), process_index=i, process_count=4)) for i in range(4)]
    assert sum(int(b[VALID].sum()) for part in parts for b in part) == 103


def test_bad_sizes_are_named():
    with pytest.raises(UserError, match="3 processes"):
        Loader(batch_size=20).open(source(), process_count=3)
    with pytest.raises(UserError, match="no rows"):
        Loader(batch_size=20).open(source(0))
    assert list(Loader(batch_size=20).once(source(0))) == []
    with pytest.raises(ValueError, match="batch_size"):
        Loader(batch_size=0)


def test_draws_must_be_one_per_row():
    @chz.chz
    class Shared(Transform):
        def __call__(self, batch, *, rng):
            return {**batch, "x": rng.random(3)}

    with pytest.raises(ValueError, match="one entry per row"):
        next(Loader(batch_size=20, transforms=(Shared(),), prefetch=0).open(source()))
