"""Auctions, budgets and creatives."""

import numpy as np
import pytest

from data.mall.ads import CHUNK, _second_price, campaigns, wear_out
from data.mall.build import after, aftermath, build, shard_of
from data.mall.config import DAY, Ads, Mall

MALL = Mall(size="tiny")


@pytest.fixture(scope="module")
def sold():
    return after(MALL)["auctions"]


def test_winner_pays_the_least_bid_that_would_have_won():
    bid = np.array([[1.0, 2.0, 0.5], [0.1, 0.1, 0.0]])
    guess = np.array([[0.5, 0.2, 0.1], [0.1, 0.1, 0.1]])
    out = _second_price(bid, guess=guess, market=np.array([0.1, 0.1]), reserve=0.01)
    assert out["winner"].tolist() == [0, -1]
    assert out["price"][0] == pytest.approx(0.4 / 0.5)  # the second score over the winner's own rate


def test_prices_are_between_reserve_and_bid(sold):
    won = sold["campaign"] >= 0
    assert 0.3 < won.mean() < 1.0
    place = (sold["bidders"][won] == sold["campaign"][won, None]).argmax(-1)
    bid = sold["bids"][won][np.arange(won.sum()), place]
    assert (sold["price"][won] <= bid * (1 + 1e-5)).all() and (sold["price"][won] > 0).all()
    assert not sold["click"][~won].any()


def test_ad_clicks_follow_their_truth(sold):
    won = sold["campaign"] >= 0
    p = sold["true_ctr"][won].astype(np.float64)
    assert abs(sold["click"][won].mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).mean() / len(p))


def test_a_spent_budget_silences_its_campaign_for_the_day():
    poor = Mall(size="tiny", ads=Ads(budget=0.01))
    built = build(poor)
    ads = campaigns(poor, shop=built.shop)
    table = aftermath(poor, shop=built.shop, ads=ads, log=shard_of(built, 0), shard=0)["auctions"]
    budget = ads.budget * min(poor.dims.user_block, poor.n_users) / poor.n_users
    silenced = spoke = returned = 0
    spent = np.zeros(len(ads.item))
    for day in range(poor.days):
        yesterday, spent = spent >= budget, np.zeros(len(ads.item))
        first = table["time"] // CHUNK == day * (DAY // CHUNK)
        returned += (table["bids"][first][yesterday[table["bidders"][first]]] > 0).sum()
        for chunk in range(DAY // CHUNK):
            rows = table["time"] // CHUNK == day * (DAY // CHUNK) + chunk
            out = (spent >= budget)[table["bidders"][rows]]
            assert (table["bids"][rows][out] == 0).all()
            silenced, spoke = silenced + out.sum(), spoke + (table["bids"][rows] > 0).sum()
            paid = rows & table["click"]
            np.add.at(spent, table["campaign"][paid], table["price"][paid].astype(np.float64))
    assert silenced > 100 and spoke > 1000
    assert returned > 50, "a new day brings a new budget"


def test_creatives_run_between_launch_and_retirement_and_wear_out(sold):
    ads = campaigns(MALL, shop=build(MALL).shop)
    won = sold["campaign"] >= 0
    c, k, now = sold["campaign"][won], sold["creative"][won], sold["time"][won]
    assert (ads.launch[c, k] <= now).all()
    assert ((ads.retired[c, k] < 0) | (ads.retired[c, k] > now)).all()
    half = wear_out(MALL, ads=ads, campaign=np.array([3]), now=(ads.launch + ads.half_life)[3, :1])
    assert half[0, 0] == pytest.approx(-MALL.ads.wear)
    assert 0.02 < (ads.retired < 0).mean() < 0.98, "lifetimes hold both ended and censored ones"


def test_creative_propensities_recover_the_uniform_choice(sold):
    """Inverse propensities count each running creative alike."""
    won = sold["campaign"] >= 0
    ads = campaigns(MALL, shop=build(MALL).shop)
    c, now = sold["campaign"][won], sold["time"][won, None]
    running = ((ads.launch[c] <= now) & ((ads.retired[c] < 0) | (ads.retired[c] > now))).sum(-1)
    weight = 1.0 / running / sold["creative_propensity"][won]
    assert weight.mean() == pytest.approx(1.0, abs=0.08)
