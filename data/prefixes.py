"""Every beginning of a history as a row of its own, with the item that came after it."""

import chz
import numpy as np

from data.errors import UserError
from data.features import Features, Label, Sequence
from data.sources import Rows, Source, SourceConfig
from data.splits import column


@chz.chz
class Prefixes(SourceConfig):
    """Rows of `of`, cut after `least` items, after one more, and so on; the label `target` is the item that follows.

    Where `of` has that label, the whole history with it is one row more. Sequences of the history's declared length are
    cut with it.
    """

    of: SourceConfig = chz.field(doc="one row a user")
    history: str = chz.field(default="history", doc="sequence of item ids")
    target: str = chz.field(default="target", doc="label with the item after the history; added where `of` has none")
    least: int = chz.field(default=1, doc="items of the shortest row")

    @chz.validate
    def _check(self) -> None:
        if self.least < 1:
            raise ValueError(f"least is {self.least}; a row needs an item to go by")

    def make(self) -> "PrefixRows":
        source = self.of.make()
        history = source.features[self.history]
        if not isinstance(history, Sequence) or not history.size:
            raise UserError(f"Prefixes: {self.history!r} is no sequence of ids but {history.kind}")
        return PrefixRows(source, config=self)


class PrefixRows:
    """Cut when taken; what is held are two numbers a row."""

    def __init__(self, source: Source, *, config: Prefixes):
        self._source, self._config = source, config
        self._labelled = config.target in source.features
        self.features: Features = source.features
        if not self._labelled:
            self.features = source.features.plus(Label(name=config.target, type="class"))
        width = source.features[config.history].max_len
        self._together = [
            f.name
            for f in source.features.all
            if isinstance(f, Sequence) and f.kind == "sequence" and f.length == width
        ]
        length = column(source, f"{config.history}/length").astype(np.int64)
        count = np.maximum(length + self._labelled - config.least, 0)
        self._row = np.repeat(np.arange(len(length)), count)
        self._cut = config.least + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> Rows:
        return {name: values[0] for name, values in self.take(np.array([index])).items()}

    def take(self, indices: np.ndarray) -> Rows:
        rows, cut = self._source.take(self._row[indices]), self._cut[indices]
        history, length = rows[self._config.history], rows[f"{self._config.history}/length"]
        at = np.minimum(cut, history.shape[1] - 1)
        following = history[np.arange(len(cut)), at]
        if self._labelled:
            following = np.where(cut < length, following, rows[self._config.target])
        out = {**rows, self._config.target: following.astype(np.int32)}
        for name in self._together:
            shape = (-1, history.shape[1], *(1,) * (rows[name].ndim - 2))
            kept = (np.arange(history.shape[1]) < cut[:, None]).reshape(shape)
            out[name] = np.where(kept, rows[name], np.zeros((), rows[name].dtype))
            out[f"{name}/length"] = np.minimum(rows[f"{name}/length"], cut).astype(np.int32)
        return out
