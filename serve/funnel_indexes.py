"""The indexes of a funnel, each opened once, whichever channels search it.

With `write` those that live take updates, which all channels see at once. A folder is written by one alone, so that the
funnel that takes another's place is handed on what that one has open (`before`).
"""

from pathlib import Path

from serve.index.base import Index
from serve.index.live import LiveIndex
from serve.index.open import is_live, open_index

Key = tuple[str, int]
"""Path and inode: another folder in the same place is another index."""


class Indexes:
    def __init__(self, folder: Path, *, write: bool = False, before: "Indexes | None" = None):
        self._folder, self._write = folder, write
        self._held = {} if before is None else {k: i for k, i in before._opened.items() if before._writes(i)}
        self._opened: dict[Key, Index] = {}

    def open(self, name: str) -> Index:
        """The index at `name` within the folder."""
        path = self._folder / name
        key = _key(path)
        if key not in self._opened:
            write = self._write and is_live(path)
            held = self._held.get(key) if write else None
            self._opened[key] = open_index(path, write=write) if held is None else held
        return self._opened[key]

    def at(self, path: Path) -> Index | None:
        """The one that lies at `path`, if it is open here for updates."""
        found = self._opened.get(_key(path))
        return found if found is not None and self._writes(found) else None

    def all(self) -> list[Index]:
        return list(self._opened.values())

    def close(self) -> None:
        """Lets go of the folders that were opened here and not handed on."""
        for key, index in self._opened.items():
            if isinstance(index, LiveIndex) and self._held.get(key) is not index:
                index.close()

    def _writes(self, index: Index) -> bool:
        return self._write and isinstance(index, LiveIndex)


def _key(path: Path) -> Key:
    return str(path.resolve()), path.stat().st_ino if path.is_dir() else 0
