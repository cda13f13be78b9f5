"""What follows a click, beside the click rows: the same rows, labels nested, truth that the labels follow."""

import numpy as np

from data.mall.build import after, build
from data.mall.config import Mall
from data.mall.funnel import MallFunnel, outcomes
from data.mall.sources import MallClicks

MALL = Mall(size="small")


def test_rows_are_those_of_the_clicks_with_more_labels():
    plain, source = (kind(mall=MALL, split="valid", history=5).make() for kind in (MallClicks, MallFunnel))
    assert [f.name for f in source.features] == [f.name for f in plain.features]
    index = np.arange(0, len(plain), 7)
    one, two = plain.take(index), source.take(index)
    for name, column in one.items():
        np.testing.assert_array_equal(two[name], column, err_msg=name)
    assert set(two) - set(one) == {"cart", "purchase", "true_cvr", "true_purchase"}


def test_each_step_needs_the_one_before_and_equals_the_log():
    click = build(MALL).log.impressions["click"]
    found, log = outcomes(MALL), after(MALL)["conversions"]
    assert not (found["cart"] & ~click).any() and not (found["purchase"] & ~found["cart"]).any()
    for name, theirs in (("cart", "cart"), ("purchase", "buy"), ("true_cvr", "true_cvr")):
        np.testing.assert_array_equal(found[name][click], log[theirs])


def test_purchases_follow_their_chance():
    click, found = build(MALL).log.impressions["click"], outcomes(MALL)
    wanted, seen = found["true_cvr"][click].sum(), found["purchase"].sum()
    assert seen > 100 and abs(seen - wanted) < 4 * np.sqrt(wanted)
    # Those who click are likelier to buy: why conversion learned from clicks alone is biased.
    assert found["true_cvr"][click].mean() > 1.2 * found["true_cvr"][~click].mean()
