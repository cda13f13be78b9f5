"""Readers, visits, guests: what is known of whom at which moment."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import FIRST, UNKNOWN
from data.mall.build import build
from data.mall.config import Mall
from data.mall.guests import KNOWN, MallGuests, held_out
from data.mall.readers import MallListings, MallReaders, MallVisits
from data.mall.texts import hashed_texts

MALL = Mall(size="tiny")
LOG = build(MALL).log
END = MALL.period("train")[1]


def past(user, before):
    mine = (LOG.actions["user"] == user) & (LOG.actions["time"] < before)
    return FIRST + LOG.actions["item"][mine]


def test_training_rows_are_of_the_training_days_and_of_no_guest():
    source = MallReaders(mall=MALL, length=8).make()
    rows = source.take(np.arange(len(source)))
    assert not held_out(MALL)[rows["user"]].any() and 0.05 < held_out(MALL).mean() < 0.25
    for i in (0, 7, len(source) - 1):
        *before, newest = past(rows["user"][i], END)
        np.testing.assert_array_equal(rows["history"][i, : rows["history/length"][i]], before[-8:])
        assert rows["item"][i] == newest
    there = rows["history"] > 0
    np.testing.assert_array_equal(rows["history_content"][there], hashed_texts(MALL)[rows["history"][there]])
    np.testing.assert_array_equal(rows["history_content/length"], rows["history/length"])


@pytest.mark.parametrize("cold", [False, True])
def test_taken_is_what_came_later_for_the_first_time(cold):
    rows = MallReaders(mall=MALL, split="test", most=3, cold=cold).make().take(np.arange(5))
    late = build(MALL).shop.arrival >= END
    for user, taken, count in zip(rows["user"], rows["taken"], rows["taken/length"], strict=True):
        mine = LOG.actions["user"] == user
        items, times = LOG.actions["item"][mine], LOG.actions["time"][mine]
        later = [i for n, i in enumerate(items) if times[n] >= END and i not in items[:n] and (late[i] or not cold)]
        np.testing.assert_array_equal(taken[:count], FIRST + np.array(later[:3]))
        assert count > 0


def test_a_visit_knows_what_was_before_it_and_a_guest_five_actions():
    source = MallVisits(mall=MALL, length=9).make()
    assert len(source) == len(LOG.requests["time"])
    guests = held_out(MALL)[LOG.requests["user"]]
    for i in (3, int(np.flatnonzero(guests)[-1]), len(source) - 1):
        row = source[i]
        expected = past(LOG.requests["user"][i], LOG.requests["time"][i])[-(KNOWN if guests[i] else 9) :]
        np.testing.assert_array_equal(row["history"][: row["history/length"]], expected)
        assert row["visit"] == FIRST + i


def test_click_rows_meet_the_vector_of_their_own_request(tmp_path):
    count = len(LOG.requests["time"])
    np.savez(tmp_path / "people.npz", id=FIRST + np.arange(count), vector=np.arange(count, dtype=np.float32)[:, None])
    source = MallGuests(mall=MALL, split="test", history=9, people=str(tmp_path / "people.npz")).make()
    rows = source.take(np.arange(0, len(source), 50))
    visit = rows["person"][:, 0].astype(int)
    np.testing.assert_array_equal(LOG.requests["user"][visit], rows["user_group"])
    np.testing.assert_array_equal(LOG.requests["time"][visit], rows["time"])
    guests = held_out(MALL)[rows["user_group"]]
    np.testing.assert_array_equal(rows["is_guest"], guests)
    np.testing.assert_array_equal(rows["user"] == UNKNOWN, guests)
    assert rows["history/length"][guests].max() == KNOWN < rows["history/length"][~guests].max()
    train = MallGuests(mall=MALL, history=9).make()
    taken = train.take(np.arange(len(train)))
    assert not held_out(MALL)[taken["user_group"]].any() and "person" not in train.features


def test_listings_are_all_there_and_vectors_of_another_mall_are_refused(tmp_path):
    rows = MallListings(mall=MALL).make().take(np.arange(MALL.n_items))
    np.testing.assert_array_equal(rows["content"], hashed_texts(MALL)[rows["item"]])
    np.savez(tmp_path / "few.npz", id=FIRST + np.arange(9), vector=np.ones((9, 2), np.float32))
    with pytest.raises(UserError, match="embed this mall's items"):
        MallListings(mall=MALL, content=str(tmp_path / "few.npz")).make()
