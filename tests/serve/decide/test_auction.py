import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from serve.decide.auction import auction, ecpm

MONEY = st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 2))
RATE = st.floats(0, 1, allow_nan=False).map(lambda x: round(x, 3))
BIDDERS = st.lists(st.tuples(MONEY, RATE), min_size=1, max_size=12)
quick = settings(max_examples=200, deadline=None)


def sell(bidders, reserve):
    bids, rates = (np.array(column) for column in zip(*bidders, strict=True))
    return bids, rates, auction(bids, rates=rates, reserve=reserve)


def oracle(bidders, reserve):
    """One bidder at a time, as the paper puts it."""
    places = [i for i, (bid, _) in enumerate(bidders) if bid >= reserve]
    places.sort(key=lambda i: -bidders[i][0] * bidders[i][1])  # sort is stable
    prices = []
    for place, i in enumerate(places):
        bid, rate = bidders[i]
        below = bidders[places[place + 1]] if place + 1 < len(places) else (0.0, 0.0)
        least = below[0] * below[1] / rate if rate > 0 else 0.0
        prices.append(min(bid, max(reserve, least)))
    return places, prices


def test_three_bidders_by_hand():
    sold = auction(np.array([2.0, 4.0, 1.0]), rates=np.array([0.1, 0.1, 0.3]), reserve=0.5)
    assert sold.order.tolist() == [1, 2, 0]  # 0.4, 0.3, 0.2
    np.testing.assert_allclose(sold.price, [3.0, 2 / 3, 0.5])


@quick
@given(BIDDERS, MONEY)
def test_order_and_prices_are_those_of_the_rule(bidders, reserve):
    _, _, sold = sell(bidders, reserve)
    order, price = oracle(bidders, reserve)
    assert sold.order.tolist() == order
    np.testing.assert_allclose(sold.price, price, rtol=1e-12)


@quick
@given(BIDDERS, MONEY)
def test_nobody_pays_more_than_the_bid_or_less_than_the_reserve(bidders, reserve):
    bids, _, sold = sell(bidders, reserve)
    assert (sold.price <= bids[sold.order]).all()
    assert (sold.price >= reserve).all()
    assert set(sold.order) == set(np.flatnonzero(bids >= reserve))


@quick
@given(BIDDERS, MONEY, st.data())
def test_a_higher_bid_never_gets_a_lower_place(bidders, reserve, data):
    who = data.draw(st.integers(0, len(bidders) - 1))
    more = data.draw(MONEY)
    place = {i: at for at, i in enumerate(sell(bidders, reserve)[2].order)}
    raised = [(bid + more * (i == who), rate) for i, (bid, rate) in enumerate(bidders)]
    after = {i: at for at, i in enumerate(sell(raised, reserve)[2].order)}
    if who in place:
        assert after[who] <= place[who]


@quick
@given(BIDDERS)
def test_with_the_price_as_bid_the_place_is_kept(bidders):
    """What "the least that keeps the place" means: less than the price loses to the next, where there is one."""
    bids, rates, sold = sell(bidders, 0.0)
    for at in range(len(sold.order) - 1):
        this, below = sold.order[at], sold.order[at + 1]
        assert sold.price[at] * rates[this] >= bids[below] * rates[below] * (1 - 1e-9) or rates[this] == 0


def test_equal_bidders_keep_the_order_in_which_they_came():
    assert auction(np.full(5, 2.0), rates=np.full(5, 0.1)).order.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("bids", "rates", "message"),
    [
        ([1.0, np.nan], [0.1, 0.1], "bid nan of candidate 1 is no price"),
        ([-1.0, 1.0], [0.1, 0.1], "bid -1.0 of candidate 0 is no price"),
        ([1.0, np.inf], [0.1, 0.1], "bid inf of candidate 1"),
        ([1.0, 1.0], [0.1, 1.2], "click rate 1.2 of candidate 1 is no probability"),
        ([1.0, 1.0], [np.nan, 0.2], "click rate nan of candidate 0"),
    ],
)
def test_what_is_no_price_or_no_probability_is_refused(bids, rates, message):
    with pytest.raises(UserError, match=message):
        ecpm(np.array(bids), rates=np.array(rates))
    with pytest.raises(UserError, match=message):
        auction(np.array(bids), rates=np.array(rates))


def test_nobody_bids():
    sold = auction(np.zeros(0), rates=np.zeros(0), reserve=1.0)
    assert len(sold.order) == len(sold.price) == 0
