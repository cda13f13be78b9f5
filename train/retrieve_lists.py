"""Evaluators of lists that no single score orders: by a mixture, in rounds, from an index.

A target's rank is its place in the list; what the list lacks counts as ranked last of the catalogue, so metrics are to
look no further than the list goes.
"""

import time
from collections.abc import Callable

import chz
import numpy as np

from data.errors import UserError
from data.pipeline import VALID
from data.sources import SourceConfig
from modules.layers.kmeans import spherical_kmeans
from modules.retrieval.knn_embed import retrieve
from train.evaluators import Evaluation, Evaluator, Predict, RankTally, Retrieve, depth
from train.metrics.base import Arrays, column
from train.metrics.ranks import NO_ITEM, Ranked, keys_of, padded, positions, rank_blocks
from train.progress import RowsDone
from train.ways import Search, Way

BLOCK = 1024  # rows whose lists' vectors are held at once


@chz.chz
class Nearest(Way):
    """By one vector, all items compared: what the others are measured by."""

    def open(self, items: np.ndarray) -> Search:
        def search(queries: np.ndarray, *, own: np.ndarray | None, k: int) -> np.ndarray:
            nobody = np.full((len(queries), 1), NO_ITEM)
            blocks = rank_blocks(queries, items, nobody, forbidden=own, k=k)
            return np.concatenate([ranked.top for _, ranked in blocks])

        return search


@chz.chz
class KnnEmbed(Way):
    """By mixtures of interests that like-minded users smooth (modules/retrieval/knn_embed.py); one query per user."""

    clusters: int = chz.field(default=40, doc="of the items, by spherical k-means; no more than there are items")
    smoothing: float = chz.field(default=0.6, doc="λ: weight of the neighbours; 0: the user's own mixture")
    neighbours: int = chz.field(default=20, doc="users that smooth")
    iterations: int = chz.field(default=25, doc="of k-means, at most")
    seed: int = 0

    @chz.validate
    def _check(self) -> None:
        if not 0 <= self.smoothing <= 1 or self.clusters < 1 or self.neighbours < 1:
            raise ValueError("smoothing lies between 0 and 1; clusters and neighbours are at least 1")

    def open(self, items: np.ndarray) -> Search:
        clusters = min(self.clusters, len(items))
        label, _ = spherical_kmeans(items, clusters=clusters, iterations=self.iterations, seed=self.seed)

        def search(queries: np.ndarray, *, own: np.ndarray | None, k: int) -> np.ndarray:
            if own is None:
                raise UserError("KnnEmbed mixes what is in the users' history: name that array in `history`")
            return retrieve(
                queries,
                items,
                own=own,
                label=label,
                count=k,
                smoothing=self.smoothing,
                neighbours=self.neighbours,
                seen=own,
            )

        return search


@chz.chz
class RetrieveLists(Retrieve):
    """As `Retrieve`, but by lists that `way` makes, for metrics of lists too (train/metrics/lists.py).

    "seconds_per_query" is what a query took here, all of them in one call and with whatever else the machine did.
    """

    way: Way = chz.field(default_factory=Nearest, doc="how lists are made")
    groups: str | None = chz.field(default=None, doc="array of the corpus with each item's interest, such as category")
    one_by_one: int = chz.field(
        default=0, doc="queries that are also asked alone, for the median and the 99th percentile of the time of one"
    )

    @chz.validate
    def _is_plain(self) -> None:
        if self.reverse or self.corpus is None:
            raise ValueError("RetrieveLists seeks in a corpus, from queries to items alone: name one, without reverse")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        kept = {VALID, self.target, *(s.feature for s in self.slices.values())}
        kept |= {f"{self.target}/length"} | ({self.history, f"{self.history}/length"} if self.history else set())
        batches, queries, items, keys, groups = [], [], [], [], []
        for batch, predictions in self.rows(self.source, predict, progress=progress):
            batches.append({name: value for name, value in batch.items() if name in kept})
            queries.append(column(predictions, "query", what="predictions"))
        assert self.corpus is not None
        for batch, predictions in self.rows(self.corpus, predict, progress=progress):
            items.append(column(predictions, "item", what="predictions"))
            keys.append(column(batch, self.key))
            groups.append(column(batch, self.groups or self.key))
        key, first = np.unique(np.concatenate(keys), return_index=True)
        return self._lists(
            {name: np.concatenate([b[name] for b in batches]) for name in batches[0]},
            queries=np.concatenate(queries),
            items=np.concatenate(items)[first],
            key=key,
            groups=None if self.groups is None else np.concatenate(groups)[first],
        )

    def _lists(
        self, batch: Arrays, *, queries: np.ndarray, items: np.ndarray, key: np.ndarray, groups: np.ndarray | None
    ) -> Evaluation:
        own = None if self.history is None else positions(padded(batch, self.history), key)
        search, k = self.way.open(items), depth(self.metrics)
        begun = time.perf_counter()
        top = search(queries, own=own, k=k)
        seconds = {"seconds_per_query": (time.perf_counter() - begun) / len(queries)}
        seconds |= self._alone(search, queries, own=own, k=k)
        exact = top if isinstance(self.way, Nearest) else Nearest().open(items)(queries, own=own, k=k)
        wanted = padded(batch, self.target)
        known = positions(wanted, key)

        def more(rows: slice) -> Arrays:
            found = {"exact": keys_of(exact[rows], key), "top/vectors": items[top[rows]]}
            if groups is not None:
                found |= {"top/groups": taken(groups, top[rows]), "target/groups": taken(groups, known[rows])}
            return found

        total = rank_lists(self, batch, keys_of(top, key), wanted=wanted, catalogue=len(items), more=more)
        share = ((wanted >= 0) & (known < 0)).sum() / max((wanted >= 0).sum(), 1)
        return total.plus(Evaluation(values={"targets_missing": float(share), **seconds}))

    def _alone(self, search: Search, queries: np.ndarray, *, own: np.ndarray | None, k: int) -> dict[str, float]:
        """As requests come: no query waits for another, and none shares its work."""
        if not self.one_by_one:
            return {}
        taken = []
        for row in range(min(self.one_by_one, len(queries))):
            begun = time.perf_counter()
            search(queries[row : row + 1], own=None if own is None else own[row : row + 1], k=k)
            taken.append(time.perf_counter() - begun)
        middle, slow = np.percentile(taken, (50, 99)).tolist()
        return {"seconds_alone/p50": middle, "seconds_alone/p99": slow}


@chz.chz
class RankLists(Evaluator):
    """Of a model that gives lists itself, as ids predictions[`lists`] [b, K], best first and -1 past the end."""

    target: str = chz.field(default="target", doc="array of the batch with one id or a list (with /length) per row")
    lists: str = "item"
    catalogue: int = chz.field(doc="how many items can be recommended")
    groups: SourceConfig | None = chz.field(default=None, doc="rows of the items, for metrics of interests")
    key: str = chz.field(default="item", doc="array of those rows that identifies the item")
    group: str = chz.field(default="category", doc="array of those rows with the item's interest")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        batches: list[Arrays] = []
        lists: list[np.ndarray] = []
        for batch, predictions in self.rows(self.source, predict, progress=progress):
            batches.append(batch)
            lists.append(column(predictions, self.lists, what="predictions").astype(np.int64))
        batch = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        top, wanted = np.concatenate(lists), padded(batch, self.target)
        groups = {} if self.groups is None else self._groups(top=top, target=wanted)
        return rank_lists(
            self,
            batch,
            top,
            wanted=wanted,
            catalogue=self.catalogue,
            more=lambda rows: {name: value[rows] for name, value in groups.items()},
        )

    def _groups(self, **ids: np.ndarray) -> dict[str, np.ndarray]:
        assert self.groups is not None
        source = self.groups.make()
        rows = source.take(np.arange(len(source)))
        key, first = np.unique(column(rows, self.key), return_index=True)
        group = column(rows, self.group)[first]
        return {f"{name}/groups": taken(group, positions(some, key)) for name, some in ids.items()}


def taken(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The group of each row; -1 where there is none."""
    return np.where(rows >= 0, groups[np.maximum(rows, 0)].astype(np.int64), NO_ITEM)


def rank_lists(
    evaluator: Evaluator,
    batch: Arrays,
    top: np.ndarray,
    *,
    wanted: np.ndarray,
    catalogue: int,
    more: Callable[[slice], Arrays],
) -> Evaluation:
    """Measures lists `top` [b, K] against targets `wanted` [b, m], both ids with -1 for none."""
    if _repeats(top):
        raise UserError("a list shows one item twice: whoever makes lists must show each item once")
    rank = places(top, wanted=wanted, otherwise=catalogue + 1)
    tally = RankTally(evaluator)
    for start in range(0, len(top), BLOCK):
        rows = slice(start, start + BLOCK)
        ranked = Ranked(rank=rank[rows], ties=np.zeros_like(rank[rows]), top=top[rows])
        some = {name: value[rows] for name, value in batch.items()}
        tally.update(ranked, some, catalogue=catalogue, more=more(rows))
    return tally.evaluation()


def places(top: np.ndarray, *, wanted: np.ndarray, otherwise: int) -> np.ndarray:
    """[b, m] place of each target in its list, from 1; 0 where there is no target, or it is listed before."""
    rank = np.zeros(wanted.shape, np.int64)
    for j in range(wanted.shape[1]):
        there = top == wanted[:, j : j + 1]
        place = np.where(there.any(axis=1), there.argmax(axis=1) + 1, otherwise)
        twice = (wanted[:, :j] == wanted[:, j : j + 1]).any(axis=1)
        rank[:, j] = np.where((wanted[:, j] >= 0) & ~twice, place, 0)
    return rank


def _repeats(top: np.ndarray) -> bool:
    ordered = np.sort(top, axis=1)
    return bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any())
