"""An output written in parts, so that a killed run goes on where it stopped and ends with the same bytes.

Beside `y.parquet` stands the folder `y.parquet.parts` until all is done: progress.json says what is being
written, part-00012.arrow and part-00012.rejects.jsonl hold span 12 and appear only when it is finished.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import UserError
from data.manifest import read_json, write_json

MARK = b"adloom.made_from"
PROGRESS = "progress.json"

Reject = Mapping[str, Any]


class Parts:
    def __init__(self, output: Path, *, made_from: Mapping[str, Any], schema: pa.Schema, resume: bool):
        self.made_from = dict(made_from)
        self.output, self.rejects_path = output, output.with_name(output.name + ".rejects.jsonl")
        self.folder = _folder(output)
        self.mark = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
        self.schema = schema.with_metadata(
            {MARK: self.mark.encode(), b"adloom.model": str(made_from["model"]).encode()}
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        self._begin(resume=resume)

    @staticmethod
    def begun(output: Path, *, made_from: Mapping[str, Any]) -> bool:
        """Whether a killed run has left parts of the very same."""
        path = _folder(output) / PROGRESS
        return path.is_file() and not differing(read_json(path), made_from)

    def finished(self) -> bool:
        """Whether the output stands there already, made from the very same."""
        if not self.output.is_file():
            return False
        try:
            metadata = pq.read_schema(self.output).metadata or {}
        except (pa.ArrowInvalid, OSError):
            return False
        return metadata.get(MARK) == self.mark.encode()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker of this run, which writes parts while the run itself holds the lock."""
        return {**self.__dict__, "_lock": None}

    def done(self, index: int) -> bool:
        """Whether the part is there and of this run: a straggler on another machine may have left one of another."""
        path = self._part(index)
        if not path.is_file():
            return False
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as part:
            return bool((part.schema.metadata or {}).get(MARK) == self.mark.encode())

    def rejected(self, index: int) -> list[dict[str, Any]]:
        """The rejects of a finished span."""
        return [json.loads(line) for line in self._rejects(index).read_text().splitlines()]

    def write(self, index: int) -> "PartWriter":
        return PartWriter(self._part(index), rejects=self._rejects(index), schema=self.schema)

    def join(self, count: int, *, group_rows: int) -> None:
        """Puts output and rejects file in place and drops the parts."""
        scratch = self.output.with_name(f".{self.output.name}.part")
        batches = (batch for index in range(count) for batch in self.read(index))
        with pq.ParquetWriter(scratch, self.schema, compression="zstd") as writer:
            for table in _grouped(batches, schema=self.schema, rows=group_rows):
                writer.write_table(table, row_group_size=group_rows)
        self.put_rejects(count)
        scratch.replace(self.output)
        self.drop()

    def put_rejects(self, count: int, *, more: Iterable[Reject] = ()) -> None:
        """Puts the rejects file in place, with what the whole has shown beside its parts."""
        rejects = self.rejects_path.with_name(f".{self.rejects_path.name}.part")
        with rejects.open("wb") as file:
            for index in range(count):
                with self._rejects(index).open("rb") as part:
                    shutil.copyfileobj(part, file)
            for reject in more:
                file.write(_line(reject).encode())
        if rejects.stat().st_size:
            rejects.replace(self.rejects_path)
        else:
            rejects.unlink()
            self.rejects_path.unlink(missing_ok=True)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        """The batches of a finished span."""
        with pa.OSFile(str(self._part(index))) as file, pa.ipc.open_file(file) as part:
            for i in range(part.num_record_batches):
                yield part.get_batch(i)

    def drop(self) -> None:
        shutil.rmtree(self.folder)
        self.close()

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _begin(self, *, resume: bool) -> None:
        path = self.folder / PROGRESS
        if resume and path.is_file():
            changed = differing(read_json(path), self.made_from)
            if changed:
                self.close()
                raise UserError(
                    f"{self.folder} was begun with other {', '.join(changed)}; run without --resume to start again"
                )
            return
        for old in self.folder.iterdir():
            if old.name != "lock":
                old.unlink()
        write_json(path, self.made_from)

    def _take_lock(self) -> int | None:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(f"{self.output} is being written by another process; wait for it or name another") from None
        return descriptor

    def _part(self, index: int) -> Path:
        return self.folder / f"part-{index:05d}.arrow"

    def _rejects(self, index: int) -> Path:
        return self.folder / f"part-{index:05d}.rejects.jsonl"


class PartWriter:
    """One span: appears under its name when closed well."""

    def __init__(self, path: Path, *, rejects: Path, schema: pa.Schema):
        self._path, self._rejects_path = path, rejects
        own = f".{socket.gethostname()}-{os.getpid()}.tmp"  # another machine may be at the same span
        self._scratch = path.with_suffix(own)
        self._rejects_scratch = rejects.with_suffix(own)
        self._rejects = self._rejects_scratch.open("w")
        self._arrow = pa.ipc.new_file(str(self._scratch), schema)

    def add(self, batch: pa.RecordBatch, *, rejects: Sequence[Reject]) -> None:
        self._arrow.write_batch(batch)
        for reject in rejects:
            self._rejects.write(_line(reject))

    def abandon(self) -> None:
        self._arrow.close()
        self._rejects.close()

    def close(self) -> None:
        self.abandon()
        self._rejects_scratch.replace(self._rejects_path)
        self._scratch.replace(self._path)  # last: its name says that the span is done


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two accounts of what a run is made from."""
    before, now = (json.loads(json.dumps(account)) for account in (before, now))
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _folder(output: Path) -> Path:
    return output.with_name(output.name + ".parts")


def _line(reject: Reject) -> str:
    return json.dumps(reject, ensure_ascii=False) + "\n"


def _grouped(batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Tables of at least `rows` rows but for the last; an empty one where there is nothing."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= rows:
            yield pa.Table.from_batches(held, schema=schema)
            held = []
    if held:
        yield pa.Table.from_batches(held, schema=schema)
