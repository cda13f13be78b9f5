"""An index that stays as it was built."""

from pathlib import Path
from typing import Any

import numpy as np

from serve.index import store
from serve.index.attributes import Attributes
from serve.index.base import Engine, Found, Kept, Metric, checked_queries, named
from serve.index.scann_engine import Scann
from serve.index.where import Where

FLOAT32 = np.dtype(np.float32)


class FixedIndex:
    """Rows of an engine with an id each. Made by `serve.index.build.build`."""

    def __init__(
        self,
        engine: Engine,
        *,
        ids: np.ndarray,
        attributes: Attributes,
        metric: Metric,
        model: str,
        made: dict[str, Any],
    ):
        self.engine, self.ids, self.attributes, self.metric, self.model = engine, ids, attributes, metric, model
        self.made = made
        self._scann = engine if isinstance(engine, Scann) and metric == "dot" else None
        self._one = (1, self.dim)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        return self.engine.vectors.shape[1]

    @property
    def vectors(self) -> np.ndarray:
        """As they are compared: of metric cosine their length is one."""
        return self.engine.vectors

    def search(self, queries: np.ndarray, *, k: int, where: Where | None = None) -> Found:
        """The k best: ids [q, k] and scores [q, k], best first."""
        # One query takes ScaNN some 50 µs, of which the way through checks and shapes would be a third.
        if self._scann is not None and where is None and k > 0 and self._plain(queries):
            found = self._scann.single(queries[0], k=k)
            if found is not None:
                rows = found[0].astype(np.intp)  # numpy takes longer where it has to do this itself
                return self.ids.take(rows)[None], found[1][None]
        queries = checked_queries(queries, dim=self.dim, metric=self.metric, k=k)
        keep = None if where is None else Kept.of(self.attributes.mask(where, keep=True))
        return named(self.engine.nearest(queries, k=k, keep=keep), ids=self.ids)

    def _plain(self, queries: np.ndarray) -> bool:
        return type(queries) is np.ndarray and queries.shape == self._one and queries.dtype is FLOAT32

    def save(self, path: Path) -> Path:
        """Writes a version under `path` and returns its folder."""

        def fill(work: Path) -> dict[str, Any]:
            store.save_rows(work, engine=self.engine, ids=self.ids, attributes=self.attributes)
            about = {"rows": len(self), "dim": self.dim, "metric": self.metric}
            return {"kind": "fixed", **self.made, **about}

        return store.publish(path, fill=fill, model=self.model)
