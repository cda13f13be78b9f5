"""A person's actions as a past and what came after it: for models whose every state foretells every later action.

Pancha et al., "PinnerFormer", KDD 2022, section 3.3; Jia et al., "LEARN", AAAI 2025.
"""

import chz
import numpy as np

from data.errors import UserError
from data.features import Features, Label, Sequence
from data.sources import Rows
from data.transforms.base import Transform
from data.transforms.history import Ids

TARGETS, POSITIONS = "targets", "positions"


@chz.chz
class AllActions(Transform):
    """Cuts the history at a place drawn in its second half. Of the actions behind it `targets` are drawn, each item
    once where there are enough, and of those before it the `positions` whose states are to foretell them.

    Entries that a short history has no action for are 0 of "targets" and -1 of "positions". The vectors of the targets
    come with them, as "targets_content".
    """

    window: int = chz.field(default=20, doc="actions behind the cut that targets are drawn from; 1: the next alone")
    targets: int = chz.field(default=6, doc="of each row, at most the window")
    positions: int = chz.field(default=6, doc="states of each row")
    newest: bool = chz.field(default=False, doc="the newest states, in place of any")
    history: str = "history"
    vectors: str | None = chz.field(default="history_content", doc="sequence of vectors that is cut with the history")

    @chz.validate
    def _check(self) -> None:
        if not 1 <= self.targets <= self.window or self.positions < 1:
            raise ValueError(f"AllActions: {self.targets} targets of a window of {self.window}; give 1 to the window")

    def features(self, features: Features) -> Features:
        history = features[self.history]
        if not isinstance(history, Sequence) or not history.size:
            raise UserError(f"AllActions: {self.history!r} is no sequence of ids but {history.kind}")
        more: list[Label] = [Ids(name=TARGETS, width=self.targets), Ids(name=POSITIONS, width=self.positions)]
        if self.vectors is not None:
            dim = features[self.vectors].shape[-1]
            more.append(Ids(name=f"{TARGETS}_content", length=self.targets, width=dim, type="real"))
        return features.plus(*more)

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        ids, length = batch[self.history], batch[f"{self.history}/length"].astype(np.int64)
        rows, place = len(ids), np.arange(ids.shape[1])
        half = (length + 1) // 2
        cut = half + np.floor(rng.random(rows) * np.maximum(length - half, 1)).astype(np.int64)
        cut = np.minimum(cut, np.maximum(length - 1, 0))
        behind = (place >= cut[:, None]) & (place < np.minimum(length, cut + self.window)[:, None])
        lots = np.where(behind, rng.random(ids.shape), 2.0)
        lots = np.where(behind & _again(ids, lots), lots + 1.0, np.where(behind, lots, 4.0))
        chosen, there = _least(lots, count=self.targets, below=4.0)
        before = place < cut[:, None]
        key = -np.broadcast_to(place, ids.shape) if self.newest else rng.random(ids.shape)
        states, known = _least(np.where(before, key, 4.0), count=self.positions, below=4.0)
        out = {
            **batch,
            self.history: np.where(before, ids, 0).astype(ids.dtype),
            f"{self.history}/length": cut.astype(batch[f"{self.history}/length"].dtype),
            TARGETS: np.where(there, np.take_along_axis(ids, chosen, axis=1), 0).astype(np.int32),
            POSITIONS: np.where(known, states, -1).astype(np.int32),
        }
        if self.vectors is not None:
            vectors = batch[self.vectors]
            drawn = np.take_along_axis(vectors, chosen[:, :, None], axis=1)
            out[f"{TARGETS}_content"] = np.where(there[:, :, None], drawn, 0).astype(np.float32)
            out[self.vectors] = np.where(before[:, :, None], vectors, 0)
            out[f"{self.vectors}/length"] = out[f"{self.history}/length"]
        return out


def _again(ids: np.ndarray, lots: np.ndarray) -> np.ndarray:
    """Where an item stands that has a smaller lot elsewhere in its row."""
    order = np.lexsort((lots, ids), axis=1)
    sorted_ids = np.take_along_axis(ids, order, axis=1)
    repeated = np.zeros(ids.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], sorted_ids[:, 1:] == sorted_ids[:, :-1], axis=1)
    return repeated


def _least(key: np.ndarray, *, count: int, below: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the `count` smallest keys of each row, and which of them are below a bound."""
    places = np.argsort(key, axis=1, kind="stable")[:, :count]
    if places.shape[1] < count:
        places = np.pad(places, ((0, 0), (0, count - places.shape[1])))
        known = np.arange(count) < key.shape[1]
    else:
        known = np.ones(count, bool)
    return places, known & (np.take_along_axis(key, places, axis=1) < below)
