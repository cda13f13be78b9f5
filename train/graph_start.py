"""Texts and edges of a graph of people and items, as the state that a graph recommender starts from."""

from typing import Any

import chz
import numpy as np

from data.errors import UserError
from data.sources import Rows, Source, SourceConfig
from train.init_from import STATS, LoadReport, Start, placed

BLOCK = 8192


@chz.chz
class GraphFrom(Start):
    """Fills a `TextGraph`: edges are the rows of `pairs`, each once; texts those of `items`, and of a person the mean
    of the items taken. `shuffled` gives every item another's text, which must cost what the texts are worth."""

    pairs: SourceConfig = chz.field(doc="rows of training, with a user and an item")
    items: SourceConfig = chz.field(doc="every item with its text's vector")
    user: str = "user"
    item: str = "item"
    content: str = "content"
    under: str = chz.field(default="graph", doc="path of the graph in the model")
    shuffled: bool = chz.field(default=False, doc="texts permuted among the items")

    @property
    def origin(self) -> str:
        return f"{type(self.pairs).__name__} and {type(self.items).__name__}"

    def apply(self, state: dict[str, Any]) -> tuple[dict[str, Any], LoadReport]:
        names = {n: f"{self.under}/{n}" for n in ("people", "listings", "user", "item", "weight")}
        if lost := [path for path in names.values() if path not in state["stats"]]:
            raise UserError(f"the model has no {lost[0]!r}: init_from.under is the path of its graph of texts")
        shapes = {n: state["stats"][path].shape for n, path in names.items()}
        values = self.arrays(**shapes)
        stats = dict(state["stats"])
        for name, value in values.items():
            stats[names[name]] = placed(value, like=stats[names[name]])
        report = LoadReport(
            loaded=tuple((STATS + path, self.origin) for path in names.values()),
            grown=(),
            missing=(),
            surplus=(),
            mismatched=(),
            left_out=tuple(state["params"]),
        )
        return {**state, "stats": stats}, report

    def arrays(self, *, people: tuple, listings: tuple, user: tuple, item: tuple, weight: tuple) -> Rows:
        """By the names of `TextGraph`, from the shapes there."""
        told, taken = (
            _columns(self.items.make(), self.item, self.content),
            _columns(self.pairs.make(), self.user, self.item),
        )
        texts = np.zeros(listings, np.float32)
        if told[self.content].shape[1] != listings[1]:
            raise UserError(
                f"texts have {told[self.content].shape[1]} numbers, the model's {listings[1]}: set model.texts"
            )
        texts[told[self.item]] = told[self.content]
        if self.shuffled:
            order = np.random.default_rng(0).permutation(len(told[self.item]))
            texts[told[self.item]] = told[self.content][order]
        edges = np.unique(np.stack([taken[self.user], taken[self.item]]), axis=1)
        count = edges.shape[1]
        if count > user[0]:
            raise UserError(f"{count:,} pairs of person and item, but room for {user[0]:,}: raise model.edges")
        of_user, of_item = (
            np.bincount(ids, minlength=n) for ids, n in zip(edges, (people[0], listings[0]), strict=True)
        )
        mean = np.zeros(people, np.float32)
        np.add.at(mean, edges[0], texts[edges[1]])
        room = (0, user[0] - count)
        return {
            "people": mean / np.maximum(of_user, 1)[:, None],
            "listings": texts,
            "user": np.pad(edges[0], room).astype(np.int32),
            "item": np.pad(edges[1], room).astype(np.int32),
            "weight": np.pad(1 / np.sqrt(of_user[edges[0]] * of_item[edges[1]]), room).astype(np.float32),
        }


def _columns(source: Source, *names: str) -> Rows:
    blocks = [source.take(np.arange(at, min(at + BLOCK, len(source)))) for at in range(0, len(source), BLOCK)]
    if not blocks:
        raise UserError("a graph needs rows, and its source has none")
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}
