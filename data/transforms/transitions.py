"""What followed what in the training rows, beside the items that a batch shows: a teacher for their vectors."""

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, Features
from data.sources import Rows, Source
from data.splits import column
from data.transforms.base import Bound, Transform
from data.transforms.history import Ids, sequence_of_ids
from data.whole_histories import popular_first

PLACE, NEXT, STRENGTH = "transitions/place", "transitions/next", "transitions/strength"


@chz.chz
class Transitions(Transform):
    """`count` places of each history, drawn anew, and how often each item followed the one there in all histories.

    Adds "transitions/place" [b, n], and of its item "transitions/next" [b, n, k], the k most frequent successors, and
    "transitions/strength", how often each was next as a share of the first; 0 where there are fewer. Successors beyond
    them count as never seen. Only steps from a position to the next are counted, of the histories as they are kept.
    """

    history: str = chz.field(default="history", doc="sequence of item ids")
    target: str | None = chz.field(
        default=None, doc="label with the item after the history, where training may know it: it follows the newest"
    )
    count: int = chz.field(default=2, doc="places of a history whose items are taught")
    successors: int = chz.field(default=32, doc="k: of an item, the most frequent")

    @chz.validate
    def _sizes(self) -> None:
        if self.count < 1 or self.successors < 1:
            raise ValueError("count and successors are at least 1")

    def features(self, features: Features) -> Features:
        sequence_of_ids(features, self.history)
        return features.plus(
            Ids(name=PLACE, width=self.count),
            Ids(name=NEXT, length=self.count, width=self.successors),
            Ids(name=STRENGTH, type="real", length=self.count, width=self.successors),
        )

    def bind(self, source: Source) -> Bound:
        if self.target is not None and self.target not in source.features:
            raise UserError(f"Transitions: the source has no label {self.target!r}; set target=None")
        history, length = column(source, self.history), column(source, f"{self.history}/length")
        rows = sequence_of_ids(source.features, self.history).size
        steps = np.arange(1, history.shape[1]) < length[:, None]
        pairs = [np.stack([history[:, :-1][steps], history[:, 1:][steps]])]
        if self.target is not None:
            some = np.flatnonzero(length > 0)
            pairs.append(np.stack([history[some, length[some] - 1], column(source, self.target)[some]]))
        return _Transitions(self, *successors(np.concatenate(pairs, axis=1), rows=rows, most=self.successors))


class _Transitions:
    def __init__(self, config: Transitions, following: np.ndarray, strength: np.ndarray):
        self.config, self.following, self.strength = config, following, strength

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        history, length = batch[self.config.history], batch[f"{self.config.history}/length"]
        drawn = rng.random((len(history), self.config.count)) * length[:, None]
        place = np.minimum(drawn.astype(np.int32), history.shape[1] - 1)
        item = np.where(length[:, None] > 0, np.take_along_axis(history, place, axis=1), 0)
        item = np.where(item < len(self.following), item, 0)  # an id of a transform's own, such as a mask
        return {**batch, PLACE: place, NEXT: self.following[item], STRENGTH: self.strength[item]}


def successors(pairs: np.ndarray, *, rows: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each item of the table its `most` frequent successors, the more popular among equals, and their counts as
    shares of the largest. `pairs` is [2, n]: an item and the next."""
    known = pairs[:, (pairs >= FIRST).all(axis=0)].astype(np.int64)
    code, count = np.unique(known[0] * rows + known[1], return_counts=True)
    item, following = code // rows, code % rows
    place = np.argsort(popular_first(known[1], size=rows))
    order = np.lexsort((place[following], -count, item))
    item, following, count = item[order], following[order], count[order]
    rank = np.arange(len(item)) - np.searchsorted(item, item)
    first = np.zeros(rows)
    first[item[rank == 0]] = count[rank == 0]
    kept = rank < most
    table, strength = np.zeros((rows, most), np.int32), np.zeros((rows, most), np.float32)
    table[item[kept], rank[kept]] = following[kept]
    strength[item[kept], rank[kept]] = count[kept] / first[item[kept]]
    return table, strength
