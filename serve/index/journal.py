"""The folder of a live index as one process has it: for reading, or for writing with the lock and the log."""

from collections.abc import Iterator
from pathlib import Path

from data.errors import UserError
from serve.files import Lock
from serve.index.log import Log, replayed
from serve.index.updates import Update


class Journal:
    def __init__(self, folder: Path, *, write: bool, sync: bool = False):
        self.folder, self.writes, self._sync = folder, write, sync
        self._lock = Lock(folder / "lock") if write else None
        self._log: Log | None = None

    def updates(self, *, after: int) -> Iterator[Update]:
        return (Update.of_record(table) for _, table in replayed(self.folder, after=after))

    def begin(self, *, first: int) -> None:
        """Update `first` and later ones stand in a file of their own, so that those before can be forgotten."""
        if not self.writes:
            return
        if self._log is None:
            self._log = Log(self.folder, first=first, sync=self._sync)
        else:
            self._log.rotate(first=first)

    def append(self, number: int, update: Update) -> None:
        if self._log is None:
            raise UserError(f"{self.folder} is not open for updates; open_index(path, write=True) takes them")
        if len(update.ids):
            self._log.append(number, update.record())

    def forget(self, *, until: int) -> None:
        if self._log is not None:
            self._log.forget(until=until)

    def close(self) -> None:
        self.writes = False
        if self._log is not None:
            self._log.close()
        if self._lock is not None:
            self._lock.release()
        self._log = self._lock = None
