"""Retrieval between every two domains of one space, each way, from one pass over the rows."""

from itertools import permutations

import chz
import numpy as np

from data.errors import UserError
from data.pipeline import VALID
from data.sources import SourceConfig
from train.evaluators import Evaluation, Predict, Retrieve
from train.metrics.base import column
from train.progress import RowsDone


@chz.chz
class RetrieveAcross(Retrieve):
    """As `Retrieve`, from each domain to each other one, as "<from>-<to>/<metric>".

    A row has a vector of each domain, and the target is its own `key`; the first row of equal keys stands for the
    item. A row whose vector is zero has nothing to show: it neither asks nor is found.
    """

    domains: tuple[str, ...] = chz.field(default=("page", "video", "live"), doc="predictions to compare")

    @chz.validate
    def _is_plain(self) -> None:
        if self.corpus is not None or self.history is not None or self.reverse or self.slices:
            raise ValueError("RetrieveAcross takes no corpus, history, slices or reverse: it goes both ways as it is")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        return self._across(*self._collect(self.source, predict, progress=progress))

    def _collect(
        self, source: SourceConfig, predict: Predict, *, progress: RowsDone | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Keys and each domain's vectors of all rows."""
        keys: list[np.ndarray] = []
        vectors: dict[str, list[np.ndarray]] = {name: [] for name in self.domains}
        for batch, predictions in self.rows(source, predict, progress=progress):
            keys.append(column(batch, self.key))
            for name, parts in vectors.items():
                parts.append(column(predictions, name, what="predictions"))
        return np.concatenate(keys), {name: np.concatenate(parts) for name, parts in vectors.items()}

    def _across(self, key: np.ndarray, all_of: dict[str, np.ndarray]) -> Evaluation:
        total = Evaluation(values={}, rows=len(key))
        for source, target in self._directions():
            asks, found = ((all_of[name] != 0).any(axis=1) for name in (source, target))
            if not asks.any() or not found.any():
                raise UserError(f"no row has a vector of {source!r}, or none of {target!r}: there is nothing to rank")
            items, first = np.unique(key[found], return_index=True)
            rows = {self.target: key[asks], VALID: np.ones(int(asks.sum()), bool)}
            one = self._measure(rows, all_of[source][asks], all_of[target][found][first], items)
            total = total.plus(one.under(f"{source}-{target}"))
        return total

    def _directions(self) -> list[tuple[str, str]]:
        return list(permutations(self.domains, 2))


@chz.chz
class RetrieveBetween(RetrieveAcross):
    """The same in chosen directions, say between two sides of a row that each have several modalities."""

    directions: tuple[tuple[str, str], ...] = chz.field(doc="(predictions that ask, predictions to be found)")

    @chz.validate
    def _domains_are_asked(self) -> None:
        if unknown := sorted({name for pair in self.directions for name in pair} - set(self.domains)):
            raise ValueError(f"directions name {unknown[0]!r}, which is none of domains {self.domains}")

    def _directions(self) -> list[tuple[str, str]]:
        return list(self.directions)
