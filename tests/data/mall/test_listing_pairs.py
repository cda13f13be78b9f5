"""Rows of several listings: who stands beside whom, what is missing, which words name a change, and no leaks."""

import chz
import numpy as np
import pytest

from data.features import FIRST
from data.mall.build import build, shop_of
from data.mall.co_clicks import MallCoClicks
from data.mall.composed import CHANGES, MallComposed, _pairs, _values
from data.mall.config import Mall
from data.mall.image_search import ImageSearch, searches
from data.mall.listing_pairs import NOBODY, another, products_of
from data.mall.searches import MallCatalogue, MallSearches, looks
from data.mall.views.words import lexicon
from data.transforms.two_views import TwoViews

MALL = Mall(size="tiny")
SHOP = shop_of(MALL)
SOURCES = {
    "searches": MallSearches(mall=MALL, hard=True),
    "listing": MallSearches(mall=MALL, split="test", asked="listing"),
    "catalogue": MallCatalogue(mall=MALL, split="all"),
    "co_clicks": MallCoClicks(mall=MALL, hard=True),
    "searched": MallCoClicks(mall=MALL, asked="search", hard=True),
    "composed": MallComposed(mall=MALL),
}


@pytest.mark.parametrize("name", SOURCES)
def test_rows_are_as_declared(name):
    source = SOURCES[name].make()
    rows = source.take(np.array([0, len(source) - 1, 0]))
    declared = source.features.arrays()
    assert set(rows) == set(declared)
    for column, (shape, dtype) in declared.items():
        assert rows[column].shape == (3, *shape) and rows[column].dtype == dtype, column
    assert all(np.array_equal(source[0][column], rows[column][2]) for column in declared)


def test_another_of_a_group_is_of_it_and_not_itself():
    groups = np.array([3, 0, 3, 1, 3, 0])
    among, luck = np.repeat(np.arange(6), 50), np.tile(np.linspace(0, 0.999, 50), 6)
    found = another(groups, among=among, luck=luck)
    assert (found[among == 3] == NOBODY).all()
    there = found != NOBODY
    assert (groups[found[there]] == groups[among[there]]).all() and (found != among).all()
    assert set(found[among == 0]) == {2, 4}


def test_a_search_is_by_another_listings_picture_or_by_words():
    source = MallSearches(mall=MALL, hard=True).make()
    asked, product, other = (source.sides[side][0] for side in ("query_", "", "other_"))
    by_picture = asked != NOBODY
    assert 0.2 < by_picture.mean() < 0.95
    assert (SHOP.spu[asked[by_picture]] == SHOP.spu[product[by_picture]]).all()
    assert (asked != product).all()
    there = other != NOBODY
    assert there.mean() > 0.8 and (SHOP.leaf[other[there]] == SHOP.leaf[product[there]]).all()
    assert (SHOP.spu[other[there]] != SHOP.spu[product[there]]).all()
    rows = source.take(np.arange(200))
    words, seen = rows["query_title/length"] > 0, (rows["query_image"] != 0).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(words, ~by_picture[:200])
    np.testing.assert_array_equal(seen, by_picture[:200])
    assert (rows["other_title/length"] > 0).tolist() == there[:200].tolist()


def test_an_evaluation_hides_the_products_other_listings_and_no_product_is_in_two_splits():
    shown = {split: set(np.flatnonzero(products_of(MALL, split=split))) for split in ("train", "valid", "test")}
    assert sum(map(len, shown.values())) == len(SHOP)
    for split, items in shown.items():
        source = MallSearches(mall=MALL, split=split, asked="image").make()
        rows = source.take(np.arange(len(source)))
        assert set(rows["sought"] - FIRST) <= items
        if split == "train":
            continue
        assert len(set(rows["sought"])) == len(source)
        for sought, hidden, asked in zip(rows["sought"], rows["hidden"], source.sides["query_"][0], strict=True):
            same = set(np.flatnonzero(SHOP.spu == SHOP.spu[sought - FIRST]) + FIRST) - {sought}
            assert set(hidden[hidden > 0]) == same and asked + FIRST in same


def test_purchases_are_fewer_than_clicks():
    assert 0 < len(MallSearches(mall=MALL, action="purchase").make()) < len(MallSearches(mall=MALL).make())


def test_what_was_looked_at_before_a_click():
    log = build(MALL).log
    source = MallCoClicks(mall=MALL, split="test").make()
    before, item = source.sides["query_"][0], source.sides[""][0]
    assert (SHOP.leaf[before] == SHOP.leaf[item]).all() and (SHOP.spu[before] != SHOP.spu[item]).all()
    start, _ = MALL.period("test")
    clicked = log.impressions["click"] & (log.impressions["time"] >= start)
    row = next(r for r in np.flatnonzero(clicked) if log.impressions["item"][r] == item[0])
    past = (log.actions["user"] == log.impressions["user"][row]) & (log.actions["time"] < log.impressions["time"][row])
    fits = [
        i
        for i in log.actions["item"][past][::-1][:50]
        if SHOP.leaf[i] == SHOP.leaf[item[0]] and SHOP.spu[i] != SHOP.spu[item[0]]
    ]
    assert fits[0] == before[0]
    assert len(MallCoClicks(mall=MALL, split="test", most=20).make()) == 20


def test_what_a_photo_was_clicked_for():
    log = searches(ImageSearch(mall=MALL))
    start, end = MALL.period("valid")
    source = MallCoClicks(mall=MALL, split="valid", asked="search").make()
    now = (log["time"] >= start) & (log["time"] < end)
    clicked = [
        (q, i)
        for q, items, clicks in zip(log["query"][now], log["item"][now], log["click"][now], strict=True)
        for i in items[clicks]
    ]
    assert list(zip(source.sides["query_"][0], source.sides[""][0], strict=True)) == clicked and len(clicked) > 50
    with pytest.raises(ValueError, match="end with a click"):
        MallCoClicks(mall=MALL, asked="search", action="purchase")


def test_a_change_names_what_differs_and_nothing_else():
    source = MallComposed(mall=MALL).make()
    before, after = source.sides["query_"][0], source.sides[""][0]
    values, words = _values(MALL), lexicon(MALL)
    rows = source.take(np.arange(300))
    for row in range(300):
        a, b = values[before[row]], values[after[row]]
        said = {kind: words.means(rows["change"][row], kind=kind) for kind in CHANGES}
        assert {k: int(v.max()) for k, v in said.items() if v.max() >= 0} == {
            kind: int(b[j]) for j, kind in enumerate(CHANGES) if a[j] != b[j]
        }
        assert rows["change/length"][row] == (a != b).sum() in (1, 2)
    assert (SHOP.leaf[before] == SHOP.leaf[after]).all()
    np.testing.assert_array_equal(rows["look"], looks(MALL)[after[:300]])
    shown = {split: set(SHOP.spu[np.concatenate(_pairs(MALL, split))]) for split in ("train", "valid", "test")}
    assert not shown["train"] & (shown["valid"] | shown["test"])


def test_looks_are_equal_where_leaf_theme_colour_and_pattern_are():
    described = np.stack([SHOP.leaf, *_values(MALL).T], -1)
    assert len(np.unique(looks(MALL))) == len(np.unique(described, axis=0))


def test_pictures_may_be_missing_from_every_side():
    mall = chz.replace(MALL, views=chz.replace(MALL.views, no_image=1.0))
    rows = MallSearches(mall=mall, hard=True).make().take(np.arange(8))
    assert not rows["image"].any() and not rows["query_image"].any() and rows["title/length"].all()


def test_two_views_are_of_one_picture_and_differ():
    source = MallCatalogue(mall=MALL, split="all", parts=("image",)).make()
    batch, transform = source.take(np.arange(4)), TwoViews()
    found = transform(batch, rng=np.random.default_rng(0))
    assert found["image"].shape == found["query_image"].shape == batch["image"].shape
    assert (found["image"] != found["query_image"]).any() and (found["image"] != batch["image"]).any()
    assert transform.features(source.features)["query_image"].shape == source.features["image"].shape
    near = np.abs(found["image"].astype(int) - found["query_image"]).mean(axis=(1, 2, 3))
    far = np.abs(found["image"].astype(int) - np.roll(found["query_image"], 1, axis=0)).mean(axis=(1, 2, 3))
    assert near.mean() < far.mean()
