"""The dictionary of behaviours: each rule alone, and that cleaning what was cleaned changes nothing."""

import numpy as np
import pytest

from data.dictionary import DAY, Cleaning, Events, canonical, fit
from data.errors import UserError
from data.features import FIRST

RULES = Cleaning(least=3, most=0.6, stale=None)


def log(*rows):
    """(users, token) or (users, token, day)."""
    user = np.concatenate([np.asarray(u) for u, *_ in rows])
    token = np.array([t for u, t, *_ in rows for _ in u])
    day = np.concatenate([np.full(len(u), d[0] if d else 0) for u, _, *d in rows])
    return Events(user, day * DAY + 3600 * (np.arange(len(user)) % 5), token)


def test_what_few_people_or_nearly_all_have_goes_however_often_they_do_it():
    everyone = range(10)
    events = log((everyone, "app/open"), ([1, 2, 3], "item/1"), ([4] * 50 + [5], "item/2"), ([1, 2, 3, 4, 5, 6], "x"))
    found = fit(events, rules=RULES)
    assert found.tokens == ("item/1", "x")
    assert found.report["too few"] == 1 and found.report["too many"] == 1
    np.testing.assert_allclose(found.report["coverage"], 9 / 70)
    np.testing.assert_array_equal(found.ids(np.array(["x", "app/open", "never"])), [FIRST + 1, 0, 0])


def test_one_thing_said_in_many_ways_is_one_token():
    assert canonical(" Shop//Item/7/?src=mail#top ") == "shop/item/7"
    events = log(([1], "item/1?a"), ([2], "ITEM/1"), ([3], "/item/1/"), (range(10), "other"))
    found = fit(events, rules=RULES)
    assert found.tokens == ("item/1",)
    assert found.ids(np.array(["item/1?never=seen"])) == [FIRST]


def test_mistyped_searches_are_what_was_meant_and_items_are_not():
    wrong = ["search/adss", "search/ad", "search/asd", "search/axs"]
    events = log(
        (range(30), "search/ads"), *(([n], t) for n, t in enumerate(wrong)), ([1, 2, 3], "search/adsxy"),
        (range(30), "item/12"), ([5], "item/21"), (range(90), "noise"),
    )  # fmt: skip
    found = fit(events, rules=RULES)
    ids = found.ids(np.array(["search/ads", *wrong]))
    assert len(set(ids)) == 1 and ids[0] > 0
    assert "search/adsxy" in found.tokens and found.ids(np.array(["item/21"])) == [0]
    assert found.report["slips"] == len(wrong)


def test_what_came_out_of_use_becomes_its_category():
    rules = Cleaning(least=3, most=0.9, stale=14)
    events = log(([1, 2], "item/1", 0), ([3], "item/2", 3), ([1, 2, 3], "item/3", 20), ([4] * 3, "item/3", 21))
    found = fit(events, rules=rules, category={"item/1": "leaf/5", "item/2": "leaf/5", "item/3": "leaf/6"})
    ids = found.ids(np.array(["item/1", "item/2", "item/3"]))
    assert [found.tokens[i - FIRST] for i in ids[:2]] == ["leaf/5", "leaf/5"]
    assert ids[2] == 0 and found.report["too many"] == 1  # still in use, and everybody has it
    once = found.clean(events)
    assert once.token.tolist() == ["leaf/5"] * 3 == found.clean(once).token.tolist()


def test_machines_are_busy_at_all_hours_and_no_night_owl_is_one():
    people = [(np.full(10, n), f"item/{n % 3}") for n in range(1, 12)]
    events = log(*people)
    hours = np.arange(1000) % 24
    bot = Events(np.full(1000, 99), hours * 3600, np.array([f"item/{h % 3}" for h in hours]))
    owl = Events(np.full(1000, 98), np.arange(1000) % 5 * 3600, np.full(1000, "item/1"))
    both = Events(*(np.concatenate([getattr(e, f) for e in (events, bot, owl)]) for f in ("user", "time", "token")))
    found = fit(both, rules=RULES)
    np.testing.assert_array_equal(found.machines, [99])
    assert 99 not in found.clean(both).user and 98 in found.clean(both).user


def test_cleaning_is_idempotent_and_ignores_the_order_of_the_log(rng):
    user = rng.integers(0, 900, 4000)
    token = np.array([f"search/{w}" for w in ("alpha", "aplha", "beta", "betaa", "gamma")] + ["ITEM/1?x", "item/2"])
    events = Events(user, rng.integers(0, 20 * DAY, 4000), token[np.minimum(rng.geometric(0.4, 4000) - 1, 6)])
    rules = Cleaning(least=5, most=0.6)
    once = fit(events, rules=rules)
    cleaned = once.clean(events)
    again = once.clean(cleaned)
    for name in ("user", "time", "token"):
        np.testing.assert_array_equal(getattr(again, name), getattr(cleaned, name))
    assert set(cleaned.token) == set(once.tokens) and len(cleaned.user) < len(events.user)
    order = rng.permutation(len(user))
    assert fit(events.rows(order), rules=rules).tokens == once.tokens


def test_a_log_of_nothing_or_of_machines_alone_is_refused():
    with pytest.raises(UserError, match="no behaviour"):
        fit(Events(np.zeros(0, int), np.zeros(0, int), np.zeros(0, str)), rules=RULES)
    with pytest.raises(UserError, match="no behaviour is left"):
        fit(log((range(9), "app/open")), rules=RULES)
