"""What a search of a live index sees: rows that never change, and for each the version at which it died.

An update writes behind the rows that are counted, marks what it replaces as dead from the next version on, and then
puts the next view in place of the last one. So a search needs no lock: it takes a view once and sees all of an update
or nothing of it, also while the arrays behind the view go on growing.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serve.index.attributes import Attributes, joined
from serve.index.base import Engine, Found, Kept, best, compared, named, nothing, padded
from serve.index.where import Where

ALIVE = np.iinfo(np.int64).max
ROOM = 256


class Base:
    """The rows of the last merge, behind an engine. `died` is all that ever changes."""

    def __init__(self, engine: Engine, *, ids: np.ndarray, attributes: Attributes, died: np.ndarray | None = None):
        self.engine, self.ids, self.attributes = engine, ids, attributes
        self.died = np.full(len(ids), ALIVE) if died is None else died
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The row of each id, dead or alive, or -1."""
        if not len(self):
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self._sorted, ids), len(self) - 1)
        return np.where(self._sorted[at] == ids, self._order[at], -1)


class Delta:
    """Rows since the last merge, with room for more."""

    def __init__(self, *, dim: int, text: bool, attributes: Attributes, room: int = ROOM):
        self.vectors = np.zeros((room, dim), np.float32)
        self.ids = np.zeros(room, object if text else np.int64)
        self.died = np.full(room, ALIVE)
        self.attributes = attributes.empty(room=room)

    @property
    def room(self) -> int:
        return len(self.ids)

    def since(self, start: int, *, count: int, room: int) -> "Delta":
        """A copy of rows start to count, with other room."""
        rows = np.arange(start, count)
        text = self.ids.dtype == object
        out = Delta(dim=self.vectors.shape[1], text=text, attributes=self.attributes, room=room)
        out.vectors[: len(rows)], out.ids[: len(rows)] = self.vectors[rows], self.ids[rows]
        out.died[: len(rows)] = self.died[rows]
        out.attributes = self.attributes.take(rows).grown(room=room)
        return out


@dataclass(frozen=True)
class Living:
    """All items of a view, and the rows of its base and its delta that they are: those of the base come first."""

    vectors: np.ndarray
    ids: np.ndarray
    attributes: Attributes
    base: np.ndarray
    delta: np.ndarray


@dataclass(frozen=True)
class View:
    version: int
    base: Base
    delta: Delta
    count: int
    """Rows of the delta that this view sees."""
    base_alive: int
    delta_alive: int

    def __len__(self) -> int:
        return self.base_alive + self.delta_alive

    @property
    def pending(self) -> int:
        """Rows that a merge would move or remove."""
        return self.count + len(self.base) - self.base_alive

    def next(self, **changes: Any) -> "View":
        return replace(self, version=self.version + 1, **changes)

    def base_rows(self) -> np.ndarray:
        return np.flatnonzero(self.base.died > self.version)

    def delta_mask(self) -> np.ndarray:
        return self.delta.died[: self.count] > self.version

    def delta_rows(self) -> np.ndarray:
        return np.flatnonzero(self.delta_mask())

    def alive(self) -> "Living":
        base, delta = self.base_rows(), self.delta_rows()
        vectors = np.concatenate([np.asarray(self.base.engine.vectors)[base], self.delta.vectors[delta]])
        ids = np.concatenate([self.base.ids[base], self.plain_ids(delta)])
        attributes = joined([self.base.attributes.take(base), self.delta.attributes.take(delta)])
        return Living(vectors, ids, attributes, base, delta)

    def values(self, name: str, *, base: np.ndarray, delta: np.ndarray) -> list[Any]:
        """An attribute of items by their rows of base and delta, which are -1 where they do not lie there."""
        found: list[Any] = [None] * len(base)
        for rows, source in ((base, self.base.attributes), (delta, self.delta.attributes)):
            at = np.flatnonzero(rows >= 0)
            for place, value in zip(at, source.columns[name].decoded(rows[at]), strict=True):
                found[place] = value
        return found

    def plain_ids(self, rows: np.ndarray) -> np.ndarray:
        """Of rows of the delta, as the base has ids."""
        ids = self.delta.ids[rows]
        return ids.astype(str) if ids.dtype == object else ids

    def search(self, queries: np.ndarray, *, k: int, where: Where | None) -> Found:
        """Ids and scores; of equal scores the one that was merged earlier, or came earlier, is first."""
        rows, scores = self._in_base(queries, k=k, where=where)
        ids, _ = named((rows, scores), ids=self.base.ids)
        if not self.count:
            return ids, scores
        mask = self.delta_mask()
        if where is not None:
            mask &= self.delta.attributes.mask(where, count=self.count)
        fresh, theirs = compared(self.delta.vectors[: self.count], queries, k=k, rows=np.flatnonzero(mask))
        if not (theirs[:, 0] > scores[:, -1]).any():
            return ids, scores
        return _joined(ids, scores, self._fresh_ids(fresh), theirs, k=k)

    def _fresh_ids(self, rows: np.ndarray) -> np.ndarray:
        ids = self.delta.ids[np.maximum(rows, 0)]
        missing = rows < 0
        if ids.dtype == object:
            ids = np.where(missing, "", ids).astype(str)
        return np.where(missing, nothing(ids), ids)

    def _in_base(self, queries: np.ndarray, *, k: int, where: Where | None) -> Found:
        if where is not None:
            mask = self.base.attributes.mask(where, keep=True) & (self.base.died > self.version)
            return self.base.engine.nearest(queries, k=k, keep=Kept.of(mask))
        keep = None if self.base_alive == len(self.base) else _Alive(self)
        if keep is not None and not keep.count:
            none = np.zeros((len(queries), 0))
            return padded(none.astype(np.int64), none.astype(np.float32), k=k)
        return self.base.engine.nearest(queries, k=k, keep=keep)


class _Alive:
    """The rows of the base that live, without a mask of all rows for every search."""

    def __init__(self, view: View):
        self._view, self.count = view, view.base_alive

    def at(self, rows: np.ndarray) -> np.ndarray:
        return self._view.base.died[rows] > self._view.version

    def rows(self) -> np.ndarray:
        return self._view.base_rows()


def _joined(ids: np.ndarray, scores: np.ndarray, others: np.ndarray, theirs: np.ndarray, *, k: int) -> Found:
    columns = np.broadcast_to(np.arange(2 * k), (len(ids), 2 * k))
    order, scores = best(columns, np.concatenate([scores, theirs], axis=1), k=k)
    return np.take_along_axis(np.concatenate([ids, others], axis=1), order, 1), scores
