"""Behaviours of several products: what the moments know, what labels are of, what cleaning does to them."""

import numpy as np
import pytest

from data.dictionary import DAY
from data.features import FIRST
from data.mall.behaviours import KINDS, behaviours
from data.mall.build import build
from data.mall.config import Mall
from data.mall.global_users import WINDOW, MallGlobalUsers
from data.transforms.shared_negatives import SharedNegatives

MALL = Mall(size="tiny")
END = MALL.period("train")[1]


@pytest.fixture(scope="module")
def log():
    return behaviours(MALL)


def test_all_products_are_in_the_log_in_order(log):
    key = log.events.user * (1 << 32) + log.events.time
    assert (np.diff(key) >= 0).all() and set(log.kind) == set(range(len(KINDS)))
    assert (log.events.user >= MALL.n_users).any()


def test_the_dictionary_holds_no_noise_and_no_machine(log):
    found = MallGlobalUsers(mall=MALL).dictionary()
    assert not [t for t in found.tokens if t.startswith("app/") or "?" in t]
    assert {t.split("/")[0] for t in found.tokens} == {"shop", "search", "video"}
    assert set(found.machines) == set(range(MALL.n_users, log.events.user.max() + 1))
    assert found.report["coverage"] > 0.8 and found.report["slips"] > 0
    raw = MallGlobalUsers(mall=MALL, cleaning=None).dictionary()
    assert raw.rows > 2 * found.rows and [t for t in raw.tokens if "?" in t]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_moment_knows_what_was_before_it_and_its_labels_what_came_after(log, split):
    source = MallGlobalUsers(mall=MALL, split=split, length=10)
    found, rows = source.dictionary(), None
    opened = source.make()
    rows = opened.take(np.arange(len(opened)))
    ids = found.ids(log.events.token)
    acts = build(MALL).log.actions
    for i in np.linspace(0, len(opened) - 1, 7).astype(int):
        user = rows["user"][i]
        mine = np.flatnonzero((log.events.user == user) & (ids > 0))
        count = rows["behaviour/length"][i]
        hours = np.expm1(rows["behaviour_gap"][i, :count])
        assert (hours >= 0).all()
        if split == "test":
            at = mine[log.events.time[mine] >= END][0]
            assert rows["target"][i] == ids[at]
            before, now = mine[log.events.time[mine] < log.events.time[at]], log.events.time[at]
        else:
            before = mine[: _place(log, mine, rows["behaviour"][i, :count], ids, hours)]
            now = round(log.events.time[before[-1]] + hours[-1] * 3600) if len(before) else None
        if now is None:
            continue
        np.testing.assert_array_equal(rows["behaviour"][i, :count], ids[before][-10:])
        later = (acts["user"] == user) & (acts["time"] >= now) & (acts["time"] < now + WINDOW * DAY)
        leaves = set(build(MALL).shop.leaf[acts["item"][later]])
        assert set(np.flatnonzero(rows["interests"][i])) == leaves
        assert split == "test" or now + WINDOW * DAY <= END
    assert 0.2 < rows["tagged"].mean() < 0.6
    np.testing.assert_allclose(np.linalg.norm(rows["tags"][rows["tagged"] > 0], axis=1), 1, atol=1e-4)


def _place(log, mine, history, ids, hours):
    """How many of a person's events lie before the moment, by the gaps."""
    if not len(history):
        return 0
    for n in range(len(history), len(mine) + 1):
        if np.array_equal(ids[mine[n - len(history) : n]], history):
            gaps = np.diff(log.events.time[mine[n - len(history) : n]])
            if np.allclose(-np.diff(hours) * 3600, gaps, atol=5 + 0.001 * gaps.max(initial=0)):
                return n
    raise AssertionError("the history is no run of the person's events")


def test_negatives_are_shared_and_come_as_often_as_they_say(rng):
    source = MallGlobalUsers(mall=MALL).make()
    draw = SharedNegatives(items="behaviour", count=500, uniform=0.5).bind(source)
    out = draw({"x": np.zeros(100)}, rng=rng)
    ids, count = np.unique(out["negatives"], return_counts=True)
    rate = {i: np.exp(q) for i, q in zip(out["negatives"].ravel(), out["negatives/logq"].ravel(), strict=True)}
    assert ids.min() >= FIRST
    said = np.array([rate[i] for i in ids])
    np.testing.assert_allclose(said.sum(), 1, atol=0.01)
    assert np.abs(count / 50_000 - said).max() < 5 * np.sqrt(said.max() / 50_000)
    assert said.min() > 0.5 / len(ids) - 1e-6 and said.max() > 1.2 * said.min()
