"""Id dropout: training rows that know an item by its content alone, so that new items are served as well.

A new item has no id of its own at serving: it takes the unknown row. Without dropout that row is hardly ever trained,
and a tower that always saw ids has no use for the content beside them.
"""

from collections.abc import Mapping

import chz
import numpy as np

from data.errors import UserError
from data.features import FIRST, UNKNOWN, Features
from data.sources import Rows
from data.transforms.base import Transform


@chz.chz
class IdDropout(Transform):
    """In training, ids give way to the unknown id; evaluation and serving, which do not run the loader's transforms,
    see every id. A history loses single behaviours' ids; missing ids and padding stay."""

    rates: Mapping[str, float] = chz.field(doc="probability by feature of ids, such as item or history")

    @chz.validate
    def _rates_make_sense(self):
        for name, rate in self.rates.items():
            if not 0 <= rate < 1:
                raise ValueError(f"rates[{name!r}] is {rate}; a probability of dropping is at least 0 and below 1")

    def features(self, features: Features) -> Features:
        for name in self.rates:
            if not features[name].size or features[name].kind == "text":
                raise UserError(f"IdDropout: {name!r} is {features[name].kind} and has no ids to drop")
        return features

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        out = dict(batch)
        for name, rate in self.rates.items():
            ids = batch[name]
            out[name] = np.where((rng.random(ids.shape) < rate) & (ids >= FIRST), ids.dtype.type(UNKNOWN), ids)
        return out
