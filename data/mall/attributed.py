"""Histories of the mall with what each listing is, beside its id."""

import chz
import numpy as np

from data.features import FIRST, Categorical, Sequence
from data.mall.build import shop_of
from data.mall.latents import ATTRIBUTES
from data.mall.sources import MallSequences
from data.sources import InMemory

ATTRIBUTE_NAMES = ("category", "brand", *ATTRIBUTES)


@chz.chz
class MallAttributed(MallSequences):
    """`MallSequences` with "history_<name>" for the category, the brand and each attribute of a product."""

    def make(self) -> InMemory:
        plain, mall, shop = super().make(), self.mall, shop_of(self.mall)
        product = shop.spu
        known = {
            "category": (shop.leaf, mall.leaves),
            "brand": (shop.spu_brand[product], mall.dims.brands),
            **{name: (shop.spu_attributes[product, i], values) for i, (name, values) in enumerate(ATTRIBUTES.items())},
        }
        features, columns = plain.features, dict(plain.columns)
        history, length = columns["history"], columns["history/length"]
        for name in ATTRIBUTE_NAMES:
            values, count = known[name]
            of_id = np.concatenate([np.zeros(FIRST, np.int32), FIRST + values])
            inner = Categorical(name=name, role="user", rows=FIRST + count)
            features = features.plus(Sequence(name=f"history_{name}", role="user", of=inner, length=self.max_len))
            columns |= {f"history_{name}": of_id[history], f"history_{name}/length": length}
        return InMemory(columns, features=features)
