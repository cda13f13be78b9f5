"""Rows that cannot be used: counted, named and set aside, never lost in silence."""

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import TooManyRejects

SHOWN = 10

log = logging.getLogger("adloom.data")


class Rejects:
    """Rejected rows by file, field and reason; `notes` counts what was mended instead (cut, unknown, missing)."""

    def __init__(self) -> None:
        self.notes: Counter[tuple[str, str]] = Counter()
        self._rows: dict[tuple[str, str, str], list[np.ndarray]] = {}
        self._values: dict[tuple[str, int, str], str] = {}
        self.count = 0
        """Rejected rows; a row with two faults counts once."""

    def add(self, *, file: str, field: str, why: str, rows: np.ndarray, values: list[Any] | None = None) -> None:
        """Names the faulty `rows` (numbers in the file); the caller adds the distinct rows to `count`."""
        if not len(rows):
            return
        self._rows.setdefault((file, field, why), []).append(np.asarray(rows, np.int64))
        for row, value in zip(rows[:SHOWN], values or (), strict=False):
            if len(self._values) < 1000:
                self._values[file, int(row), field] = str(value)[:80]

    def note(self, *, field: str, why: str, count: int) -> None:
        if count:
            self.notes[field, why] += int(count)

    def merge(self, other: "Rejects") -> None:
        for key, rows in other._rows.items():
            self._rows.setdefault(key, []).extend(rows)
        self._values.update(other._values)
        self.notes.update(other.notes)
        self.count += other.count

    def absorb(self, other: "Rejects") -> None:
        """Merges the faults not known yet, for files that are read more than once; counts each row once."""
        for key, parts in other._rows.items():
            rows = np.unique(np.concatenate(parts))
            known = self._rows.setdefault(key, [])
            fresh = np.setdiff1d(rows, np.concatenate(known)) if known else rows
            if len(fresh):
                known.append(fresh)
        self._values.update(other._values)
        by_file: dict[str, list[np.ndarray]] = {}
        for (file, _, _), parts in self._rows.items():
            by_file.setdefault(file, []).extend(parts)
        self.count = sum(len(np.unique(np.concatenate(parts))) for parts in by_file.values())

    def moved(self, by: int) -> "Rejects":
        """The same faults, of rows that stand `by` further down in their files."""
        out = Rejects()
        out._rows = {key: [rows + by for rows in parts] for key, parts in self._rows.items()}
        out._values = {(file, row + by, field): value for (file, row, field), value in self._values.items()}
        out.notes, out.count = self.notes.copy(), self.count
        return out

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """Faults by (field, why)."""
        found: Counter[tuple[str, str]] = Counter()
        for (_, field, why), rows in self._rows.items():
            found[field, why] += sum(len(r) for r in rows)
        return dict(found)

    def lines(self):
        """One dict per fault, in the order of files and rows."""
        for file in sorted({file for file, _, _ in self._rows}):
            faults = [
                (int(row), field, why)
                for (of, field, why), rows in self._rows.items()
                if of == file
                for row in np.concatenate(rows)
            ]
            for row, field, why in sorted(faults):
                value = self._values.get((file, row, field))
                yield {"file": file, "row": row, "field": field, "why": why} | (
                    {} if value is None else {"value": value}
                )

    def first(self, count: int = SHOWN) -> list[str]:
        return [
            f"{line['file']} row {line['row']}: {line['field']}: {line['why']}"
            + (f" ({line['value']})" if "value" in line else "")
            for line, _ in zip(self.lines(), range(count), strict=False)
        ]

    def write(self, path: str | os.PathLike) -> None:
        """JSON lines, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part{os.getpid()}")
        with part.open("w") as out:
            for line in self.lines():
                out.write(json.dumps(line) + "\n")
        part.replace(path)

    @classmethod
    def read(cls, path: str | os.PathLike, *, count: int) -> "Rejects":
        """What `write` wrote; `count` is the number of distinct rows."""
        found = cls()
        by_key: dict[tuple[str, str, str], list[dict]] = {}
        for line in map(json.loads, Path(path).read_text().splitlines()):
            by_key.setdefault((line["file"], line["field"], line["why"]), []).append(line)
        for (file, field, why), lines in by_key.items():
            found._rows[file, field, why] = [np.array([line["row"] for line in lines], np.int64)]
            found._values.update({(file, line["row"], field): line["value"] for line in lines if "value" in line})
        found.count = count
        return found

    def check(self, total: int, max_share: float = 0.01) -> None:
        """Raises when more than `max_share` of the `total` rows read were set aside."""
        if self.count > max_share * total:
            raise TooManyRejects(
                f"{self.count} of {total} rows rejected ({self.count / max(total, 1):.1%}, allowed {max_share:.1%}); "
                "mend the data or raise max_rejects. First: " + "; ".join(self.first())
            )

    def summary(self) -> list[str]:
        """One line per kind of fault or mend."""
        lines = [f"rejected: {field}: {why}: {n} rows" for (field, why), n in sorted(self.counts.items())]
        return lines + [f"mended: {field}: {why}: {n}" for (field, why), n in sorted(self.notes.items())]


def report(rejects: Rejects, total: int, *, path: str | os.PathLike | None, max_share: float) -> None:
    """Writes what was set aside to `path`, says what was found, and stops when it is too much."""
    if path is not None and rejects.count:
        rejects.write(path)
    for line in rejects.summary():
        log.warning(line)
    rejects.check(total, max_share)
