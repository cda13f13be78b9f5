"""The shape of a space that several domains share: beside retrieval, what it loses to the domains standing apart."""

from itertools import combinations, permutations

import chz
import numpy as np

from data.errors import UserError
from data.pipeline import VALID
from data.sources import SourceConfig
from train.evaluators import Evaluation, Predict, Retrieve
from train.metrics.geometry import alignment, centre_gap, uniformity
from train.progress import RowsDone
from train.retrieve_across import RetrieveAcross


@chz.chz
class Space(RetrieveAcross):
    """As `RetrieveAcross`, and of the same vectors

    "<a>-<b>/alignment", "<a>-<b>/centre_gap", "<a>/uniformity";
    "mixed/<a>-<b>/<metric>": the vector of b sought among those of all domains, where what looks like a is in the way
    (the asking product's other vectors do not compete), and "gap/<a>-<b>/<metric>", what that costs;
    "seen/...": the same retrieval on products that training shows, and "seen_gap/...", how much better it is.
    """

    seen: SourceConfig | None = chz.field(default=None, doc="as many products, seen in training; None: not compared")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        key, vectors = self._collect(self.source, predict, progress=progress)
        total = self._across(key, vectors)
        mixed = self._mixed(key, vectors)
        found = total.plus(mixed.under("mixed")).plus(_less(total, mixed).under("gap"))
        if self.seen is not None:
            known = self._across(*self._collect(self.seen, predict))
            found = found.plus(known.under("seen")).plus(_less(known, total).under("seen_gap"))
        return found.plus(Evaluation(values=self._shape(vectors)))

    def _shape(self, vectors: dict[str, np.ndarray]) -> dict[str, float]:
        there = {name: (x != 0).any(axis=1) for name, x in vectors.items()}
        values = {f"{name}/uniformity": uniformity(x[there[name]]) for name, x in vectors.items()}
        for a, b in combinations(self.domains, 2):
            both = there[a] & there[b]
            if not both.any():
                raise UserError(f"no row has a vector of {a!r} and of {b!r}: there is nothing to align")
            values[f"{a}-{b}/alignment"] = alignment(vectors[a][both], vectors[b][both])
            values[f"{a}-{b}/centre_gap"] = centre_gap(vectors[a][there[a]], vectors[b][there[b]])
        return values

    def _mixed(self, key: np.ndarray, vectors: dict[str, np.ndarray]) -> Evaluation:
        """Items are (domain, product), numbered domain by domain; the first row of a product stands for it."""
        products = np.unique(key)
        numbers, items = [], []
        for place, name in enumerate(self.domains):
            rows = np.flatnonzero((vectors[name] != 0).any(axis=1))
            own, first = np.unique(key[rows], return_index=True)
            numbers.append(place * len(products) + np.searchsorted(products, own))
            items.append(vectors[name][rows[first]])
        number, item = np.concatenate(numbers), np.concatenate(items)
        ranking = Retrieve(source=self.source, metrics=self.metrics, target="sought", key="number", history="own")
        total = Evaluation(values={})
        for a, b in permutations(self.domains, 2):
            asks = (vectors[a] != 0).any(axis=1)
            at = np.searchsorted(products, key[asks])
            sought = {
                "sought": self.domains.index(b) * len(products) + at,
                "own": np.arange(len(self.domains))[None] * len(products) + at[:, None],
                VALID: np.ones(int(asks.sum()), bool),
            }
            one = ranking._measure(sought, vectors[a][asks], item, number)
            total = total.plus(one.under(f"{a}-{b}"))
        return total


def _less(a: Evaluation, b: Evaluation) -> Evaluation:
    """By how much the first is above the second, of what both measured."""
    names = [n for n in a.values if n in b.values and n.rsplit("/", 1)[-1] not in ("ties", "targets_missing")]
    return Evaluation(values={name: a.values[name] - b.values[name] for name in names if "half_ties" not in name})
