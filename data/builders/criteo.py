"""Criteo's display ads of the Kaggle challenge: 7 days of clicks, 13 numbers and 26 hashed categories a row."""

from collections.abc import Mapping

import pyarrow as pa

from data.builders.base import Builder, Config
from data.building.ledger import Keys
from data.building.parts import at_random, by_row
from data.building.read import Manual
from data.features import Categorical, Features, Label, Numeric

NUMBERS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
ROWS = 100_000
"""Rows of each hashed table."""


class Criteo(Builder):
    """The labelled file of the challenge; rows are in the order of time, so the last tenth tests."""

    BUILDER_CONFIGS = [
        Config(name="temporal", description="first 80 % of rows, next 10 %, last 10 %"),
        Config(name="random", description="8:1:1 by a hash of the row's number"),
    ]
    home = "Criteo AI Lab's page of the Kaggle Display Advertising Challenge data set (ailab.criteo.com)"
    citation = "Criteo Labs: Display Advertising Challenge, Kaggle, 2014."
    licence = "Criteo's terms of use of the data set: research; no redistribution."
    columns = pa.schema(
        [("label", pa.float32()), *((n, pa.float32()) for n in NUMBERS), *((n, pa.string()) for n in CATEGORIES)]
    )
    keys = Keys(label="label")

    def parts(self, manual: Manual):
        names = ("train.txt", "train_examples.txt")
        if self.builder_config.name == "random":
            return {split: at_random(self._rows(manual, names), split) for split in ("train", "valid", "test")}
        total = manual.length(*names)
        marks = (0, total * 8 // 10, total * 9 // 10, total)
        return {
            split: by_row(self._rows(manual, names), start=marks[i], end=marks[i + 1])
            for i, split in enumerate(("train", "valid", "test"))
        }

    def _rows(self, manual: Manual, names: tuple[str, ...]):
        for table in manual.csv(*names, schema=self.columns, delimiter="\t", has_header=False, quote=False):
            yield manual.binary(table, "label")

    @classmethod
    def adloom_features(cls, rows: Mapping[str, int], *, config: str | None = None) -> Features:
        return Features(
            all=(
                *(Numeric(name=name, transform="none", default=0.0) for name in NUMBERS),
                *(Categorical(name=name, rows=ROWS, encode="hash") for name in CATEGORIES),
                Label(name="label"),
            )
        )
