"""Requests as queries of a global representation: what each knows, and what is hidden of guests."""

import numpy as np
import pytest

from data.features import FIRST
from data.mall.build import build
from data.mall.config import Mall
from data.mall.global_users import MallGlobalUsers
from data.mall.global_visits import MallGlobalVisits
from data.mall.guests import held_out

MALL = Mall(size="tiny")
PEOPLE = MallGlobalUsers(mall=MALL, guests=False)


@pytest.fixture(scope="module")
def rows():
    source = MallGlobalVisits(people=PEOPLE).make()
    return source.take(np.arange(len(source)))


def test_a_visit_knows_what_was_before_its_search(rows):
    found, requests = PEOPLE.dictionary(), build(MALL).log.requests
    log, ids = PEOPLE.log(found)
    np.testing.assert_array_equal(rows["visit"], FIRST + np.arange(len(requests["time"])))
    guest = held_out(MALL)[requests["user"]]
    searched = np.flatnonzero((requests["query"] >= 0) & ~guest & (rows["behaviour/length"] > 0))
    assert len(searched) > 100
    for i in searched[:: len(searched) // 20]:
        before = (log.events.user == requests["user"][i]) & (log.events.time < requests["time"][i] - 1)
        count = rows["behaviour/length"][i]
        np.testing.assert_array_equal(rows["behaviour"][i, :count], ids[before][-40:])


def test_of_guests_the_shop_tells_nothing_and_other_products_do(rows):
    found, requests = PEOPLE.dictionary(), build(MALL).log.requests
    shop = np.zeros(found.rows, bool)
    shop[FIRST:] = [token.startswith("shop/") for token in found.tokens]
    guest = held_out(MALL)[requests["user"]]
    there = np.arange(40) < rows["behaviour/length"][:, None]
    of_shop = (shop[rows["behaviour"]] & there).sum(1)
    assert of_shop[guest].max() == 0 and of_shop[~guest].max() > 0
    assert (there.sum(1)[guest] > 0).mean() > 0.5


def test_guests_are_no_rows_of_the_encoder():
    for split in ("train", "test"):
        everyone = MallGlobalUsers(mall=MALL, split=split).make()
        known = MallGlobalUsers(mall=MALL, split=split, guests=False).make()
        users = known.take(np.arange(len(known)))["user"]
        assert 0 < len(known) < len(everyone) and not held_out(MALL)[users].any()
