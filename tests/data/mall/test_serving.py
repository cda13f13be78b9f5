"""The mall's tables for request time say what its sources and its log say."""

import numpy as np

from data.encode import encode
from data.features import FIRST
from data.mall.build import build
from data.mall.config import Mall
from data.mall.exposure import click_probability
from data.mall.serving import ALL, MallListings, MallLists, MallRequests, asked, worth
from data.mall.sources import MallClicks, item_age

MALL = Mall(size="tiny", seed=3)


def test_encoded_tables_are_the_rows_of_the_clicks():
    """Every impression of the test days: its request's fields and its listing's, encoded, are its row in MallClicks."""
    source = MallClicks(mall=MALL, split="test", history=7).make()
    rows = source.take(np.arange(len(source)))
    requests = MallRequests(mall=MALL, split="test", history=7).make()
    which = {
        (u, t): n for n, (u, t) in enumerate(zip(*(requests[c].to_pylist() for c in ("user", "time")), strict=True))
    }
    at = np.array([which[u, t] for u, t in zip(rows["user"].tolist(), rows["time"].tolist(), strict=True)])
    listings = MallListings(mall=MALL).make()
    for table, take, role in ((requests, at, ("user", "context")), (listings, rows["item"] - FIRST, ("item",))):
        names = {f.name for f in source.features if f.role in role} - {"position", "item_age"}
        assert names <= set(table.column_names)
        chosen = source.features.select(names=tuple(names))
        encoded = encode(table.select(sorted(names)), features=chosen)
        assert len(encoded.keep) == len(table)
        for name, array in encoded.rows.items():
            np.testing.assert_allclose(array[take], rows[name], rtol=1e-6, atol=1e-6, err_msg=name)
    arrival = listings["arrival"].to_numpy()[rows["item"] - FIRST]
    age = np.minimum((rows["time"] - arrival) / 86_400, 28).astype(np.float32)
    shop = build(MALL).shop
    np.testing.assert_array_equal(age, item_age(shop, items=rows["item"] - FIRST, time=rows["time"]))


def test_the_worth_of_a_shown_item_is_the_relevance_in_the_log():
    log, rows = build(MALL).log.impressions, asked(MALL, split="test", most=None)
    found = np.full((len(rows), MALL.n_items), np.inf)
    for part, true in worth(MALL, rows=rows, chunk=100):
        found[part] = true
    assert not np.isinf(found).any()
    which = {key: n for n, key in enumerate(zip(rows.user.tolist(), rows.time.tolist(), strict=True))}
    shown = np.flatnonzero(log["time"] >= MALL.period("test")[0])
    at = [which[key] for key in zip(log["user"][shown].tolist(), log["time"][shown].tolist(), strict=True)]
    np.testing.assert_allclose(found[at, log["item"][shown]], log["relevance"][shown], atol=1e-6)
    chance = click_probability(MALL.exposure, relevance=found[at, log["item"][shown]], slots=log["slot"][shown])
    np.testing.assert_allclose(chance, log["true_ctr"][shown], atol=1e-6)
    arrival = build(MALL).shop.arrival
    np.testing.assert_array_equal(np.isnan(found), arrival[None, :] > rows.time[:, None])


def test_lists_hold_the_most_clicked_of_the_training_days_first():
    table, log = MallLists(mall=MALL, most=20).make(), build(MALL).log.impressions
    clicked = log["item"][log["click"] & (log["time"] < MALL.period("train")[1])]
    clicks = np.bincount(clicked, minlength=MALL.n_items)
    lists = dict(zip(table["category"].to_pylist(), table["items"].to_pylist(), strict=True))
    assert set(lists) == {ALL, *range(FIRST, FIRST + MALL.leaves)}
    for key, items in lists.items():
        of = np.array(items) - FIRST
        leaf = build(MALL).shop.leaf
        rivals = np.setdiff1d(np.arange(MALL.n_items) if key == ALL else np.flatnonzero(leaf == key - FIRST), of)
        assert (np.diff(clicks[of]) <= 0).all() and (clicks[of] > 0).all()
        assert len(of) == 20 or (clicks[rivals] == 0).all()
        assert clicks[rivals].max(initial=0) <= clicks[of].min()
    tied = np.flatnonzero(np.diff(clicks[np.array(lists[ALL]) - FIRST]) == 0)
    assert (np.diff(np.array(lists[ALL]))[tied] < 0).any(), "ties in the order of ids"


def test_fewer_requests_are_spread_over_the_users_and_listings_carry_their_campaign():
    some, every = asked(MALL, split="test", most=50), asked(MALL, split="test", most=None)
    assert len(some) == 50
    assert some.user[0] == every.user[0] and some.user[-1] == every.user[-1]
    assert MallRequests(mall=MALL, most=50).make()["user"].to_pylist() == (FIRST + some.user).tolist()
    table = MallListings(mall=MALL).make()
    bids = table["bid"].to_numpy()
    assert 0 < np.isfinite(bids).sum() < len(table)
    assert table["ad_start"].is_valid().to_pylist() == table["bid"].is_valid().to_pylist()
    assert (np.nanmin(bids)) > 0
