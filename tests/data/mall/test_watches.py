"""The laws of watching, in a log and in its replay."""

import chz
import numpy as np
import pytest

from data.features import FIRST
from data.mall.build import build
from data.mall.config import Mall
from data.mall.watches import Feed, MallReplay, MallWatches, finishing, liking, new_videos, seconds, viewers

MALL = Mall(size="tiny")
# Many feeds, so that shares are near their laws.
FEED = Feed(feeds=60)


@pytest.fixture(scope="module")
def log():
    return MallWatches(mall=MALL, feed=FEED).make().columns


def test_parts_share_no_feed_and_show_nothing_new(log):
    valid = MallWatches(mall=MALL, feed=FEED, split="valid").make().columns
    assert len(log["user"]) == 59 * len(valid["user"]) == 59 * MALL.n_users * FEED.places
    assert not new_videos(MALL)[log["item"] - FIRST].any() and new_videos(MALL).any()
    feeds = (log["item"]).reshape(-1, FEED.places)
    assert all(len(np.unique(feed)) == FEED.places for feed in feeds[:50])
    again = MallWatches(mall=MALL, feed=FEED).make().columns
    assert all(np.array_equal(again[name], log[name]) for name in log)


def test_place_and_length_bias_what_is_finished(log):
    chance, place, length = log["true_deep"], log["place"] - FIRST, log["true_seconds"]
    expected = chance * FEED.examine**place
    assert log["deep"].mean() == pytest.approx(expected.mean(), rel=0.02)
    late = place >= 7
    assert log["deep"][late].mean() == pytest.approx(expected[late].mean(), rel=0.04)
    assert (log["complete"] <= log["deep"]).all()
    watched = log["deep"] > 0
    for low, high in ((5, 15), (40, 90)):
        some = watched & (length >= low) & (length < high)
        assert log["complete"][some].mean() == pytest.approx(finishing(length[some], feed=FEED).mean(), abs=0.03)
    assert finishing(np.array([5.0]), feed=FEED)[0] == 1 and finishing(np.array([90.0]), feed=FEED)[0] < 0.17
    # Short videos come early, and more often than they are.
    assert length[place == 0].mean() < length[late].mean() < seconds(MALL, feed=FEED)[~new_videos(MALL)].mean()


def test_liking_is_the_click_law_outside_of_sessions():
    people, shop = np.array([3, 7]), build(MALL).shop
    found = liking(MALL, people=people, items=np.arange(MALL.n_items), feed=FEED)
    assert found.shape == (2, MALL.n_items) and (found > 0).all() and (found < 1).all()
    one = liking(MALL, people=people, items=np.array([[4, 5], [6, 4]]), feed=FEED)
    np.testing.assert_allclose(one, [found[0, [4, 5]], found[1, [6, 4]]], rtol=1e-6)
    easier = liking(MALL, people=people, items=np.arange(MALL.n_items), feed=chz.replace(FEED, ease=3.0))
    np.testing.assert_allclose(np.log(easier / (1 - easier)) - np.log(found / (1 - found)), 1.0, atol=1e-4)
    # Offers of one product differ by price and luck alone: quality and looks are the product's.
    assert np.unique(shop.spu).size < MALL.n_items


def test_a_replay_is_everything_for_everyone_at_the_first_place():
    people = viewers(MALL, most=20)
    rows = MallReplay(mall=MALL, feed=FEED, people=20).make().columns
    assert len(rows["user"]) == len(people) * MALL.n_items and (rows["place"] == FIRST).all()
    grid = rows["true_deep"].reshape(len(people), -1)
    np.testing.assert_allclose(grid, liking(MALL, people=people, items=np.arange(MALL.n_items), feed=FEED), rtol=1e-5)
    np.testing.assert_array_equal(rows["user"].reshape(len(people), -1)[:, 0] - FIRST, people)
    np.testing.assert_allclose(rows["true_seconds"][: MALL.n_items], seconds(MALL, feed=FEED))
