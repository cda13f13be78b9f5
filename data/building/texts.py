"""Tokenizers of a data set's own texts, learnt from the training split while it is built."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from data.features import Features, Text
from data.tokenizer import LONGEST, train

MOST = 1_000_000
"""Texts that a tokenizer is learnt from, the first."""


def tokenizers(features: Features) -> dict[str, list[str]]:
    """Tokenizer file -> the text columns that it serves."""
    found: dict[str, list[str]] = {}
    for feature in features.all:
        if isinstance(feature, Text) and feature.tokenizer is not None:
            found.setdefault(feature.tokenizer, []).append(feature.name)
    return found


class Texts:
    """Distinct enough texts of some columns, cut to the length that is learnt from."""

    def __init__(self, columns: list[str]):
        self.columns = columns
        self._held: list[pa.Array] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        for name in self.columns:
            if self._rows < MOST:
                values = pc.utf8_slice_codeunits(table[name].combine_chunks(), 0, LONGEST)
                self._held.append(values)
                self._rows += len(values)

    def learn(self, *, size: int):
        return train(self._batches(), size=size)

    def _batches(self) -> Iterator[list[str]]:
        return (values.to_pylist() for values in self._held)
