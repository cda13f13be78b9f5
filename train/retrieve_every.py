"""Retrieval among listings in which several show the thing sought, and each of them is an answer."""

import chz
import numpy as np

from train.evaluators import Evaluation, Retrieve
from train.metrics.base import Arrays
from train.metrics.ranks import NO_ITEM, padded


@chz.chz
class RetrieveEvery(Retrieve):
    """As `Retrieve`, but rows of the corpus with equal keys all stay, and all are targets of who seeks the key.

    That is how public text-to-image benchmarks count: recall@k is the share of a text's pictures among the first k.
    """

    @chz.validate
    def _is_plain(self) -> None:
        if self.history is not None or self.reverse:
            raise ValueError("RetrieveEvery takes no history and no reverse: its items are rows, not keys")

    def _rank(self, batch: Arrays, queries: np.ndarray, items: np.ndarray, keys: np.ndarray) -> Evaluation:
        order = np.argsort(keys, kind="stable")
        key, start, count = np.unique(keys[order], return_index=True, return_counts=True)
        sought = padded(batch, self.target)
        if sought.shape[1] > 1:
            raise ValueError(f"a row of {self.target!r} names {sought.shape[1]} keys; RetrieveEvery seeks one a row")
        place = np.minimum(np.searchsorted(key, sought[:, 0]), len(key) - 1)
        known = key[place] == sought[:, 0]
        width = int(count[place[known]].max(initial=1))
        at = np.minimum(start[place][:, None] + np.arange(width), len(order) - 1)
        targets = np.where(np.arange(width) < (known * count[place])[:, None], order[at], NO_ITEM)
        # What the corpus lacks stays one target that no row is, as in `Retrieve`.
        targets[~known & (sought[:, 0] >= 0), 0] = len(items)
        return self._measure({**batch, self.target: targets}, queries, items, np.arange(len(items)))
