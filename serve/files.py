"""Folders that are there whole or not at all."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data.errors import UserError


@contextlib.contextmanager
def staged(parent: Path) -> Iterator[Path]:
    """A fresh folder beside the final one; what `settle` has not taken when the block ends is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".staged-", dir=parent))
    work.chmod(0o755)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def settle(work: Path, path: Path) -> None:
    """Makes the staged folder `path`, in place of what stood there."""
    for file in work.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes for the owner's eyes alone
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=path.parent)) / path.name
        path.rename(old)
        work.rename(path)
        shutil.rmtree(old.parent)
    else:
        work.rename(path)


class Lock:
    """Keeps other processes out while this one lives, however it ends."""

    def __init__(self, path: Path):
        self._file = path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UserError(f"{path.parent} is in use by another process; send it the updates, or stop it") from error

    def release(self) -> None:
        self._file.close()
