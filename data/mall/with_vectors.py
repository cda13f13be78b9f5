"""Vectors beside the ids they belong to, gathered when rows are taken: a history of 50 texts is 50 KB a row."""

from collections.abc import Mapping

import numpy as np

from data.features import Dense, Feature, Sequence
from data.sources import Rows, Source

CONTENT = "content"


class WithVectors:
    """Rows of `source` with, for each column of ids in `of`, a column of the `vectors` of those ids.

    All of them are of one table, so that a tower compares what was looked at with what is offered.
    """

    def __init__(self, source: Source, *, vectors: np.ndarray, of: Mapping[str, str]):
        self.source, self.vectors, self.of = source, vectors, dict(of)
        self.features = source.features.plus(*(self._declared(ids, name) for ids, name in self.of.items()))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Rows:
        return {name: column[0] for name, column in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows = self.source.take(indices)
        for ids, name in self.of.items():
            rows[name] = self.vectors[rows[ids]]
            if f"{ids}/length" in rows:
                rows[f"{name}/length"] = rows[f"{ids}/length"]
        return rows

    def _declared(self, ids: str, name: str) -> Feature:
        of, dim = self.source.features[ids], self.vectors.shape[1]
        if isinstance(of, Sequence):
            return Sequence(name=name, role=of.role, of=Dense(name=CONTENT, role=of.role, dim=dim), length=of.length)
        if name != CONTENT:
            raise ValueError(f"the vector of {ids!r} is called {name!r}; that of one id is {CONTENT!r}")
        return Dense(name=name, role=of.role, dim=dim)
