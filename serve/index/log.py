"""Updates since a snapshot, in the order they were made: a killed process loses none that it had acknowledged.

A file `updates-<lineage>-<number>.log` begins with that update of an index of that lineage: an index that is built anew
into the folder has another, so that it does not take these updates for its own. A record is a header (mark, number,
length, checksum of the body, checksum of the header) and a body, an Arrow stream. A record that is cut short at the end
of the last file was never acknowledged and is dropped; anything else that does not fit is damage and is refused.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from data.errors import UserError

MARK = b"ADL1"
BODY = struct.Struct("<4sQII")
CHECK = struct.Struct("<I")
HEADER = BODY.size + CHECK.size


class Log:
    """Appends to the last file of `folder`. `sync` waits for the disk, so that a power cut loses nothing either."""

    def __init__(self, folder: Path, *, lineage: str, first: int, sync: bool = False):
        self._folder, self._lineage, self._sync = folder, lineage, sync
        files = segments(folder, lineage=lineage)
        path = files[-1] if files else _path(folder, lineage, first)
        whole = sum(len(raw) for _, raw in _records(path, last=True)) if files else 0
        self._file = path.open("ab", buffering=0)
        self._file.truncate(whole)

    def append(self, number: int, table: pa.Table) -> None:
        body = _packed(table)
        head = BODY.pack(MARK, number, len(body), zlib.crc32(body))
        raw = head + CHECK.pack(zlib.crc32(head)) + body
        start = self._file.tell()
        try:
            # Unbuffered: what was written survives the process. A short write means a full disk.
            if self._file.write(raw) != len(raw):
                raise OSError(28, "no space left for the update", self._file.name)
            if self._sync:
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            raise

    def rotate(self, *, first: int) -> None:
        """Update `first` and later ones go to a new file."""
        path = _path(self._folder, self._lineage, first)
        if path != Path(self._file.name):
            self._file.close()
            self._file = path.open("ab", buffering=0)

    def forget(self, *, until: int) -> None:
        """Removes files that hold nothing beyond update `until`."""
        files = segments(self._folder, lineage=self._lineage)
        for path, later in pairwise(files):
            if _first(later) <= until + 1:
                path.unlink()

    def close(self) -> None:
        self._file.close()


def replayed(folder: Path, *, lineage: str, after: int) -> Iterator[tuple[int, pa.Table]]:
    """Updates after number `after`, in order, without a gap."""
    files, expected = segments(folder, lineage=lineage), after + 1
    for path in files:
        for number, raw in _records(path, last=path == files[-1]):
            if number < expected:
                continue
            if number > expected:
                raise UserError(f"{path} goes on with update {number}, but {expected} is missing; restore the snapshot")
            yield number, pa.ipc.open_stream(raw[HEADER:]).read_all()
            expected += 1


def segments(folder: Path, *, lineage: str) -> list[Path]:
    return sorted(folder.glob(f"updates-{lineage}-*.log"))


def foreign(folder: Path, *, lineage: str) -> list[Path]:
    """Logs of indexes that stood in the folder before."""
    return [path for path in folder.glob("updates-*.log") if path.name.split("-")[1] != lineage]


def _records(path: Path, *, last: bool) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        at = 0
        while head := file.read(HEADER):
            body = b""
            if len(head) == HEADER:
                mark, number, length, wanted = BODY.unpack(head[: BODY.size])
                if mark != MARK or CHECK.unpack(head[BODY.size :])[0] != zlib.crc32(head[: BODY.size]):
                    raise UserError(f"{path} is damaged at byte {at}; restore the index from a copy, or remove the log")
                body = file.read(length)
            if len(head) < HEADER or len(body) < length:
                if last:
                    return
                raise UserError(f"{path} ends within an update, at byte {at}; restore the index from a copy")
            if zlib.crc32(body) != wanted:
                raise UserError(f"{path} is damaged at byte {at}; restore the index from a copy, or remove the log")
            yield number, head + body
            at += HEADER + length


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _path(folder: Path, lineage: str, first: int) -> Path:
    return folder / f"updates-{lineage}-{first:020d}.log"


def _first(path: Path) -> int:
    return int(path.stem.split("-")[-1])
