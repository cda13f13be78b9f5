import numpy as np
import pyarrow as pa
import pytest

from data.errors import UserError
from serve.decide.auction import Auction, auction
from serve.decide.rules import Cap, Decide, Diversity, decide

SCORES = np.array([0.5, 0.4, 0.3, 0.2, 0.1])
COLUMNS = pa.table(
    {
        "bid": [0.1, 1.0, 2.0, None, 4.0],
        "seller": ["a", "a", "b", "b", None],
        "vector": [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], None, [0.0, 1.0]],
    }
)


def run(config, *, scores=SCORES, columns=COLUMNS, k=3, **more):
    return decide(config, scores=scores, columns=columns, k=k, **more)


def test_without_rules_it_is_plain_ranking(rng):
    scores = np.round(rng.random(50), 1)
    got = run(Decide(), scores=scores, columns=pa.table({"x": np.zeros(50)}), k=20)
    np.testing.assert_array_equal(got.order, np.argsort(-scores, kind="stable")[:20])
    assert set(got.why[got.order]) == {""}
    assert set(np.delete(got.why, got.order)) == {"below the 20 of the page"}


def test_an_auction_alone_is_the_auction():
    got = run(Decide(auction=Auction(reserve=0.05)), k=10)
    held = [0, 1, 2, 4]
    sold = auction(np.array([0.1, 1.0, 2.0, 4.0]), rates=SCORES[held], reserve=0.05)
    assert got.order.tolist() == [held[i] for i in sold.order]
    np.testing.assert_allclose(got.price[got.order], sold.price)
    assert got.why.tolist() == ["", "", "", "it has no bid", ""]
    np.testing.assert_allclose(got.ecpm, [0.05, 0.4, 0.6, 0, 0.4])


def test_the_last_place_pays_against_the_best_that_found_none():
    got = run(Decide(auction=Auction(reserve=0.5)), k=2)
    assert got.order.tolist() == [2, 1]  # 0.6, 0.4; then 0.4 of the later candidate
    np.testing.assert_allclose(got.price[got.order], [0.4 / 0.3, 1.0])
    assert got.why.tolist() == [
        "its bid is below the reserve of 0.5",
        "",
        "",
        "it has no bid",
        "below the 2 of the page",
    ]
    assert np.isnan(got.price[4])


def test_caps_choose_and_the_auction_orders_and_prices_the_chosen():
    got = run(Decide(caps=(Cap(by="seller", most=1),), auction=Auction()), k=3)
    assert got.order.tolist() == [2, 1, 4]
    assert got.why[0] == "cap of 1 for seller is reached"
    np.testing.assert_allclose(got.price[got.order], [0.4 / 0.3, 0.4 / 0.4, 0.0])


def test_a_cap_per_user_counts_what_was_shown():
    config = Decide(caps=(Cap(by="seller", most=2, per="user"),))
    assert run(config, k=5, shown={"seller": {}}).order.tolist() == [0, 1, 2, 3, 4]
    assert run(config, k=5, shown={"seller": {"a": 1, "b": 5}}).order.tolist() == [0, 4]
    with pytest.raises(UserError, match=r"needs to know what was shown: give shown=\{'seller'"):
        run(config)
    numbers = pa.table({"seller": [7, 7, 8, 8, 8]})
    assert run(config, columns=numbers, k=5, shown={"seller": {"7": 2}}).order.tolist() == [2, 3]


def test_diversity_by_vectors_and_by_groups():
    assert run(Decide(diversity=Diversity(by="vector", weight=0.5)), k=3).order.tolist() == [0, 2, 3]
    assert run(Decide(diversity=Diversity(by="seller", weight=0.5)), k=3).order.tolist() == [0, 2, 4]
    assert run(Decide(diversity=Diversity(by="seller", weight=1.0)), k=3).order.tolist() == [0, 1, 2]


def test_rules_can_be_skipped():
    config = Decide(
        caps=(Cap(by="seller", most=1),), diversity=Diversity(by="vector", weight=0.1), auction=Auction(reserve=3.0)
    )
    assert config.rules() == ("caps", "diversity", "auction")
    assert set(config.columns()) == {"seller", "vector", "bid"}
    assert run(config).order.tolist() == [4]
    assert run(config, skip={"caps", "diversity", "auction"}).order.tolist() == [0, 1, 2]
    assert run(config, skip={"diversity", "auction"}).order.tolist() == [0, 2, 4]


def test_bids_of_the_store_that_are_no_prices_leave_the_item_out():
    columns = pa.table({"bid": [1.0, np.nan, -1.0, np.inf, 1.0]})
    got = run(Decide(auction=Auction()), columns=columns)
    assert got.order.tolist() == [0, 4]
    assert got.why.tolist()[1:4] == ["its bid is not finite", "its bid is negative", "its bid is not finite"]


def test_bids_of_the_request_replace_them_and_are_checked():
    got = run(Decide(auction=Auction()), bids={3: 9.0})
    assert got.order.tolist() == [3, 2, 1]
    for wrong in (float("nan"), -1.0, "2", True):
        with pytest.raises(UserError, match="the request bids"):
            run(Decide(auction=Auction()), bids={1: wrong})


def test_all_filtered_out_is_an_empty_page():
    got = run(Decide(auction=Auction(reserve=99.0)))
    assert got.order.tolist() == []
    assert (got.why != "").all()
    assert run(Decide(), scores=SCORES[:0], columns=COLUMNS.slice(0, 0)).order.tolist() == []


def test_wrong_columns_and_configs_are_named():
    with pytest.raises(UserError, match="no column 'sellers'; did you mean 'seller'"):
        run(Decide(caps=(Cap(by="sellers", most=1),)))
    with pytest.raises(UserError, match="column 'bid' is string; bids are numbers"):
        run(Decide(auction=Auction()), columns=pa.table({"bid": ["1"] * 5}))
    with pytest.raises(UserError, match="groups are named by integers or strings"):
        run(Decide(caps=(Cap(by="bid", most=1),)))
    with pytest.raises(UserError, match="holds no vectors of one width"):
        run(Decide(diversity=Diversity(by="v")), columns=pa.table({"v": [[1.0], [1.0, 2.0], [1.0], [1.0], [1.0]]}))
    with pytest.raises(UserError, match=r"click rate 1.5 of candidate 0 is no probability"):
        run(Decide(auction=Auction()), scores=SCORES + 1.0)
    for wrong in (lambda: Cap(by="x", most=-1), lambda: Diversity(by="x", weight=1.1), lambda: Auction(reserve=-1.0)):
        with pytest.raises(ValueError):
            wrong()
