"""An index that changes while it is searched: a base behind an engine, new rows beside it, a merge in the background.

    upsert, delete    at once, for every search that begins afterwards; a search sees all of an update or nothing of it
    merge             makes a new base of all living rows; searches and updates go on meanwhile, and none is lost
    snapshot          a whole version on disk, or none; updates since then are in the log, and are made again on opening

Threads may call everything at once; updates go one after another. One process at a time may open a folder for writing.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.errors import UserError
from serve.files import staged
from serve.index import apart
from serve.index.attributes import Attributes
from serve.index.base import Found, Ids, Metric, checked_ids, checked_items, checked_queries
from serve.index.journal import Journal
from serve.index.plan import Made, Plan
from serve.index.snapshot import write_snapshot
from serve.index.updates import Update, Values, plain_values
from serve.index.view import ALIVE, ROOM, Base, Delta, Living, View
from serve.index.where import Where

MERGE_SHARE = 0.05
MERGE_FROM = 2048
"""A merge begins when so many rows are new or dead, or that share of the base if it is more."""

log = logging.getLogger("adloom.serve")


@dataclass(frozen=True)
class Upserted:
    added: int
    replaced: int


@dataclass(frozen=True)
class Deleted:
    deleted: int
    unknown: int
    """Ids that the index does not hold (any more)."""


class LiveIndex:
    """Made by `serve.index.build.build` or opened by `serve.index.open.open_index`."""

    def __init__(
        self,
        made: Made,
        *,
        ids: np.ndarray,
        attributes: Attributes,
        plan: Plan,
        metric: Metric,
        model: str,
        merge_by_itself: bool = True,
    ):
        self.metric, self.model, self.plan = metric, model, plan
        self.made = made.about
        base = Base(made.engine, ids=ids, attributes=attributes)
        self.dim = made.engine.vectors.shape[1]
        self._text = ids.dtype.kind == "U"
        delta = Delta(dim=self.dim, text=self._text, attributes=attributes)
        self._view = View(0, base, delta, 0, base_alive=len(base), delta_alive=0)
        self._places: dict[Any, int] = {}
        self._lock = threading.RLock()
        self._merging = threading.Lock()
        self._thread: threading.Thread | None = None
        self._by_itself = merge_by_itself
        self._retry_at = 0
        self.merges = 0
        self.merge_error: str | None = None
        self._journal: Journal | None = None

    def __len__(self) -> int:
        return len(self._view)

    def __enter__(self) -> "LiveIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def search(self, queries: np.ndarray, *, k: int, where: Where | None = None) -> Found:
        queries = checked_queries(queries, dim=self.dim, metric=self.metric, k=k)
        return self._view.search(queries, k=k, where=where)

    def __contains__(self, id: int | str) -> bool:
        with self._lock:
            base, delta = self._find(self._same_kind(checked_ids(np.array([id]))))
            return bool(base[0] >= 0 or delta[0] >= 0)

    def read_ids(self, texts: Sequence[str]) -> np.ndarray:
        """Ids as a person writes them, as this index has them."""
        if self._text:
            return np.array(texts, str)
        try:
            return np.array([int(text) for text in texts], np.int64)
        except ValueError as error:
            raise UserError(f"ids of this index are integers: {error}") from error

    def stats(self) -> dict[str, Any]:
        view = self._view
        return {
            "rows": len(view),
            "base": len(view.base),
            "new": view.delta_alive,
            "dead": view.count - view.delta_alive + len(view.base) - view.base_alive,
            "version": view.version,
            "merges": self.merges,
            "merging": self._merging.locked(),
            "merge_error": self.merge_error,
        }

    def upsert(self, ids: Ids, vectors: np.ndarray, *, attributes: Values | pa.Table | None = None) -> Upserted:
        """Adds items, and replaces those that are there.

        Of an item that is replaced, attributes that are not given stay; of a new one they are missing.
        """
        vectors, keys = self._checked(ids, vectors)
        values = plain_values(attributes, count=len(keys))
        with self._lock:
            full = self._with_kept(keys, values)
            self._view.delta.attributes.encoded(full)  # refuses a wrong value before anything is written
            self._record(Update(keys, vectors, values))
            done = self._upsert(keys, vectors, full)
        self._merge_if_due()
        return done

    def add(self, ids: Ids, vectors: np.ndarray, *, attributes: Values | pa.Table | None = None) -> Upserted:
        """Like upsert, but refuses ids that are there."""
        vectors, keys = self._checked(ids, vectors)
        with self._lock:
            base, delta = self._find(keys)
            there = np.flatnonzero((base >= 0) | (delta >= 0))
            if len(there):
                raise UserError(f"id {keys[there[0]].item()!r} is in the index, and {len(there) - 1} more; upsert them")
            return self.upsert(keys, vectors, attributes=attributes)

    def delete(self, ids: Ids) -> Deleted:
        keys = np.unique(self._same_kind(checked_ids(ids)))
        with self._lock:
            base, delta = self._find(keys)
            known = keys[(base >= 0) | (delta >= 0)]
            self._record(Update(known))
            self._delete(known)
        self._merge_if_due()
        return Deleted(len(known), len(keys) - len(known))

    def merge(self) -> None:
        """Makes a base of all living rows, now; a snapshot of the folder that it was opened from follows."""
        with self._merging:
            view = self._view
            living = view.alive()
            journal = self._journal if self._journal is not None and self._journal.writes else None
            if journal is None or self.plan.engine == "exact" or len(living.ids) < apart.FROM:
                # One thread: the others are for the searches that go on.
                self._replace(self.plan.make(living.vectors, threads=1), view, living)
                if journal is not None:
                    self._snapshot(journal.folder)
            else:
                with staged(journal.folder) as work:
                    made = apart.make_apart(self.plan, living.vectors, work=work)
                    self._replace(made, view, living)
                    self._snapshot(journal.folder)

    def _replace(self, made: Made, view: View, living: Living) -> None:
        """Puts a base of the rows that lived in `view` in place; what has come or died since stays so."""
        base = Base(made.engine, ids=living.ids, attributes=living.attributes)
        with self._lock:
            now = self._view
            base.died[:] = np.concatenate([now.base.died[living.base], now.delta.died[living.delta]])
            left = now.count - view.count
            delta = now.delta.since(view.count, count=now.count, room=max(ROOM, 2 * left))
            alive = delta.died[:left] > now.version
            self._places = {delta.ids[row]: int(row) for row in np.flatnonzero(alive)}
            base_alive = int(np.count_nonzero(base.died > now.version))
            self._view = View(now.version, base, delta, left, base_alive, int(alive.sum()))
            self.made = made.about
            self.merges += 1

    def snapshot(self, path: Path | None = None) -> Path:
        """Writes a version under `path`, or under the folder that the index was opened from; returns its folder."""
        target = path if path is not None or self._journal is None else self._journal.folder
        if target is None:
            raise UserError("this index was built in memory; name the folder of the snapshot")
        with self._merging:
            return self._snapshot(target)

    save = snapshot

    def wait(self) -> None:
        """Until no merge is under way in the background."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Waits for a merge and lets the folder go. Searches still work; updates are refused."""
        self._by_itself = False
        self.wait()
        with self._lock:
            if self._journal is not None:
                self._journal.close()

    # The rest is the index's own: callers hold the lock, or the merge's.

    def _checked(self, ids: Ids, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim == 2 and vectors.shape[1] != self.dim:
            raise UserError(f"vectors have {vectors.shape[1]} numbers, those of the index {self.dim}")
        vectors, keys = checked_items(vectors, ids=ids, metric=self.metric)
        return vectors, self._same_kind(keys)

    def _same_kind(self, keys: np.ndarray) -> np.ndarray:
        if len(keys) and (keys.dtype.kind == "U") != self._text:
            kinds = ("strings", "integers") if self._text else ("integers", "strings")
            raise UserError(f"ids of this index are {kinds[0]}, not {kinds[1]}")
        return keys.astype(str) if self._text else keys.astype(np.int64)

    def _record(self, update: Update) -> None:
        """Before it is made: an update that cannot be kept changes nothing."""
        if self._journal is not None:
            self._journal.append(self._view.version + 1, update)

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the base and of the delta where these ids live, or -1."""
        view = self._view
        base = view.base.find(keys)
        held = np.flatnonzero(base >= 0)
        base[held[view.base.died[base[held]] != ALIVE]] = -1
        places = self._places
        return base, np.array([places.get(key, -1) for key in keys.tolist()], np.int64)

    def _with_kept(self, keys: np.ndarray, values: Values) -> dict[str, list[Any]]:
        """The values given, and for other attributes those that the items had."""
        view = self._view
        full: dict[str, list[Any]] = {name: list(column) for name, column in values.items()}
        others = [name for name in view.base.attributes.columns if name not in full]
        if others:
            base, delta = self._find(keys)
            full |= {name: view.values(name, base=base, delta=delta) for name in others}
        return full

    def _upsert(self, keys: np.ndarray, vectors: np.ndarray, values: dict[str, list[Any]]) -> Upserted:
        if not len(keys):
            return Upserted(0, 0)
        view, count = self._view, len(keys)
        start, end = view.count, view.count + count
        delta = view.delta
        if end > delta.room:
            delta = delta.since(0, count=start, room=2 * end)
        delta.vectors[start:end], delta.ids[start:end] = vectors, keys
        delta.attributes.write(delta.attributes.encoded(values), at=start, count=count)
        replaced, base_alive, delta_alive = self._bury(keys, delta=delta)
        self._places.update(zip(keys.tolist(), range(start, end), strict=True))
        alive = delta_alive + count
        self._view = view.next(delta=delta, count=end, base_alive=base_alive, delta_alive=alive)
        return Upserted(count - replaced, replaced)

    def _delete(self, keys: np.ndarray) -> None:
        if len(keys):
            _, base_alive, delta_alive = self._bury(keys, delta=self._view.delta)
            for key in keys.tolist():
                self._places.pop(key, None)
            self._view = self._view.next(base_alive=base_alive, delta_alive=delta_alive)

    def _bury(self, keys: np.ndarray, *, delta: Delta) -> tuple[int, int, int]:
        """These ids' rows are dead from the next version on. How many there were, and what then lives."""
        view = self._view
        base, fresh = self._find(keys)
        base, fresh = base[base >= 0], fresh[fresh >= 0]
        view.base.died[base] = delta.died[fresh] = view.version + 1
        return len(base) + len(fresh), view.base_alive - len(base), view.delta_alive - len(fresh)

    def _due(self) -> bool:
        view = self._view
        enough = max(MERGE_FROM, int(MERGE_SHARE * len(view.base)), self._retry_at)
        return self._by_itself and view.pending >= enough

    def _merge_if_due(self) -> None:
        with self._lock:
            busy = self._thread is not None and self._thread.is_alive()
            if not busy and self._due():
                self._thread = threading.Thread(target=self._merge_quietly, name="index-merge", daemon=True)
                self._thread.start()

    def _merge_quietly(self) -> None:
        while self._due():  # again, where enough came meanwhile
            try:
                self.merge()
                self.merge_error, self._retry_at = None, 0
            except Exception as error:  # searches and updates go on without the merge; stats and the log say so
                log.exception("the merge of the index failed; it is tried again when twice as much is waiting")
                self.merge_error, self._retry_at = f"{type(error).__name__}: {error}", 2 * self._view.pending

    def _snapshot(self, target: Path) -> Path:
        journal = self._journal if self._journal is not None and self._journal.folder == target else None
        with self._lock:
            view, about = self._view, self.made
            if journal is not None:
                journal.check()
                journal.begin(first=view.version + 1)
        path = write_snapshot(
            target,
            view=view,
            about=about,
            plan=self.plan,
            metric=self.metric,
            model=self.model,
            lineage=None if journal is None else journal.lineage,
        )
        if journal is not None:
            with self._lock:
                journal.forget(until=view.version)
        return path

    # Of serve.index.open, which puts together what a folder holds.

    def restore(self, *, version: int, dead: np.ndarray, new: Update) -> None:
        """As a snapshot had it."""
        self._view.base.died[dead] = version
        alive = len(dead) - int(np.count_nonzero(dead))
        self._view = replace(self._view, version=version - 1, base_alive=alive)
        self._make(new)
        self._view = replace(self._view, version=version)

    def follow(self, journal: Journal) -> None:
        """Makes the updates that came after the snapshot, and keeps those to come."""
        for update in journal.updates(after=self._view.version):
            self._make(update)
        if journal.writes:
            journal.begin(first=self._view.version + 1)
        self._journal = journal

    def _make(self, update: Update) -> None:
        if update.vectors is None:
            self._delete(update.ids)
        else:
            self._upsert(update.ids, update.vectors, self._with_kept(update.ids, update.values or {}))
