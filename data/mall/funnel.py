"""Impressions with all that followed: click, cart, purchase."""

from functools import lru_cache

import chz
import numpy as np

from data.features import Label, Truth
from data.mall.build import build, shard_of
from data.mall.commerce import conversions, purchase_chances
from data.mall.config import Mall
from data.mall.events import Table
from data.mall.sources import MallClicks, WithHistory
from data.mall.users import users


@lru_cache(maxsize=2)
def outcomes(mall: Mall) -> Table:
    """Of each impression of the log: whether it led to a cart and to a purchase, and the chance of the latter.

    `true_cvr` is the chance of a purchase if this impression were clicked, of those that were not as well.
    """
    built = build(mall)
    parts = []
    for shard in range(mall.shards):
        log, people = shard_of(built, shard), users(mall, shop=built.shop, shard=shard)
        row, click = log.impressions, log.impressions["click"]
        after = conversions(mall, shop=built.shop, people=people, log=log, shard=shard)
        cart, buy = np.zeros(len(click), bool), np.zeros(len(click), bool)
        cart[click], buy[click] = after["cart"], after["buy"]
        p_cart, p_buy = purchase_chances(mall, shop=built.shop, people=people, row=row)
        parts.append({"cart": cart, "purchase": buy, "true_cvr": (p_cart * p_buy).astype(np.float32)})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@chz.chz
class MallFunnel(MallClicks):
    """The rows of MallClicks with two more labels, cart and purchase, and with the truth about purchases."""

    def make(self) -> WithHistory:
        source = super().make()
        start, end = self.mall.period(self.split)
        time = build(self.mall).log.impressions["time"]
        keep = np.flatnonzero((time >= start) & (time < end))
        more = {name: column[keep] for name, column in outcomes(self.mall).items()}
        more["true_purchase"] = source.columns["true_ctr"] * more["true_cvr"]
        kinds = {"cart": Label, "purchase": Label, "true_cvr": Truth, "true_purchase": Truth}
        source.features = source.features.plus(*(kind(name=name) for name, kind in kinds.items()))
        source.columns |= {name: more[name].astype(np.float32) for name in kinds}
        return source
