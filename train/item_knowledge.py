"""Fills what a model is given of its items (modules/layers/given.py) before the first step.

Everything is computed from a sequence folder: words from items.tsv, counts from the items before the targets of the
`split` that is named. Nothing reads what an item's number is.
"""

import re
from functools import partial
from typing import Any

import chz
import numpy as np

from data.errors import UserError
from data.item_texts import read_texts, tfidf, vectors
from data.paths import expand
from data.sequence_file import SequenceFile
from data.sources import SourceConfig
from data.strongest import Block, strongest
from data.whole_histories import popular_first, sequences_of
from data.word_pairs import pair_facts
from train.floors import Floors
from train.init_from import STATS, LoadReport, Start, placed
from train.linear_next import LinearNext

LISTS = re.compile(r"(?:^|/)related/(\w+)/items$")


class Fills(Start):
    """A start that fills some of the state's running statistics and leaves all else as it is."""

    def values(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """By name, for the names among `shapes` that are its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define values")

    def apply(self, state: dict[str, Any]) -> tuple[dict[str, Any], LoadReport]:
        stats = state["stats"]
        found = self.values({name: tuple(array.shape) for name, array in stats.items()})
        wrong = [name for name, value in found.items() if value.shape != stats[name].shape]
        if wrong:
            shapes = f"{found[wrong[0]].shape}, the model has {stats[wrong[0]].shape}"
            raise UserError(f"init_from {self.origin} gives {wrong[0]} of {shapes}: is it the same catalogue?")
        filled = {name: placed(value, like=stats[name]) for name, value in found.items()}
        report = LoadReport(
            loaded=tuple((STATS + name, self.origin) for name in filled),
            grown=(),
            missing=(),
            surplus=(),
            mismatched=(),
            left_out=tuple(state["params"]),
        )
        return {**state, "stats": {**stats, **filled}}, report


@chz.chz
class WordVectors(Fills):
    """Leading directions of TF-IDF for every `content/vectors` of the model."""

    path: str = chz.field(doc="sequence folder with items.tsv; may begin with $NAME")
    space: str | None = chz.field(default=None, doc="folder whose words span the space, where it is another's")

    @property
    def origin(self) -> str:
        return f"the words of {self.path}"

    def values(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        own = {name: shape for name, shape in shapes.items() if name.endswith("content/vectors")}
        if not own:
            raise UserError("init_from words: the model takes no given vectors; use SASRecContent")
        rows, width = next(iter(own.values()))
        other = None if self.space is None else SequenceFile(path=self.space).make().features["history"].size
        space = None if self.space is None or other is None else read_texts(expand(self.space), rows=other)
        found = vectors(read_texts(expand(self.path), rows=rows), width=width, space=space)
        return dict.fromkeys(own, found)


@chz.chz
class RelatedItems(Fills):
    """The strongest relations of each item for a model's lists `related/<name>`.

    transitions  the floors' counts
    words        the floors' cosine of title and category words
    phrases      the same of words and of each two in a row
    linear       the weights of a linear next-item model
    """

    source: SourceConfig = chz.field(doc="rows whose histories and targets are counted: leave out what judges")
    texts: str | None = chz.field(default=None, doc="sequence folder with items.tsv, for words")
    floors: Floors = chz.field(default_factory=Floors)
    linear: LinearNext = chz.field(default_factory=LinearNext)

    @property
    def origin(self) -> str:
        return f"what goes together in {type(self.source).__name__}"

    def values(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        lists = {name: found[1] for name in shapes if (found := LISTS.search(name))}
        if not lists:
            raise UserError("init_from related items: the model has no lists of them; use Mixture with relations")
        items, lengths = sequences_of(self.source)
        users = np.repeat(np.arange(len(lengths)), lengths)
        values: dict[str, np.ndarray] = {}
        for name, relation in lists.items():
            rows, listed = shapes[name]
            block = self._matrix(relation, items=items, users=users, rows=rows)
            ids, weights = strongest(block, count=listed, order=popular_first(items, size=rows))
            values |= {name: ids, name.removesuffix("items") + "weights": weights}
        return values

    def _matrix(self, name: str, *, items: np.ndarray, users: np.ndarray, rows: int) -> Block:
        """Some rows of a relation, dense."""
        if name == "transitions":
            counts = self.floors.transitions(items, users, rows=rows)
            return lambda part: counts[part].toarray()
        if name == "linear":
            weights = self.linear.weights(items, users, rows=rows)
            return lambda part: weights[part]
        if name in ("words", "phrases"):
            if self.texts is None:
                raise UserError("init_from related items: words are in items.tsv; name its folder in `texts`")
            words = tfidf(read_texts(expand(self.texts), rows=rows), pairs=name == "phrases")[0]
            return lambda part: (words[part] @ words.T).toarray()
        raise UserError(f"no relation {name!r}; there are transitions, words, phrases and linear")


@chz.chz
class PairFacts(Fills):
    """The nearest items by words of each item, and what the words of the two say, for `WordPairs`."""

    path: str = chz.field(doc="sequence folder with items.tsv; may begin with $NAME")

    @property
    def origin(self) -> str:
        return f"the words of {self.path}, two by two"

    def values(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        if not {"items", "facts"} <= shapes.keys():
            raise UserError("init_from facts of pairs: the model has no lists with facts; use WordPairs")
        rows, listed = shapes["items"]
        read = partial(read_texts, expand(self.path), rows=rows)
        items, facts = pair_facts(read(columns=("title",)), read(columns=("categories", "genres")), listed=listed)
        return {"items": items, "facts": facts}
