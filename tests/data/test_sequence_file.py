"""Sequence files read as they are."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.builders.base import Built, build
from data.errors import TooManyRejects, UserError
from data.sequence_file import SequenceFile

FIXTURE = Path(__file__).parent / "builders" / "fixtures" / "sequences"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sequences.txt").write_text("7 1 3 2 5\n8 4 4 1\n9 2 6\n")
    return tmp_path


def rows(source):
    return [
        (int(source.columns["user"][k]), source.columns["history"][k, :n].tolist(), int(source.columns["target"][k]))
        for k, n in enumerate(source.columns["history/length"])
    ]


def test_targets_stand_one_and_two_from_the_end(folder):
    train, valid = SequenceFile(path=str(folder)).make(), SequenceFile(path=str(folder), split="valid").make()
    assert rows(train) == [(7, [2, 4], 3), (8, [5], 5)]
    assert rows(valid) == [(7, [2, 4, 3], 6), (8, [5, 5], 2), (9, [3], 7)]
    assert train.features["history"].size == 6 + 2


def test_long_histories_keep_the_newest(folder):
    source = SequenceFile(path=str(folder), split="valid", max_len=2).make()
    assert rows(source)[0] == (7, [4, 3], 6)


def test_a_file_with_the_test_items(folder):
    parts = {s: rows(SequenceFile(path=str(folder), split=s, whole=True).make()) for s in ("train", "valid", "test")}
    assert parts == {
        "train": [(7, [2], 4)],
        "valid": [(7, [2, 4], 3), (8, [5], 5)],
        "test": [(7, [2, 4, 3], 6), (8, [5, 5], 2), (9, [3], 7)],
    }
    with pytest.raises(UserError, match="whole=True"):
        SequenceFile(path=str(folder), split="test").make()


def test_gzip_reads_the_same_and_truncation_is_named(folder, tmp_path):
    plain = rows(SequenceFile(path=str(folder)).make())
    data = gzip.compress((folder / "sequences.txt").read_bytes())
    (folder / "sequences.txt").unlink()
    (folder / "sequences.txt.gz").write_bytes(data)
    assert rows(SequenceFile(path=str(folder)).make()) == plain
    (folder / "sequences.txt.gz").write_bytes(data[:-9])
    with pytest.raises(UserError, match="fetch it again"):
        SequenceFile(path=str(folder)).make()


def test_faulty_lines_stop_a_run_that_does_not_allow_them():
    with pytest.raises(TooManyRejects, match=r"user seen before|not numbers"):
        SequenceFile(path=str(FIXTURE)).make()


def test_the_builder_gives_what_the_file_gives(tmp_path):
    path = build("sequences", manual=FIXTURE, out=tmp_path, max_rejects=0.5)
    for split in ("train", "valid"):
        direct = SequenceFile(path=str(FIXTURE), split=split, max_rejects=0.5).make()
        built = Built(path=str(path), split=split).make()
        assert built.features == direct.features
        for name, column in direct.columns.items():
            np.testing.assert_array_equal(built.columns[name], column, err_msg=name)


def test_a_variable_in_the_path(folder, monkeypatch):
    monkeypatch.setenv("SOME_DATA", str(folder.parent))
    assert len(SequenceFile(path=f"$SOME_DATA/{folder.name}").make()) == 2
    monkeypatch.delenv("SOME_DATA")
    with pytest.raises(UserError, match="SOME_DATA is not set"):
        SequenceFile(path=f"$SOME_DATA/{folder.name}").make()


def test_a_missing_file_names_where_to_get_it(tmp_path):
    shutil.copy(FIXTURE / "items.tsv", tmp_path)
    with pytest.raises(UserError, match=r"sequences.txt: no such file .*; get it from the page of the paper"):
        SequenceFile(path=str(tmp_path)).make()
