"""Sequence files with what the items table says of each item, beside its id."""

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, Categorical, Sequence
from data.item_texts import TABLE, read_texts
from data.paths import expand
from data.sequence_file import SequenceFile
from data.sources import InMemory

COLUMN, APART = "categories", " > "


@chz.chz
class SequenceAttributes(SequenceFile):
    """`SequenceFile` with "history_level_1" and so on: the category of each item, ever finer, from items.tsv.

    A level is the path down to it, so that "Face > Lotions" is not "Body > Lotions"; level 1 stands below the root,
    which all items share. An item whose path ends before a level, or that the table lacks, has none there (id 0).
    """

    levels: int = chz.field(default=3, doc="categories of an item, below the root of its path")

    @chz.validate
    def _some(self) -> None:
        if self.levels < 1:
            raise ValueError(f"levels is {self.levels}; without any, use SequenceFile")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"history_level_{k}" for k in range(1, self.levels + 1))

    def make(self) -> InMemory:
        plain = super().make()
        features, columns = plain.features, dict(plain.columns)
        history, length = columns["history"], columns["history/length"]
        for name, of_id in zip(self.names, self._known(rows=features["history"].size), strict=True):
            inner = Categorical(name=name.removeprefix("history_"), role="user", rows=max(int(of_id.max()), FIRST) + 1)
            features = features.plus(Sequence(name=name, role="user", of=inner, length=self.max_len))
            columns |= {name: of_id[history], f"{name}/length": length}
        return InMemory(columns, features=features)

    def _known(self, *, rows: int) -> list[np.ndarray]:
        """Of each level, the id of its category by that of an item."""
        told = read_texts(expand(self.path), rows=rows, columns=(COLUMN,))
        if not any(told):
            raise UserError(f"{self.path}/{TABLE} states no {COLUMN}: without any, use SequenceFile")
        paths = [words.split(APART) if words else [] for words in told]
        levels = []
        for level in range(2, self.levels + 2):
            cut = [APART.join(path[:level]) if len(path) >= level else "" for path in paths]
            values = sorted({path for path in cut if path})
            number = {"": 0, **{path: FIRST + k for k, path in enumerate(values)}}
            levels.append(np.array([number[path] for path in cut], np.int32))
        return levels
