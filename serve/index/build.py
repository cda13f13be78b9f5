"""From vectors to an index: exact, ScaNN, or live with either behind it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.errors import UserError
from serve.index.attributes import Attributes
from serve.index.base import Ids, Metric, checked_items
from serve.index.fixed import FixedIndex
from serve.index.live import LiveIndex
from serve.index.plan import EngineName, Plan, held_out

Engines = Literal["exact", "scann", "live"]


def build(
    vectors: np.ndarray,
    *,
    ids: Ids,
    metric: Metric = "dot",
    model: str = "",
    engine: EngineName = "exact",
    recall: float | None = None,
    queries: np.ndarray | None = None,
    attributes: Attributes | None = None,
    threads: int = 0,
) -> FixedIndex:
    """An index of `vectors` made by model version `model`.

    ScaNN's settings are the fastest of those tried that reach `recall` at 10 on `queries`, which should be vectors of
    what will be asked; without them rows of the index are asked for their neighbours.
    """
    items = _Items.checked(vectors, ids=ids, metric=metric, attributes=attributes)
    plan = items.plan(engine=engine, recall=recall, queries=queries, threads=threads)
    made = plan.make(items.vectors)
    return FixedIndex(
        made.engine, ids=items.ids, attributes=items.attributes, metric=metric, model=model, made=made.about
    )


def build_live(
    vectors: np.ndarray,
    *,
    ids: Ids,
    metric: Metric = "dot",
    model: str = "",
    engine: EngineName = "scann",
    recall: float | None = None,
    queries: np.ndarray | None = None,
    attributes: Attributes | None = None,
    threads: int = 0,
    merge_by_itself: bool = True,
) -> LiveIndex:
    """The same, to be changed; `engine` is behind it, and is made anew by each merge."""
    items = _Items.checked(vectors, ids=ids, metric=metric, attributes=attributes)
    plan = items.plan(engine=engine, recall=recall, queries=queries, threads=threads)
    return LiveIndex(
        plan.make(items.vectors),
        ids=items.ids,
        attributes=items.attributes,
        plan=plan,
        metric=metric,
        model=model,
        merge_by_itself=merge_by_itself,
    )


@dataclass(frozen=True)
class _Items:
    """What an index is built of: at least one, each with an id and a row of attributes."""

    vectors: np.ndarray
    ids: np.ndarray
    attributes: Attributes

    @classmethod
    def checked(cls, vectors: np.ndarray, *, ids: Ids, metric: Metric, attributes: Attributes | None) -> "_Items":
        vectors, keys = checked_items(vectors, ids=ids, metric=metric)
        if not len(keys):
            raise UserError("there are no vectors to index; an index needs vectors [n, d] and an id each")
        columns = Attributes.none(len(keys)) if attributes is None else attributes
        if columns.count != len(keys):
            raise UserError(f"there are {columns.count} rows of attributes for {len(keys)} vectors; give each item one")
        return cls(vectors, keys, columns)

    def plan(self, *, engine: EngineName, recall: float | None, queries: np.ndarray | None, threads: int) -> Plan:
        held = held_out(queries, dim=self.vectors.shape[1])
        return Plan(engine=engine, recall=recall, queries=held, threads=threads)
