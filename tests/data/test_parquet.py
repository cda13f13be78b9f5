import multiprocessing
import os
import signal
import time

import chz
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import TooManyRejects, UserError
from data.features import Categorical, Features, Label, Numeric, Sequence
from data.mapped import Mapped
from data.parquet import Parquet
from data.pipeline import Loader
from data.sources import Source
from data.vocabulary import Vocabularies, build

FEATURES = Features(
    all=(
        Categorical(name="ad", rows=1000),
        Sequence(name="seen", of=Categorical(name="ad", rows=1000), length=4),
        Numeric(name="price"),
        Label(name="click"),
    )
)


def table(start, stop):
    rows = np.arange(start, stop)
    return pa.table(
        {
            "ad": rows % 1000,
            "seen": [list(range(int(r) % 7)) for r in rows],
            "price": rows / 10,
            "click": rows % 2,
            "unused": ["x"] * len(rows),
        }
    )


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "logs"
    place.mkdir()
    pq.write_table(table(0, 700), place / "a.parquet", row_group_size=100)
    pq.write_table(table(700, 1000), place / "b.parquet", row_group_size=64)
    return place


def mapped(folder, tmp_path, **change):
    return Parquet(path=str(folder), features=FEATURES, memory=0.0, cache=str(tmp_path / "cache"), **change)


def test_memory_and_cache_give_the_same_rows_in_order(folder, tmp_path):
    memory = Parquet(path=str(folder), features=FEATURES).make()
    disk = mapped(folder, tmp_path).make()
    assert (
        not isinstance(memory, Mapped)
        and isinstance(memory, Source)
        and isinstance(disk, Mapped)
        and isinstance(disk, Source)
    )
    assert len(memory) == len(disk) == 1000
    at = np.array([999, 0, 700, 6])
    for name, array in memory.take(at).items():
        assert np.array_equal(array, disk.take(at)[name]) and array.dtype == disk.take(at)[name].dtype
    assert memory.take(at)["price"].tolist() == np.float32([99.9, 0, 70, 0.6]).tolist()
    assert memory[6]["seen"].tolist() == [2, 3, 4, 5]


def test_a_file_a_glob_and_nothing(folder):
    assert len(Parquet(path=str(folder / "b.parquet"), features=FEATURES).make()) == 300
    assert len(Parquet(path=str(folder / "[a]*.parquet"), features=FEATURES).make()) == 700
    with pytest.raises(UserError, match="no Parquet file"):
        Parquet(path=str(folder / "c*"), features=FEATURES).make()


def test_cache_is_used_again_and_follows_content_and_declaration(folder, tmp_path):
    mapped(folder, tmp_path).make()
    kept = next((tmp_path / "cache" / "parquet").iterdir())
    stamp = (kept / "meta.json").stat().st_mtime_ns
    mapped(folder, tmp_path).make()
    assert (kept / "meta.json").stat().st_mtime_ns == stamp
    chz.replace(mapped(folder, tmp_path), features=FEATURES.without("price")).make()
    pq.write_table(table(0, 300), folder / "b.parquet")
    assert len(mapped(folder, tmp_path).make()) == 1000
    assert len(list((tmp_path / "cache" / "parquet").iterdir())) == 3


def test_windows_shuffle_what_is_beyond_memory(folder, tmp_path):
    source = mapped(folder, tmp_path, window=128).make()
    rows = np.concatenate([b["price"] for b in Loader(batch_size=100, epochs=1, prefetch=0).open(source)])
    assert sorted(np.round(rows * 10).astype(int)) == list(range(1000))


def slow_build(path, cache):
    from data import encode, parquet

    def slowly(*given, **named):
        time.sleep(0.2)
        return encode.encode(*given, **named)

    parquet.encode = slowly
    Parquet(path=path, features=FEATURES, memory=0.0, cache=cache).make()


@pytest.mark.slow
def test_a_killed_build_leaves_no_cache(folder, tmp_path):
    cache = tmp_path / "cache"
    process = multiprocessing.get_context("spawn").Process(target=slow_build, args=(str(folder), str(cache)))
    process.start()
    while not list(cache.glob("parquet/*.part*/*.bin")):
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not [f for f in (cache / "parquet").iterdir() if ".part" not in f.name]
    assert len(mapped(folder, tmp_path).make()) == 1000


def test_rejects_are_counted_written_and_stop_the_run(folder, tmp_path):
    bad = table(0, 500).set_column(3, "click", pa.array([None, None, *range(498)], pa.int64()))
    pq.write_table(bad.slice(0, 4), folder / "c.parquet")
    config = Parquet(path=str(folder), features=FEATURES, rejects=str(tmp_path / "rejects.jsonl"))
    for made in (config, chz.replace(config, memory=0.0, cache=str(tmp_path / "cache"))):
        for _ in range(2):
            source = made.make()
            assert len(source) == 1002 and source.rejects.count == 2
            assert source.rejects.counts == {("click", "null label"): 2}
            assert source.rejects.notes["seen", "longer than 4, oldest dropped"] == 285
            assert len((tmp_path / "rejects.jsonl").read_text().splitlines()) == 2
    with pytest.raises(TooManyRejects, match=r"c\.parquet row 0: click: null label"):
        chz.replace(config, max_rejects=0.001).make()


def test_schema_that_changes_names_shard_and_column(folder):
    text = table(0, 10).set_column(0, "ad", pa.array(["a"] * 10))
    pq.write_table(text, folder / "c.parquet")
    with pytest.raises(UserError, match=r"c\.parquet: column 'ad' is string, but .*a\.parquet has int64"):
        Parquet(path=str(folder), features=FEATURES).make()
    pq.write_table(
        table(0, 10).drop_columns("price").append_column("prise", pa.array([1.0] * 10)), folder / "c.parquet"
    )
    with pytest.raises(UserError, match=r"c\.parquet: no column 'price'; did you mean 'prise'"):
        Parquet(path=str(folder), features=FEATURES).make()
    pq.write_table(table(0, 10).set_column(2, "price", pa.nulls(10)), folder / "c.parquet")
    with pytest.raises(TooManyRejects, match="price: null"):
        Parquet(path=str(folder), features=FEATURES, max_rejects=0.005).make()


def test_damaged_and_empty_files(folder):
    whole = (folder / "a.parquet").read_bytes()
    (folder / "c.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"c\.parquet: not readable as Parquet"):
        Parquet(path=str(folder), features=FEATURES).make()
    pq.write_table(table(0, 0).cast(table(0, 1).schema), folder / "c.parquet")
    source = Parquet(path=str(folder), features=FEATURES).make()
    assert len(source) == 1000
    assert source.rejects.notes[str(folder / "c.parquet"), "file without rows"] == 1


def test_vocabulary_is_built_once_over_shared_columns_with_a_floor(tmp_path):
    words = pa.table({"w": ["a", "b", "a", None, "", "c"], "past": [["d", "a"], [], None, ["d"], ["b"], ["e"]]})
    pq.write_table(words, tmp_path / "x.parquet")
    inner = Categorical(name="w", rows=10, encode="vocabulary")
    features = Features(all=(inner, Sequence(name="past", of=inner, length=2)))
    built = build(str(tmp_path / "x.parquet"), features=features, folder=tmp_path / "v", floor=2)
    assert dict(zip(built["w"].values.to_pylist(), built["w"].counts, strict=True)) == {"a": 3, "b": 2, "d": 2}
    loaded = Vocabularies(tmp_path / "v")
    assert list(loaded) == ["w"] and np.array_equal(loaded["w"].hashes, built["w"].hashes)
    first = (tmp_path / "v" / "w.vocab.parquet").read_bytes()
    pq.write_table(words.take(pa.array([5, 4, 3, 2, 1, 0])), tmp_path / "x.parquet")
    build(str(tmp_path / "x.parquet"), features=features, folder=tmp_path / "v", floor=2)
    assert (tmp_path / "v" / "w.vocab.parquet").read_bytes() == first
    source = Parquet(path=str(tmp_path / "x.parquet"), features=features, vocabularies=str(tmp_path / "v")).make()
    assert source.take(np.arange(6))["w"].tolist()[1:3] == [0, 0] and source.columns["w"][0] == 1
    assert source.rejects.notes["w", "unknown, became id 1"] == 1
    top = build(str(tmp_path / "x.parquet"), features=features, most=1)
    assert top["w"].values.to_pylist() == ["a"]


def test_large_vocabulary_lookup_is_exact():
    from data.vocabulary import Vocabulary

    known = np.arange(0, 60_000, 3)
    vocabulary = Vocabulary(pa.array(known), np.ones(len(known)), name="n")
    asked = pa.array(np.arange(60_000))
    ids = vocabulary.lookup(asked)
    assert (ids[known] >= 2).all() and len(np.unique(ids[known])) == len(known)
    assert (np.delete(ids, known) == 1).all()
    assert np.array_equal(vocabulary.value(ids[known]).to_numpy(), known)


def test_arrow_files_read_as_parquet_does(folder, tmp_path):
    place = tmp_path / "arrow"
    place.mkdir()
    for name, start, stop in (("a.arrow", 0, 700), ("b.feather", 700, 1000)):
        with pa.ipc.new_file(place / name, table(0, 700).schema) as writer:
            writer.write_table(table(start, stop), max_chunksize=128)
    wanted = Parquet(path=str(folder), features=FEATURES).make()
    found = Parquet(path=str(place), features=FEATURES).make()
    rows = np.arange(1000)
    assert len(found) == 1000
    for name, column in wanted.take(rows).items():
        np.testing.assert_array_equal(found.take(rows)[name], column, err_msg=name)


def test_an_arrow_file_that_is_cut_short_is_named(tmp_path):
    path = tmp_path / "cut.arrow"
    with pa.ipc.new_file(path, table(0, 500).schema) as writer:
        writer.write_table(table(0, 500))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cut\.arrow: not readable as Arrow"):
        Parquet(path=str(path), features=FEATURES).make()
