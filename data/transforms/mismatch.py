"""Texts of other things, for models that learn whether a text belongs to a picture."""

import chz
import numpy as np

from data.errors import UserError
from data.features import Features, Label
from data.sources import Rows, Source
from data.splits import column
from data.transforms.base import Bound, Transform


@chz.chz
class Mismatch(Transform):
    """Gives a share of the rows another row's text, and `match`: 1 where the text is the row's own.

    Of `hard` rows drawn from the whole source the one of another label whose text has the rarest words in common with
    the row's own is taken. A row all of whose draws are of its own label keeps its text, and so does one without words.
    """

    text: str = chz.field(default="title", doc="text feature")
    label: str = chz.field(default="spu", doc="array that is equal for rows of one thing")
    share: float = chz.field(default=0.5, doc="of the rows")
    hard: int = chz.field(default=8, doc="rows drawn, of which the most alike is taken; 1: any row")

    @chz.validate
    def _check(self) -> None:
        if not 0 < self.share < 1 or self.hard < 1:
            raise ValueError(f"share {self.share} must lie between 0 and 1, and hard {self.hard} be at least 1")

    def features(self, features: Features) -> Features:
        if features[self.text].kind != "text":
            raise UserError(f"Mismatch exchanges texts, and {self.text!r} is {features[self.text].kind}")
        return features.plus(Label(name="match"))

    def bind(self, source: Source) -> Bound:
        self.features(source.features)
        return _Mismatch(self, source)


class _Mismatch:
    def __init__(self, config: Mismatch, source: Source):
        self.config = config
        self.ids, self.length = column(source, config.text), column(source, f"{config.text}/length")
        self.label = column(source, config.label)
        self.ids = np.where(np.arange(self.ids.shape[1]) < self.length[:, None], self.ids, 0)
        size = source.features[config.text].size
        texts = np.unique(
            np.stack([np.repeat(np.arange(len(self.ids)), self.ids.shape[1]), self.ids.reshape(-1)], 1), axis=0
        )
        count = np.bincount(texts[:, 1], minlength=size)
        self.rarity = np.log(len(self.ids) / np.maximum(count, 1))
        self.rarity[0] = 0.0

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        config, own = self.config, batch[self.config.text]
        rows = len(own)
        luck = rng.random((rows, 1 + config.hard))
        drawn = (luck[:, 1:] * len(self.ids)).astype(np.int64)
        length = batch[f"{config.text}/length"]
        mine = np.where(np.arange(own.shape[1]) < length[:, None], own, 0)
        shared = (mine[:, None, :, None] == self.ids[drawn][:, :, None, :]).any(axis=3)
        alike = (shared * self.rarity[mine][:, None, :]).sum(axis=2)
        other = (self.label[drawn] != batch[config.label][:, None]) & (self.length[drawn] > 0)
        best = np.where(other, alike, -1.0).argmax(axis=1)
        at = np.arange(rows)
        swap = (luck[:, 0] < config.share) & other[at, best] & (length > 0)
        donor = drawn[at, best]
        return {
            **batch,
            config.text: np.where(swap[:, None], self.ids[donor], own),
            f"{config.text}/length": np.where(swap, self.length[donor], length),
            "match": (~swap).astype(np.float32),
        }
