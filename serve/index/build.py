"""From vectors to an index: exact, ScaNN, or live with either behind it."""

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
    items, keys = _items(vectors, ids=ids, metric=metric)
    columns = _columns(attributes, count=len(keys))
    plan = Plan(engine=engine, recall=recall, queries=held_out(queries, dim=items.shape[1]), threads=threads)
    made = plan.make(items)
    return FixedIndex(made.engine, ids=keys, attributes=columns, metric=metric, model=model, made=made.about)


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
    items, keys = _items(vectors, ids=ids, metric=metric)
    columns = _columns(attributes, count=len(keys))
    plan = Plan(engine=engine, recall=recall, queries=held_out(queries, dim=items.shape[1]), threads=threads)
    return LiveIndex(
        plan.make(items),
        ids=keys,
        attributes=columns,
        plan=plan,
        metric=metric,
        model=model,
        merge_by_itself=merge_by_itself,
    )


def _items(vectors: np.ndarray, *, ids: Ids, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    items, keys = checked_items(vectors, ids=ids, metric=metric)
    if not len(keys):
        raise UserError("there are no vectors to index; an index needs vectors [n, d] and an id each")
    return items, keys


def _columns(attributes: Attributes | None, *, count: int) -> Attributes:
    columns = Attributes.none(count) if attributes is None else attributes
    if columns.count != count:
        raise UserError(f"there are {columns.count} rows of attributes for {count} vectors; give each item one")
    return columns
