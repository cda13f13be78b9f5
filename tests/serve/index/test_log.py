import os

import pyarrow as pa
import pytest

from data.errors import UserError
from serve.index.log import Log, replayed, segments


def table(number):
    return pa.table({"id": list(range(number))})


def numbers(folder, *, after=0):
    found = [(number, len(rows)) for number, rows in replayed(folder, lineage="l", after=after)]
    assert all(number == rows for number, rows in found)
    return [number for number, _ in found]


def written(folder, *, first=1, count=3):
    log = Log(folder, lineage="l", first=first)
    for number in range(first, first + count):
        log.append(number, table(number))
    log.close()
    return segments(folder, lineage="l")[-1]


def test_what_was_appended_is_made_again_wherever_a_kill_cut_the_next_record(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    log = Log(tmp_path, lineage="l", first=4)
    log.append(4, table(4))
    log.close()
    longer = path.read_bytes()
    assert longer[: len(whole)] == whole
    for size in range(len(whole), len(longer)):
        path.write_bytes(longer[:size])
        assert numbers(tmp_path) == [1, 2, 3]
    path.write_bytes(longer[:-1])
    log = Log(tmp_path, lineage="l", first=4)  # cuts off what was never acknowledged
    assert path.read_bytes() == whole
    log.append(4, table(4))
    log.close()
    assert path.read_bytes() == longer
    assert numbers(tmp_path, after=2) == [3, 4]


def test_damage_is_not_taken_for_the_end(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 5):
        raw = bytearray(whole)
        raw[at] ^= 0x40
        path.write_bytes(raw)
        with pytest.raises(UserError, match="is damaged at byte"):
            numbers(tmp_path)


def test_files_before_a_snapshot_are_forgotten_and_no_other(tmp_path):
    log = Log(tmp_path, lineage="l", first=1)
    log.append(1, table(1))
    log.append(2, table(2))
    log.rotate(first=3)
    log.rotate(first=3)
    log.append(3, table(3))
    log.rotate(first=4)
    assert len(segments(tmp_path, lineage="l")) == 3
    log.forget(until=1)
    assert numbers(tmp_path) == [1, 2, 3]
    log.forget(until=2)
    assert len(segments(tmp_path, lineage="l")) == 2
    with pytest.raises(UserError, match=r"goes on with update 3, but 2 is missing"):
        numbers(tmp_path, after=1)
    assert numbers(tmp_path, after=2) == [3]
    log.append(4, table(4))
    log.close()
    assert numbers(tmp_path, after=2) == [3, 4]


def test_a_file_cut_short_before_the_last_is_damage(tmp_path):
    first = written(tmp_path)
    log = Log(tmp_path, lineage="l", first=4)
    log.rotate(first=4)
    log.append(4, table(4))
    log.close()
    os.truncate(first, first.stat().st_size - 1)
    with pytest.raises(UserError, match="ends within an update"):
        numbers(tmp_path)


def test_an_update_that_the_disk_has_no_room_for_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    log = Log(tmp_path, lineage="l", first=1, sync=True)
    log.append(1, table(1))
    before = segments(tmp_path, lineage="l")[0].read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("serve.index.log.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.append(2, table(2))
    assert segments(tmp_path, lineage="l")[0].read_bytes() == before
    log.append(2, table(2))
    log.close()
    assert numbers(tmp_path) == [1, 2]
