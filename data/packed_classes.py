"""Packed pictures with what their listings are, as classes, and the names of those classes as texts."""

import chz
import numpy as np
import pyarrow as pa

from data.encode import encode
from data.errors import UserError
from data.features import Features, Label, Text
from data.packed_images import ATTRIBUTES, PackedImages
from data.sources import InMemory, Rows, Source
from data.vocabulary import Vocabularies

NOTHING = ("", "NA")
"""Values that say that a listing does not say."""


@chz.chz
class PackedClasses(PackedImages):
    """As `PackedImages`, with a number for the value of each of `classes`; -1 where a listing states none."""

    classes: tuple[str, ...] = chz.field(default=("masterCategory", "subCategory", "articleType", "baseColour"))
    distinct: bool = chz.field(default=False, doc="the first listing of each title alone: who asks by titles asks once")

    def make(self) -> Source:
        items = self._listings()
        for name in self.classes:
            value = pa.array(numbers(items, name))
            items = items.set_column(items.column_names.index(name), name, value)
        return self._open(items, more=tuple(Label(name=name, type="class") for name in self.classes))

    def _of_split(self, items: pa.Table) -> pa.Table:
        chosen = super()._of_split(items)
        if self.distinct:
            _, first = np.unique(chosen["product"].to_numpy(), return_index=True)
            chosen = chosen.take(pa.array(np.sort(first)))
        return chosen


@chz.chz
class PackedPrompts(PackedImages):
    """A row per value of one attribute: its name as a title, as it stands in the file."""

    of: str = chz.field(doc="attribute, such as baseColour")

    def make(self) -> Source:
        items = self._listings()
        names = values(items, self.of)
        vocabularies = self._vocabularies(items)
        table = pa.table({"title": names, self.of: np.arange(len(names))})
        return _texts(table, title=self._title(vocabularies), label=self.of, vocabularies=vocabularies)


@chz.chz
class PackedTitles(PackedImages):
    """A row per product: its title, without any picture, for an encoder of texts."""

    def make(self) -> Source:
        items = self._listings()
        vocabularies = self._vocabularies(items)
        _, first = np.unique(items["product"].to_numpy(), return_index=True)
        table = items.select(["title", "product"]).take(pa.array(first)).combine_chunks()
        return _texts(table, title=self._title(vocabularies), label="product", vocabularies=vocabularies)


@chz.chz
class PackedListings(PackedImages):
    """As `PackedImages`, with the listing's number as "id": for an encoder of pictures, whose vectors go by it."""

    def make(self) -> Source:
        return self._open(self._listings(), more=(Label(name="id", type="class"),))


def _texts(table: pa.Table, *, title: Text, label: str, vocabularies: Vocabularies) -> "Texts":
    features = Features(all=(title, Label(name=label, type="class")))
    told = encode(table, features=features, vocabularies=vocabularies, file="titles")
    return Texts(told.rows, features=features, vocabularies=vocabularies)


class Texts(InMemory):
    """Rows in memory with the tokenizer that a model carries along."""

    def __init__(self, columns: Rows, *, features: Features, vocabularies: Vocabularies):
        super().__init__(columns, features=features)
        self.vocabularies = vocabularies


def values(items: pa.Table, name: str) -> list[str]:
    """What listings state of an attribute, in alphabetical order."""
    if name not in ATTRIBUTES:
        raise UserError(f"listings have no attribute {name!r}; they have {', '.join(ATTRIBUTES)}")
    return sorted({value for value in items[name].to_pylist() if value not in NOTHING})


def numbers(items: pa.Table, name: str) -> np.ndarray:
    place = {value: number for number, value in enumerate(values(items, name))}
    return np.array([place.get(value, -1) for value in items[name].to_pylist()], np.int64)
