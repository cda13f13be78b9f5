"""What was taken in the mall: baskets of purchases, clicks of users, each in its days."""

import numpy as np
import pytest

from data.features import FIRST
from data.mall.baskets import MallTaken
from data.mall.build import after, build, shop_of
from data.mall.config import Mall
from data.pairs import PairsTogether

MALL = Mall(size="tiny")


@pytest.mark.parametrize("what", ["purchases", "clicks"])
def test_splits_part_the_rows_by_time(what):
    rows = {s: MallTaken(mall=MALL, split=s, what=what).make() for s in ("train", "valid", "test")}
    for split, source in rows.items():
        start, end = MALL.period(split)
        assert ((source.columns["time"] >= start) & (source.columns["time"] < end)).all() and len(source)
    log = build(MALL).log.actions
    total = len(after(MALL)["purchases"]["item"]) if what == "purchases" else int(log["click"].sum())
    assert sum(map(len, rows.values())) == total
    if what == "clicks":
        assert (rows["train"].columns["basket"] == rows["train"].columns["user"]).all()


def test_most_pairs_of_a_basket_are_a_product_and_its_complement():
    pairs = PairsTogether(log=MallTaken(mall=MALL), direction="forward").make().columns
    complement = shop_of(MALL).successors[pairs["given"] - FIRST, 1]
    assert np.mean(complement == pairs["item"] - FIRST) > 0.6
