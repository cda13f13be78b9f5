"""All that is known of each user of a run's data: the events to recommend after, in the ids of that data."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.errors import UserError
from data.features import FIRST
from data.packing import Packed, Windows
from data.prefixes import Prefixes
from data.sequence_file import SequenceFile, read_lines
from data.sources import SourceConfig
from data.splits import Split, column
from data.whole_histories import popular_first, sequences_of

if TYPE_CHECKING:  # an artefact is served without modules/
    from serve.trained import Trained


@dataclass(frozen=True)
class Histories:
    """Events end to end, oldest first, by the ids that a model sees; `shift` less is the id of the data."""

    users: np.ndarray
    items: np.ndarray
    ends: np.ndarray
    shift: int

    def __len__(self) -> int:
        return len(self.users)

    def of(self, row: int) -> np.ndarray:
        return self.items[self.ends[row] : self.ends[row + 1]]

    @cached_property
    def rows(self) -> dict[int, int]:
        return {user: row for row, user in enumerate(self.users.tolist())}

    def order(self, size: int) -> np.ndarray:
        """All ids, as ties are broken."""
        return popular_first(self.items, size=size)

    def newest(self, rows: np.ndarray, *, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The last `length` events of each row, padded at the end, and how many they are."""
        start, end = self.ends[rows], self.ends[rows + 1]
        first = np.maximum(start, end - length)
        count = (end - first).astype(np.int32)
        at = first[:, None] + np.arange(length)
        real = np.arange(length) < count[:, None]
        return np.where(real, self.items[np.minimum(at, len(self.items) - 1)], 0).astype(np.int32), count


def of_folder(path: Path) -> Histories:
    """Of a sequence folder, whole."""
    return _of_file(str(path), max_rejects=0.01)


def histories_of(trained: "Trained") -> Histories:
    """Of the run's own data, whole."""
    source = _row_a_user(trained.experiment.source)
    if not isinstance(source, SequenceFile):
        source = _row_a_user(_latest(trained, source))
    if isinstance(source, SequenceFile):
        return _of_file(source.path, max_rejects=source.max_rejects)
    return _of_rows(source)


def _row_a_user(source: SourceConfig) -> SourceConfig:
    """A run that was fitted on some of the users, or on pieces of their histories, serves all of them, whole."""
    while isinstance(source, Split | Prefixes | Windows | Packed):
        source = source.of if isinstance(source, Prefixes) else source.source
    return source


def _of_file(path: str, *, max_rejects: float) -> Histories:
    lines = read_lines(path, max_rejects=max_rejects)
    return Histories(users=lines.users, items=lines.items, ends=lines.ends, shift=FIRST - 1)


def _latest(trained: "Trained", source: SourceConfig) -> SourceConfig:
    """The split that ends last: its histories and targets together are all events."""
    names = [name for name in ("test", "valid") if name in trained.experiment.evals]
    return trained.named_source(names[0]) if names else source


def _of_rows(config: SourceConfig) -> Histories:
    source = config.make()
    declared = [f.name for f in source.features]
    sequences = [f.name for f in source.features if f.kind == "sequence" and f.size]
    if len(sequences) != 1 or "user" not in source.features.arrays():
        raise UserError(
            f"{type(config).__name__} has {', '.join(declared)}: recommending reads one sequence of ids a user; "
            "name a sequence folder with --data"
        )
    users = column(source, "user")
    if len(np.unique(users)) < len(users):
        raise UserError(
            f"{type(config).__name__} has several rows of one user: recommending reads one a user; "
            "name a sequence folder with --data"
        )
    items, count = sequences_of(config, history=sequences[0])
    return Histories(users=users, items=items, ends=np.concatenate([[0], np.cumsum(count)]), shift=FIRST)


def chosen(path: Path | None, *, histories: Histories) -> np.ndarray:
    """Rows of the users that a file names, one a line, in its order; of all users without one."""
    if path is None:
        return np.arange(len(histories))
    with path.open(encoding="utf-8") as lines:
        return np.array(list(_rows(lines, path=path, histories=histories)), np.int64)


def _rows(lines: Iterable[str], *, path: Path, histories: Histories) -> Iterable[int]:
    seen: set[int] = set()
    for number, line in enumerate(lines, 1):
        word = line.strip()
        if not word:
            continue
        if not word.isdecimal():
            raise UserError(f"{path}:{number}: {word[:40]!r} is no user; give one number a line")
        user = int(word)
        if user not in histories.rows:
            raise UserError(f"{path}:{number}: user {user} has no history in the data; leave the line out")
        if user in seen:
            raise UserError(f"{path}:{number}: user {user} was named before; leave the line out")
        seen.add(user)
        yield histories.rows[user]
