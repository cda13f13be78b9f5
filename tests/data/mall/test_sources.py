"""The mall's sources deliver what they declare, and never the future."""

import numpy as np
import pytest

from data.mall.build import build
from data.mall.config import Mall, Views
from data.mall.sources import MallClicks, MallNewcomers, MallPairs, MallProducts, MallQueries, MallSequences
from data.mall.views.features import VIEWS
from data.mall.views.words import lexicon

MALL = Mall(size="tiny")
CONFIGS = [
    *(
        c(mall=MALL, split=s)
        for c in (MallClicks, MallQueries, MallSequences, MallPairs)
        for s in ("train", "valid", "test")
    ),
    MallSequences(mall=MALL, split="test", by="time"),
    MallProducts(mall=MALL),
    MallProducts(mall=MALL, views=VIEWS),
    MallQueries(mall=MALL, words=True),
    MallPairs(mall=MALL, views=("video", "live")),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{type(c).__name__}-{getattr(c, 'split', '')}")
def test_rows_are_as_declared(config):
    source = config.make()
    assert len(source) > 10
    rows = source.take(np.array([0, len(source) - 1, 0]))
    declared = source.features.arrays()
    assert set(rows) == set(declared)
    for name, (shape, dtype) in declared.items():
        assert rows[name].shape == (3, *shape) and rows[name].dtype == dtype, name
    for f in source.features:
        if f.size and f.kind != "text":
            assert rows[f.name].min() >= 0 and rows[f.name].max() < f.size, f.name
    one = source[len(source) - 1]
    assert all(np.array_equal(one[name], rows[name][1]) for name in declared)


def test_history_is_the_past_and_nothing_else():
    """Each history equals the user's actions strictly before the row's time, counted by hand."""
    source = MallClicks(mall=MALL, split="test", history=5).make()
    rows = source.take(np.arange(0, len(source), 37))
    actions = build(MALL).log.actions
    for i in range(len(rows["click"])):
        mine = (actions["user"] == rows["user_group"][i]) & (actions["time"] < rows["time"][i])
        past = actions["item"][mine][np.argsort(actions["time"][mine], kind="stable")][-5:] + 2
        assert rows["history"][i, : rows["history/length"][i]].tolist() == past.tolist()
        assert not rows["history"][i, len(past) :].any()


def test_splits_follow_time_and_cold_items_are_new():
    parts = [MallClicks(mall=MALL, split=s).make().columns for s in ("train", "valid", "test")]
    assert parts[0]["time"].max() < parts[1]["time"].min() and parts[1]["time"].max() < parts[2]["time"].min()
    assert not parts[0]["is_cold"].any() and parts[2]["is_cold"].mean() > 0.02
    cold = parts[2]["item"][parts[2]["is_cold"] > 0]
    assert not np.isin(cold, parts[0]["item"]).any()


def test_sequences_leave_the_last_two():
    train, valid, test = (
        MallSequences(mall=MALL, split=s, max_len=200).make().columns for s in ("train", "valid", "test")
    )
    both = np.isin(test["user"], train["user"])
    assert np.array_equal(train["user"], valid["user"])
    for i, j in zip(np.flatnonzero(both)[:20], range(20), strict=True):
        n = train["history/length"][j]
        assert test["history"][i, n] == valid["target"][j]
        assert test["target"][i] not in test["history"][i]


def test_sequences_by_time_know_nothing_of_the_days_they_are_asked_about():
    built = build(MALL)
    actions, end_of_training = built.log.actions, MALL.period("train")[1]
    when = {}  # the first time of each user and item
    for user, item, time in zip(*(actions[n].tolist() for n in ("user", "item", "time")), strict=True):
        when.setdefault((user, item + 2), time)
    train = MallSequences(mall=MALL, split="train", by="time", max_len=200).make().columns
    for user, ids, n in zip(*(train[k].tolist() for k in ("user", "history", "history/length")), strict=True):
        mine = sorted((t, i) for (u, i), t in when.items() if u == user and t < end_of_training)
        assert [when[user, i] for i in ids[:n]] == [t for t, _ in mine]
    for split in ("valid", "test"):
        start, end = MALL.period(split)
        asked = MallSequences(mall=MALL, split=split, by="time", max_len=200).make().columns
        assert len(asked["user"]) > 5
        for row, user in enumerate(asked["user"].tolist()):
            time = when[user, asked["target"][row]]
            others = [t for (u, _), t in when.items() if u == user]
            assert time == min(t for t in others if t >= start) and time < end
            assert asked["history/length"][row] == sum(t < start for t in others)
            age = (time - built.shop.arrival[asked["target"][row] - 2]) / 86_400
            assert asked["target_age"][row] == pytest.approx(age, abs=1e-3)


def test_pairs_share_no_product_between_splits():
    spus = [set(MallPairs(mall=MALL, split=s).make().take(np.arange(20))["spu"].tolist()) for s in ("train", "valid")]
    assert not spus[0] & spus[1]


def test_content_vectors_join_by_id(tmp_path):
    count = MALL.n_items - MALL.n_items // 12  # the last have none
    vectors = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    np.savez(tmp_path / "v.npz", id=np.arange(2, 2 + count), vector=vectors)
    source = MallClicks(
        mall=MALL, split="train", content=str(tmp_path / "v.npz"), content_history=True, history=4
    ).make()
    rows = source.take(np.arange(500))
    assert (rows["item"] >= 2 + count).any()
    for i in range(500):
        want = vectors[rows["item"][i] - 2] if rows["item"][i] < 2 + count else np.zeros(3)
        assert np.array_equal(rows["content"][i], want)


def test_newcomers_have_the_unknown_id_and_their_own_content(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(MALL.n_items, 3)).astype(np.float32)
    np.savez(tmp_path / "v.npz", id=np.arange(2, 2 + MALL.n_items), vector=vectors)
    options = {"mall": MALL, "content": str(tmp_path / "v.npz"), "content_history": True, "history": 20}
    new = set()
    for split in ("train", "test"):
        whole, source = (c(split=split, **options).make() for c in (MallClicks, MallNewcomers))
        rows, known = (s.take(np.arange(len(whole))) for s in (whole, source))
        cold = rows["is_cold"] > 0
        new |= set(rows["item"][cold].tolist())
        assert (known["item"][cold] == 1).all() and np.array_equal(known["item"][~cold], rows["item"][~cold])
        assert np.array_equal(known["history"], np.where(np.isin(rows["history"], list(new)), 1, rows["history"]))
        for name in set(rows) - {"item", "history"}:
            np.testing.assert_array_equal(known[name], rows[name], err_msg=name)
    assert new and (known["history"] == 1).any()


def test_missing_images_are_black_and_the_others_stay():
    some = Mall(size="tiny", views=Views(no_image=0.3))
    all_of, left = (MallProducts(mall=m).make().take(np.arange(300))["image"] for m in (MALL, some))
    gone = ~left.any((1, 2, 3))
    assert 0.2 < gone.mean() < 0.4 and np.array_equal(all_of[~gone], left[~gone])


def test_query_words_name_the_leaf_that_was_asked_for():
    rows = MallQueries(mall=MALL, words=True).make().columns
    said = lexicon(MALL).means(rows["query_words"], kind="leaf").max(-1)
    assert np.array_equal(said, np.where(rows["query"] > 0, rows["query"] - 2, -1))
    assert (rows["query_words/length"] > 1).mean() > 0.1
