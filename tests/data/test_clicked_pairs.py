"""Pairs out of clicks against loops, each rule alone; and the mall's searches by photo."""

from collections import defaultdict

import chz
import numpy as np
import pytest

from data.clicked_pairs import Clicked, ClickRule, clicked_pairs, co_clicked, words_in_common
from data.errors import UserError
from data.features import FIRST
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.image_search import ImageSearch, searches
from data.mall.same_style import MallClickedPairs, MallSameStyle, is_hardware
from data.transforms.same_content import SameContent


@pytest.fixture
def log(rng):
    rows = 400
    return {
        "trigger": rng.integers(0, 8, rows),
        "offer": rng.integers(0, 8, rows),
        "user": rng.integers(0, 6, rows),
        "relevance": rng.random(rows),
        "category": rng.integers(0, 2, 8),
    }


def by_loops(log, rule):
    users = defaultdict(set)
    for t, o, u, r in zip(log["trigger"], log["offer"], log["user"], log["relevance"], strict=True):
        if t != o and r >= rule.relevance and (not rule.category or log["category"][t] == log["category"][o]):
            users[t, o].add(u)
    found, clicks = [], log["offer"].tolist()
    for t in range(8):
        offers = [
            (-len(users[t, o]), -clicks.count(o), clicks.index(o), o)
            for o in range(8)
            if len(users[t, o]) >= rule.users
        ]
        found += [(t, o, -n) for n, _, _, o in sorted(offers)[: rule.offers]]
    return found


@pytest.mark.parametrize(
    "rule",
    [
        ClickRule(users=1, category=False),
        ClickRule(users=3),
        ClickRule(users=1, relevance=0.6),
        ClickRule(users=1, category=False, offers=2),
    ],
)
def test_pairs_are_those_of_loops(log, rule):
    pairs = clicked_pairs(**log, rule=rule)
    assert list(zip(*(a.tolist() for a in pairs), strict=True)) == by_loops(log, rule)
    assert len(pairs.trigger)


def test_a_rule_without_its_column_is_refused(log):
    for rule, lost in ((ClickRule(), "category"), (ClickRule(category=False, relevance=0.5), "relevance")):
        with pytest.raises(ValueError, match=lost):
            clicked_pairs(**{**log, lost: None}, rule=rule)


def test_other_offers_of_a_trigger_are_named():
    pairs = Clicked(np.array([1, 1, 1, 4]), np.array([7, 8, 9, 7]), np.array([3, 2, 1, 1]))
    assert co_clicked(pairs, width=2).tolist() == [[8, 9], [7, 9], [7, 8], [-1, -1]]
    assert co_clicked(Clicked(*[np.zeros(0, int)] * 3), width=2).shape == (0, 2)


def test_words_in_common():
    left, right = np.array([[2, 3, 0], [0, 0, 0], [4, 5, 6]]), np.array([[3, 4, 5], [0, 0, 0], [6, 5, 4]])
    np.testing.assert_allclose(words_in_common(left, right), [1 / 4, 0, 1])


LAW = ImageSearch(mall=Mall(size="tiny"), requests=6_000)


def test_clicks_follow_relevance_and_exposure_follows_popularity():
    log, shop = searches(LAW), shop_of(LAW.mall)
    seen = (1.0 + np.arange(LAW.slots)) ** -LAW.mall.exposure.position
    for slot in range(LAW.slots):
        rate = float(log["relevance"][:, slot].mean() * seen[slot])
        assert log["click"][:, slot].mean() == pytest.approx(rate, abs=4 * np.sqrt(rate / LAW.requests))
    chance = float(log["uniform_relevance"].mean())
    assert log["uniform_click"].mean() == pytest.approx(chance, abs=4 * np.sqrt(chance / log["uniform_click"].size))
    assert (log["item"] != log["query"][:, None]).all()
    assert np.log(shop.weight[log["item"]]).mean() > np.log(shop.weight[log["uniform_item"]]).mean() + 0.2
    same = shop.spu[log["item"]] == shop.spu[log["query"]][:, None]
    assert log["relevance"][same].mean() > log["relevance"][~same].mean() + 0.3
    assert (np.diff(log["time"]) >= 0).all()


def test_rows_show_both_sides_and_share_no_product_with_the_evaluation():
    shop = shop_of(LAW.mall)
    source = MallClickedPairs(search=LAW, rule=ClickRule(users=2)).make()
    rows = source.take(np.arange(40))
    for name, (shape, dtype) in source.features.arrays().items():
        assert rows[name].shape == (40, *shape) and rows[name].dtype == dtype, name
    trigger, offer = rows["trigger"] - FIRST, rows["offer"] - FIRST
    assert (shop.leaf[trigger] == shop.leaf[offer]).all() and (trigger != offer).all()
    assert (shop.spu[trigger] == shop.spu[offer]).mean() > 0.5
    judged = MallSameStyle(mall=LAW.mall).make()
    spu = judged.take(np.arange(len(judged)))["spu"]
    assert not set(spu.tolist()) & set(shop.spu[np.concatenate([trigger, offer])].tolist())
    hardware = is_hardware(shop)[trigger]
    assert hardware.any() and (~hardware).any()
    for leaf in np.unique(shop.leaf[trigger[hardware]]):
        stock = rows["image"][shop.leaf[trigger] == leaf]
        assert (stock == stock[:1]).all()
    assert (rows["image"][~hardware] != rows["offer_image"][~hardware]).any(axis=(1, 2, 3)).all()


def test_families_part_the_truth():
    count = {
        f: len(MallSameStyle(mall=LAW.mall, split="train", family=f).make()) for f in ("all", "fashion", "hardware")
    }
    assert count["all"] == count["fashion"] + count["hardware"] and min(count.values()) > 0


def test_a_rule_that_nothing_meets_is_named():
    with pytest.raises(UserError, match="no pair meets the rule"):
        MallClickedPairs(search=chz.replace(LAW, requests=100), rule=ClickRule(users=50)).make()


def test_equal_content_has_one_number():
    views = {"a": np.array([[1, 2], [1, 2], [1, 3]]), "b": np.array([[5], [5], [5]], np.uint8)}
    got = SameContent(views=("a", "b"), name="same")(views, rng=None)["same"]
    assert got[0] == got[1] != got[2] and got.dtype == np.int32 and (got >= 0).all()
    assert SameContent(views=("a",))({"a": views["a"]}, rng=None)["content"][0] != got[0]
