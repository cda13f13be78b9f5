"""Floors: what next-item models must beat, from counts of training items and from words alone, by one evaluator.

popularity  how often an item occurs
seqknn      transition counts: pairs up to `window` apart weigh 1/distance, in both directions, each item discounted by
            its popularity; a history's newest items add up, an older one counting `decay` of the next
tfidf       cosine of title and category words with those of the newest few items
hybrid      seqknn + `text_weight` tfidf

`RankFloors` ranks them by RankItems' own code: `floor/hybrid/hit_rate@10` stands beside the model's figure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import chz
import numpy as np
import scipy.sparse as sp

from data.item_texts import read_texts, tfidf
from data.paths import expand
from data.sources import SourceConfig
from data.whole_histories import sequences_of
from train.evaluators import Evaluation, Predict, RankItems
from train.metrics.base import Arrays, column
from train.progress import RowsDone


@chz.chz
class Floors:
    """One configuration for all data, which the figures of docs/sequences.md are of; tuned ones are higher."""

    window: int = chz.field(default=5, doc="items apart, at most, that count as a transition")
    backward: float = chz.field(default=1.0, doc="weight of a pair read backwards")
    discount: float = chz.field(default=0.5, doc="exponent of both items' popularity that a count is divided by")
    decay: float = chz.field(default=0.8, doc="weight of an item of the history, per newer item")
    newest: int = chz.field(default=20, doc="items of the history that transitions are read from")
    text_newest: int = chz.field(default=5, doc="items of the history whose words are read")
    text_weight: float = chz.field(default=0.3, doc="of tfidf in the hybrid")

    def popularity(self, items: np.ndarray, *, rows: int) -> np.ndarray:
        return np.bincount(items, minlength=rows).astype(np.float32)

    def transitions(self, items: np.ndarray, users: np.ndarray, *, rows: int) -> sp.csr_array:
        """[rows, rows] from items end to end, oldest first, and whose each is."""
        total = sp.csr_array((rows, rows), dtype=np.float32)
        for apart in range(1, self.window + 1):
            pair = users[:-apart] == users[apart:]
            before, after = items[:-apart][pair], items[apart:][pair]
            weight = np.full(len(before), 1 / apart, np.float32)
            step = sp.coo_array((weight, (before, after)), shape=(rows, rows)).tocsr()
            total = total + step + self.backward * step.T.tocsr()
        total = total.tocsr()
        total.setdiag(0)
        total.eliminate_zeros()
        scale = np.maximum(self.popularity(items, rows=rows), 1) ** -self.discount
        return sp.csr_array(sp.diags_array(scale) @ total @ sp.diags_array(scale)).astype(np.float32)

    def weights(self, history: np.ndarray, length: np.ndarray, *, newest: int, rows: int) -> sp.csr_array:
        """[b, rows]: what each item of a history weighs, the newest 1."""
        age = length[:, None] - 1 - np.arange(history.shape[1])[None]
        row, place = np.nonzero((age >= 0) & (age < newest))
        weight = (self.decay ** age[row, place]).astype(np.float32)
        return sp.coo_array((weight, (row, history[row, place])), shape=(len(history), rows)).tocsr()


@dataclass(frozen=True)
class Counted:
    """Floors over one catalogue: scores [b, rows] by name from histories."""

    config: Floors
    popularity: np.ndarray
    transitions: sp.csr_array
    texts: list[str] | None

    @property
    def names(self) -> tuple[str, ...]:
        return ("popularity", "seqknn") if self.texts is None else ("popularity", "seqknn", "tfidf", "hybrid")

    @cached_property
    def words(self) -> sp.csr_array:
        assert self.texts is not None
        return tfidf(self.texts)[0]

    def scores(self, name: str, *, history: np.ndarray, length: np.ndarray) -> np.ndarray:
        rows = len(self.popularity)
        if name == "popularity":
            return np.broadcast_to(self.popularity, (len(history), rows))
        total = np.zeros((len(history), rows), np.float32)
        if name in ("seqknn", "hybrid"):
            weights = self.config.weights(history, length, newest=self.config.newest, rows=rows)
            total += (weights @ self.transitions).toarray()
        if name in ("tfidf", "hybrid"):
            weights = self.config.weights(history, length, newest=self.config.text_newest, rows=rows)
            share = 1.0 if name == "tfidf" else self.config.text_weight
            total += share * ((weights @ self.words) @ self.words.T).toarray()
        return total


def count(config: Floors, *, items: np.ndarray, lengths: np.ndarray, rows: int, texts: list[str] | None) -> Counted:
    """From training sequences end to end, `lengths` items a user."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    return Counted(
        config,
        popularity=config.popularity(items, rows=rows),
        transitions=config.transitions(items, users, rows=rows),
        texts=texts,
    )


@chz.chz
class RankFloors(RankItems):
    """The floors of `train`, ranked as the model is, under "<floor>/<metric>"."""

    train: SourceConfig = chz.field(doc="rows whose histories and targets are counted; what they hold is all of it")
    texts: str | None = chz.field(default=None, doc="sequence folder with items.tsv; None: no floors of words")
    input: str = chz.field(default="history", doc="array of ids that the floors read")
    floors: Floors = chz.field(default_factory=Floors)

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        known = self.counted()
        total = Evaluation(values={})
        for name in known.names:

            def scores(batch: Mapping[str, np.ndarray], name: str = name) -> Arrays:
                length = column(batch, f"{self.input}/length")
                return {"scores": known.scores(name, history=column(batch, self.input), length=length)}

            found = super().run(scores, progress=progress)
            total = total.plus(found.under(name))
        return total

    def counted(self) -> Counted:
        rows = self.train.make().features[self.input].size
        items, lengths = sequences_of(self.train, history=self.input, target=self.target)
        texts = None if self.texts is None else read_texts(expand(self.texts), rows=rows)
        return count(self.floors, items=items, lengths=lengths, rows=rows, texts=texts)
