"""Click rows with people whom training never saw, and the vector of each person at each visit.

A person is a guest if a lot says so: one in eight. No training row is theirs, their id is unknown, and of what they did
the newest five actions are known. A visit is a request: its number names the person as of then, so that a vector made
offline knows what the person had done before the request and nothing later.
"""

import chz
import numpy as np

from data.features import FIRST, UNKNOWN, Dense, Features, Truth
from data.mall.build import build
from data.mall.config import Mall
from data.mall.rng import uniforms
from data.mall.sources import Split, WithHistory
from data.mall.tail import MallTail
from data.mall.vectors import read_vectors
from data.sources import Rows, SourceConfig

SHARE = 0.125
KNOWN = 5
PERSON = "person"


def held_out(mall: Mall) -> np.ndarray:
    """[users] who are guests."""
    return uniforms(mall.seed, name="guests", ids=np.arange(mall.n_users), draws=1)[:, 0] < SHARE


@chz.chz
class MallGuests(SourceConfig):
    """Rows of `MallTail` with the truth `is_guest`, and with the vector `person` where `people` holds them by visit."""

    mall: Mall = chz.field(default_factory=Mall)
    split: Split = "train"
    history: int = chz.field(default=50, doc="past actions kept, the newest")
    content: str | None = chz.field(default=None, doc="item vectors: a folder that embed wrote, or npz or parquet")
    content_history: bool = chz.field(default=False, doc="also the vectors of the history")
    people: str | None = chz.field(default=None, doc="vectors of the visits, as embed wrote them")

    def make(self) -> "ByVisit":
        mall = self.mall
        source = MallTail(
            mall=mall,
            split=self.split,
            history=self.history,
            content=self.content,
            content_history=self.content_history,
        ).make()
        guests = held_out(mall)[source.columns["user_group"]]
        source.columns["user"] = np.where(guests, np.int32(UNKNOWN), source.columns["user"])
        source.columns["is_guest"] = guests.astype(np.float32)
        source.features = source.features.plus(Truth(name="is_guest"))
        source.forget(guests, keep=KNOWN)
        rows = np.flatnonzero(~guests) if self.split == "train" else np.arange(len(source))
        visits = visit_of(mall, user=source.columns["user_group"], time=source.columns["time"])
        count = len(build(mall).log.requests["time"])
        vectors = None if self.people is None else read_vectors(self.people, rows=FIRST + count)
        return ByVisit(source, rows=rows, visits=FIRST + visits, vectors=vectors)


class ByVisit:
    """Some rows of a source, each with the vector of its visit."""

    def __init__(self, source: WithHistory, *, rows: np.ndarray, visits: np.ndarray, vectors: np.ndarray | None):
        self.source, self.rows, self.visits, self.vectors = source, rows, visits, vectors
        self.features: Features = source.features
        if vectors is not None:
            self.features = self.features.plus(Dense(name=PERSON, role="user", dim=vectors.shape[1]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows = self.source.take(self.rows[indices])
        if self.vectors is not None:
            rows[PERSON] = self.vectors[self.visits[self.rows[indices]]]
        return rows


def visit_of(mall: Mall, *, user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The number of each impression's request: requests lie by user and time, and no two of a user at one time."""
    log = build(mall).log.requests
    span = np.int64(1) << 32
    return np.searchsorted(log["user"].astype(np.int64) * span + log["time"], user.astype(np.int64) * span + time)
