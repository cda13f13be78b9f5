"""Which rows train, which choose the model and which judge it. Temporal is the default: it is how a model will be used.

Each split is a source of sources: `Temporal(source=Parquet(...), part="train")`. The parts of one split are disjoint,
cover what they say and share one copy of the rows.
"""

import hashlib
import logging
from typing import Literal
from weakref import WeakValueDictionary

import chz
import numpy as np

from data.errors import UserError
from data.hashing import mix
from data.sources import Rows, Source, SourceConfig

log = logging.getLogger("adloom.data")

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")

_OPEN: WeakValueDictionary[str, Source] = WeakValueDictionary()


class View:
    """Some rows of a source, in the source's order."""

    def __init__(self, source: Source, rows: np.ndarray):
        self.source, self.rows, self.features = source, np.asarray(rows, np.int64), source.features
        blocks = getattr(source, "blocks", None)
        self.blocks = None if blocks is None else np.unique(np.searchsorted(self.rows, blocks))
        self.window = getattr(source, "window", 1 << 20)
        self.rejects = getattr(source, "rejects", None)
        self.vocabularies = getattr(source, "vocabularies", None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rows:
        return self.source[int(self.rows[index])]

    def take(self, indices: np.ndarray) -> Rows:
        return self.source.take(self.rows[indices])

    @property
    def hash(self) -> str:
        """Names this choice of rows: equal splits of equal data have equal hashes."""
        return hashlib.blake2b(self.rows.tobytes(), digest_size=8).hexdigest()


@chz.chz
class Split(SourceConfig):
    source: SourceConfig
    part: Part = chz.field(doc="train, valid or test")

    def make(self) -> View:
        source = shared(self.source)
        rows = np.flatnonzero(self.parts(source) == PARTS.index(self.part))
        view = View(source, rows)
        log.info("%s %s: %d of %d rows, split %s", type(self).__name__, self.part, len(rows), len(source), view.hash)
        return view

    def parts(self, source: Source) -> np.ndarray:
        """0 (train), 1 (valid), 2 (test) or -1 (none) per row."""
        raise NotImplementedError(f"{type(self).__name__} does not define parts")


@chz.chz
class Temporal(Split):
    """The past trains, what follows validates, the newest tests. Rows of one moment stay together."""

    time: str | None = chz.field(default=None, doc="time feature; default: the only one")
    valid: float = chz.field(default=0.1, doc="share of rows")
    test: float = chz.field(default=0.1, doc="share of rows")

    def parts(self, source: Source) -> np.ndarray:
        return by_time(column(source, self.time or _one(source, "time")), valid=self.valid, test=self.test)


@chz.chz
class LeaveLastTwo(Split):
    """Each user's last row tests, the one before validates, the others train; ties in time by order of rows."""

    user: str
    time: str | None = chz.field(default=None, doc="time feature; default: the only one")

    def parts(self, source: Source) -> np.ndarray:
        left = from_the_end(column(source, self.user), column(source, self.time or _one(source, "time")))
        return np.select([left == 0, left == 1], [2, 1], 0).astype(np.int8)


@chz.chz
class LeaveOneOut(Split):
    """Each user's last row tests, the others train. For comparison with papers alone."""

    user: str
    time: str | None = chz.field(default=None, doc="time feature; default: the only one")

    def parts(self, source: Source) -> np.ndarray:
        user, time = column(source, self.user), column(source, self.time or _one(source, "time"))
        last = from_the_end(user, time) == 0
        if last.any() and not last.all():
            seen = float((time[~last] > time[last].min()).mean())
            log.warning(
                "leave-one-out leaks time: %.0f %% of the training rows are newer than the oldest test row; "
                "use Temporal for a figure that will hold in use",
                100 * seen,
            )
        return np.where(last, 2, 0).astype(np.int8)


@chz.chz
class ByUser(Split):
    """Users of one part are strangers to the others."""

    user: str
    valid: float = chz.field(default=0.1, doc="share of users")
    test: float = chz.field(default=0.1, doc="share of users")
    seed: int = 0

    def parts(self, source: Source) -> np.ndarray:
        return _drawn(column(source, self.user), valid=self.valid, test=self.test, seed=self.seed)


@chz.chz
class ColdItems(Split):
    """Items of one part never occur in another, nor in the histories named: those rows are left out of training."""

    item: str
    histories: tuple[str, ...] = chz.field(default=(), doc="sequences of the same ids that must not show a cold item")
    valid: float = chz.field(default=0.1, doc="share of items")
    test: float = chz.field(default=0.1, doc="share of items")
    seed: int = 0

    def parts(self, source: Source) -> np.ndarray:
        parts = _drawn(column(source, self.item), valid=self.valid, test=self.test, seed=self.seed)
        for name in self.histories:
            seen, length = column(source, name), column(source, f"{name}/length")
            held = np.arange(seen.shape[1]) < length[:, None]
            cold = _drawn(seen.ravel(), valid=self.valid, test=self.test, seed=self.seed).reshape(seen.shape) > 0
            parts = np.where((parts == 0) & (cold & held).any(axis=1), np.int8(-1), parts)
        return parts


def by_time(time: np.ndarray, *, valid: float, test: float) -> np.ndarray:
    """0, 1 or 2 per row: the newest `test` of the rows are 2, the `valid` before them 1."""
    if not len(time):
        return np.zeros(0, np.int8)
    ordered = np.sort(time)
    from_valid, from_test = (
        ordered[min(len(time) - 1, int(len(time) * (1 - share)))] for share in (valid + test, test)
    )
    return (time >= from_valid).astype(np.int8) + ((time >= from_test) if test else 0)


def shared(config: SourceConfig) -> Source:
    """Opens `config`, or gives the copy that is open already."""
    key = repr(config)
    source = _OPEN.get(key)
    if source is None:
        source = _OPEN[key] = config.make()
    return source


def column(source: Source, name: str) -> np.ndarray:
    """One array of all rows."""
    if name not in source.features.arrays():
        raise UserError(f"the split needs {name!r}, which the source does not declare")
    columns = getattr(source, "columns", None)
    if columns is not None:
        return np.asarray(columns[name])
    step = 1 << 16
    parts = [source.take(np.arange(at, min(at + step, len(source))))[name] for at in range(0, len(source), step)]
    shape, dtype = source.features.arrays()[name]
    return np.concatenate(parts) if parts else np.zeros((0, *shape), dtype)


def from_the_end(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """How many rows of the same user come after each row."""
    order = np.lexsort((np.arange(len(user)), time, user))
    sorted_users = user[order]
    ends = np.searchsorted(sorted_users, sorted_users, side="right")
    left = np.empty(len(user), np.int64)
    left[order] = ends - 1 - np.arange(len(user))
    return left


def _drawn(keys: np.ndarray, *, valid: float, test: float, seed: int) -> np.ndarray:
    """A part per key by its hash, so that new rows and other files agree."""
    even = mix(mix(keys.astype(np.int64)) ^ np.uint64(seed)) / 2.0**64
    return np.select([even < test, even < test + valid], [2, 1], 0).astype(np.int8)


def _one(source: Source, kind: str) -> str:
    names = [feature.name for feature in source.features.all if feature.kind == kind]
    if len(names) != 1:
        raise UserError(f"the split needs one {kind} feature, the source has {names or 'none'}: name it")
    return names[0]
