"""The folder of a live index as one process has it: for reading, or for writing with the lock and the log."""

from collections.abc import Iterator
from pathlib import Path

from data.errors import UserError
from serve.files import Lock
from serve.index.log import Log, replayed
from serve.index.updates import Update


class Journal:
    """With the folder's lock it is for writing, until `close` gives that up."""

    def __init__(self, folder: Path, *, lineage: str, lock: Lock | None = None, sync: bool = False):
        self.folder, self.lineage, self._lock, self._sync = folder, lineage, lock, sync
        self._log: Log | None = None

    @property
    def writes(self) -> bool:
        return self._lock is not None

    def updates(self, *, after: int) -> Iterator[Update]:
        rows = replayed(self.folder, lineage=self.lineage, after=after)
        return (Update.of_record(table) for _, table in rows)

    def begin(self, *, first: int) -> None:
        """Update `first` and later ones stand in a file of their own, so that those before can be forgotten."""
        if self._log is None:
            self._log = Log(self.folder, lineage=self.lineage, first=first, sync=self._sync)
        else:
            self._log.rotate(first=first)

    def append(self, number: int, update: Update) -> None:
        log = self._open()
        if len(update.ids):
            log.append(number, update.record())

    def forget(self, *, until: int) -> None:
        self._open().forget(until=until)

    def check(self) -> None:
        self._open()

    def _open(self) -> Log:
        if self._log is None:
            raise UserError(f"{self.folder} is not open for updates; open_index(path, write=True) takes them")
        return self._log

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        if self._lock is not None:
            self._lock.release()
        self._log = self._lock = None
