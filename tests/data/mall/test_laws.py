"""The mall obeys its laws: each test measures one of them in the log."""

import numpy as np
import pytest

from data.mall.build import after, build, shop_of
from data.mall.commerce import bundles, treatments
from data.mall.config import Mall
from data.mall.events import join
from data.mall.exposure import Exposure, click_probability, examination, policy
from data.mall.rng import sigmoid, stream
from data.mall.truth import auc, possible
from data.mall.users import users

MALL = Mall(size="tiny")


@pytest.fixture(scope="module")
def built():
    return build(MALL)


@pytest.fixture(scope="module")
def log(built):
    return built.log.impressions


def near(mean: float, *, truth: float, spread: float, count: int) -> bool:
    """Within four standard errors."""
    return abs(mean - truth) < 4.0 * spread / np.sqrt(count) + 1e-9


def test_clicks_follow_their_true_rate_in_every_decile(log):
    part = np.argsort(np.argsort(log["true_ctr"])) * 10 // len(log["click"])
    for d in range(10):
        p = log["true_ctr"][part == d]
        assert near(log["click"][part == d].mean(), truth=p.mean(), spread=np.sqrt((p * (1 - p)).mean()), count=len(p))


def test_position_bias_is_the_stated_power(log):
    seen = log["true_ctr"] / log["relevance"]
    np.testing.assert_allclose(seen, examination(MALL.exposure, slots=4)[log["slot"]], rtol=1e-5)
    np.testing.assert_allclose(examination(Exposure(position=1.0), slots=3), [1, 1 / 2, 1 / 3])
    assert (examination(Exposure(position=0.0), slots=3) == 1).all()


def test_trust_lifts_the_unwanted_and_fades_down_the_page():
    slots = np.array([0, 1, 2])
    p = click_probability(Exposure(trust=0.3, position=0.0), relevance=np.zeros(3), slots=slots)
    np.testing.assert_allclose(p, [0.3, 0.15, 0.1])


def test_no_feature_ranks_better_than_the_truth(built, log):
    best = possible(log["click"], truth=log["true_ctr"])["auc"]
    shop = built.shop
    features = {
        "relevance": log["relevance"],
        "slot": -log["slot"],
        "propensity": log["propensity"],
        "popularity": shop.weight[log["item"]],
        "price": shop.price[log["item"]],
        "quality": shop.spu_quality[shop.spu[log["item"]]],
    }
    scores = {name: auc(log["click"], score=values) for name, values in features.items()}
    assert 0.75 < best < 0.95 and max(scores.values()) < best - 0.02, scores


def test_auc_counts_ties_half():
    assert auc(np.array([0, 1, 1, 0]), score=np.array([1.0, 1.0, 2.0, 0.0])) == pytest.approx(3.5 / 4)


def test_popularity_is_zipf_within_a_leaf(built):
    shop = built.shop
    for leaf in range(shop.leaves):
        weight = np.sort(shop.weight[shop.leaf == leaf])[::-1]
        slope = np.polyfit(np.log(np.arange(len(weight)) + 3.0), np.log(weight), 1)[0]
        assert slope == pytest.approx(-MALL.zipf, abs=1e-3)
    u = stream(0, name="test").random(200_000)
    drawn = np.bincount(shop.draw(np.zeros(len(u), np.int64), uniform=u), minlength=len(shop))[shop.leaf == 0]
    want = shop.weight[shop.leaf == 0] / shop.weight[shop.leaf == 0].sum()
    np.testing.assert_allclose(drawn / len(u), want, atol=5e-3)


def test_items_appear_after_their_arrival_only(built, log):
    arrival = built.shop.arrival
    for table in (log, built.log.actions, *(after(MALL)[n] for n in ("conversions", "purchases", "ratings"))):
        assert (arrival[table["item"]] <= table["time"]).all()
    assert (arrival > 0).mean() == pytest.approx(MALL.arriving, abs=0.1)


def test_policy_is_a_distribution_and_explores():
    rng = stream(0, name="test")
    allowed = rng.random((50, 8)) < 0.7
    allowed[:, 0] = True
    p = policy(Exposure(explore=0.2), score=rng.normal(size=(50, 8)) * 5, allowed=allowed)
    np.testing.assert_allclose(p.sum(-1), 1.0)
    assert (p[~allowed] == 0).all() and (p[allowed] >= 0.2 / 8 - 1e-12).all()


def test_snips_with_stored_propensities_recovers_the_uniform_policy(built, log):
    """Off-policy value of choosing slot 0 at random among the candidates, against the truth beside the log."""
    asked, first = built.log.requests, log["slot"] == 0
    truth = asked["uniform_ctr"].mean()
    weight = 1.0 / asked["allowed"].sum(-1) / log["propensity"][first]
    click = log["click"][first]
    naive, snips = click.mean(), (weight * click).sum() / weight.sum()
    error = np.sqrt((weight**2 * (click - snips) ** 2).sum()) / weight.sum()
    assert abs(snips - truth) < 4 * error and error < 0.02
    assert naive - truth > 8 * error, "the logged policy should look better than it would be at random"
    assert weight.mean() == pytest.approx(1.0, abs=0.1)


def test_slates_repeat_no_item_and_come_from_the_candidates(built, log):
    slate = log["item"].reshape(-1, MALL.dims.slate)
    assert all(len(set(row)) == len(row) for row in slate.tolist())
    assert (slate[:, :, None] == built.log.requests["candidates"][:, None, :]).any(-1).all()


def test_the_same_session_is_about_one_leaf(built):
    people = users(MALL, shop=built.shop, shard=0)
    asked = built.log.requests
    mine = asked["user"] < len(people)
    assert (asked["session_leaf"][mine][:, None] == people.leaf[asked["user"][mine]]).any(-1).all()
    assert set(np.unique(asked["query"][asked["query"] >= 0])) <= set(np.unique(asked["session_leaf"]))


def test_interests_drift_from_before_to_after(built):
    people = users(MALL, shop=built.shop, shard=0)
    n = len(people)
    np.testing.assert_allclose(people.weights(np.zeros(n), horizon=MALL.horizon), people.before)
    np.testing.assert_allclose(people.weights(np.full(n, MALL.horizon), horizon=MALL.horizon), people.after)
    assert 0.02 < np.abs(people.after - people.before).mean() < MALL.drift
    still = users(Mall(size="tiny", drift=0.0), shop=built.shop, shard=0)
    assert np.array_equal(still.before, still.after)


def test_organic_views_follow_successors(built):
    actions, shop = built.log.actions, built.shop
    same = actions["user"][1:] == actions["user"][:-1]
    follows = (shop.successors[actions["item"][:-1]] == actions["item"][1:, None]).any(-1)
    assert 0.75 * MALL.follow < follows[same & ~actions["click"][1:]].mean() < 1.1 * MALL.follow


def test_conversions_ratings_and_uplift_follow_their_truth(built):
    tables = after(MALL)
    buys = tables["conversions"]
    p = buys["true_cvr"].astype(np.float64)
    assert near(buys["buy"].mean(), truth=p.mean(), spread=np.sqrt((p * (1 - p)).mean()), count=len(p))
    assert (buys["buy_time"][buys["buy"]] > buys["time"][buys["buy"]]).all() and (buys["buy"] <= buys["cart"]).all()

    rated = tables["ratings"]
    naive, inverse = rated["stars"][rated["observed"]].mean(), 1.0 / rated["propensity"][rated["observed"]]
    ips = (inverse * rated["stars"][rated["observed"]]).sum() / inverse.sum()
    assert naive - rated["stars"].mean() > 0.3 and abs(ips - rated["stars"].mean()) < 0.15
    np.testing.assert_allclose(rated["propensity"], sigmoid(-0.5 + rated["stars"] - 3.0), rtol=1e-5)


def test_the_trial_recovers_the_true_uplift():
    mall = Mall(size="small", users=12_000)
    shop = shop_of(mall)
    people = [users(mall, shop=shop, shard=s) for s in range(mall.shards)]
    trial = join([treatments(mall, people=p, shard=s) for s, p in enumerate(people)])
    assert (trial["uplift_message"] < 0).any() and (trial["uplift_coupon"] > 0.1).any()
    for arm, lift in enumerate(("", "uplift_coupon", "uplift_message")):
        weight = (trial["arm"] == arm) / trial["propensity"]
        found = (weight * trial["visit"]).sum() / weight.sum()
        truth = (trial["p_none"] + (trial[lift] if lift else 0.0)).mean()
        error = np.sqrt((weight**2 * (trial["visit"] - found) ** 2).sum()) / weight.sum()
        assert abs(found - truth) < 4 * error and error < 0.01
    mine = trial["arm"] == 1
    gain = np.polyfit(trial["uplift_coupon"][mine], trial["visit"][mine] - trial["p_none"][mine], 1)[0]
    assert gain == pytest.approx(1.0, abs=0.4), "visits under a coupon rise as far as each user's uplift says"


def test_baskets_hold_complements_and_bundles(built):
    bought, shop = after(MALL)["purchases"], built.shop
    head = {b: i for b, i, v in zip(bought["basket"], bought["item"], bought["via"], strict=True) if v == 0}
    pairs = [(head[b], i) for b, i, v in zip(bought["basket"], bought["item"], bought["via"], strict=True) if v == 1]
    assert len(pairs) > 20 and all(shop.successors[a, 1] == b for a, b in pairs)
    sets = {row[0]: set(row[1:]) for row in bundles(MALL, shop=shop).tolist()}
    whole = [(head[b], i) for b, i, v in zip(bought["basket"], bought["item"], bought["via"], strict=True) if v == 2]
    assert whole and all(i in sets[h] for h, i in whole)
