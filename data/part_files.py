"""Files that pieces of a long work leave in a folder until all are done, so that a killed run goes on where it stopped.

A file is there whole or not at all. The folder knows what it is made from: of anything else it is begun anew.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.errors import UserError

ACCOUNT = "made_from.json"


class PartFiles:
    """`made_from` names equal work: files with their times, options."""

    def __init__(self, folder: Path, *, made_from: Mapping[str, Any]):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise UserError(f"another process works in {folder}: wait for it") from error
        text, account = json.dumps(made_from, sort_keys=True), folder / ACCOUNT
        if not account.is_file() or account.read_text() != text:
            for path in folder.iterdir():
                if path.name != "lock":
                    path.unlink()
            account.write_text(text)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, which writes files while the command holds the lock."""
        return {"folder": self.folder}

    def __contains__(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def path(self, name: str) -> Path:
        return self.folder / name

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Where to write what becomes the file `name` when the block ends well."""
        part = self.folder / f"{name}.part{os.getpid()}"
        yield part
        part.replace(self.folder / name)

    def remove(self) -> None:
        """The work is done."""
        shutil.rmtree(self.folder)
        self._lock.close()

    def close(self) -> None:
        """Leaves the files to the next run."""
        self._lock.close()


def stamp(path: Path) -> list[int]:
    """Size and time of a file: another one is not the file that parts were made from."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
