"""Histories cut in two: each action is in one of them, in its order, the same whenever it is asked for."""

import chz
import numpy as np
import pytest

from data.features import FIRST
from data.mall.config import Mall
from data.mall.elsewhere import MallElsewhere
from data.mall.sources import MallQueries
from data.mall.triples import MallTriples, MallVideos
from data.pipeline import Loader
from data.transforms.expand_history import ExpandHistory

MALL = Mall(size="tiny")


@pytest.fixture(scope="module")
def rows():
    sources = [MallQueries(mall=MALL).make(), MallElsewhere(mall=MALL, watched=True).make()]
    assert len(sources[0]) == len(sources[1]) > 100
    return [source.take(np.arange(len(source))) for source in sources]


def lists(rows, name):
    return [row[:n].tolist() for row, n in zip(rows[name], rows[f"{name}/length"], strict=True)]


def test_each_action_is_in_one_place_and_the_order_stays(rows):
    whole, cut = rows
    places = {}
    for user, past, here, away in zip(
        whole["user"], lists(whole, "history"), lists(cut, "history"), lists(cut, "watched"), strict=True
    ):
        assert [i for i in past if i in set(here)] == here and [i for i in past if i in set(away)] == away
        assert len(here) + len(away) == len(past)
        for item in past:
            assert places.setdefault((user, item), item in away) == (item in away)
    share = np.mean(list(places.values()))
    assert share == pytest.approx(0.7, abs=0.05)
    padding = np.arange(cut["history"].shape[1]) >= cut["history/length"][:, None]
    assert not cut["history"][padding].any()


def test_a_share_of_none_leaves_the_history_and_nobody_is_known_by_name(rows):
    source = MallElsewhere(mall=MALL, share=0.0).make()
    np.testing.assert_array_equal(source.take(np.arange(50))["history"], rows[0]["history"][:50])
    assert not {"user", "history_category", "watched"} & {feature.name for feature in source.features}
    assert not {"user", "history_category", "history_category/length"} & set(rows[1])
    assert not {"watched", "watched/length"} & set(source.take(np.arange(5)))
    with pytest.raises(ValueError, match="from 0 to 1"):
        chz.replace(MallElsewhere(mall=MALL), share=1.5)


def test_the_videos_of_all_listings_are_those_that_triples_show():
    shown, all_ = MallTriples(mall=MALL).make(), MallVideos(mall=MALL).make()
    rows, videos = shown.take(np.arange(5)), all_.take(np.arange(len(all_)))
    assert videos["item"].tolist() == list(range(FIRST, FIRST + MALL.n_items))
    assert (videos["video/length"] == rows["video"].shape[1]).all()
    for row, listing in zip(rows["video"], shown._listings[:5, 1], strict=True):
        np.testing.assert_array_equal(videos["video"][listing], row)
    assert all_.features["video"] == shown.features["video"]


def test_its_batches_can_be_expanded(tmp_path):
    source = MallElsewhere(mall=MALL, watched=True).make()
    near = np.arange(FIRST + MALL.n_items)[:, None] * (np.arange(FIRST + MALL.n_items) >= FIRST)[:, None]
    np.save(tmp_path / "near.npy", near)
    transforms = (ExpandHistory(path=str(tmp_path / "near.npy")),)
    batch = next(Loader(batch_size=32, shuffle=False, transforms=transforms).open(source))
    expanded = MallElsewhere(mall=MALL, near=str(tmp_path / "near.npy")).make().take(np.arange(32))
    whole = MallQueries(mall=MALL).make().take(np.arange(32))
    for rows in (batch, expanded):
        assert [sorted(past) for past in lists(rows, "history")] == [sorted(past) for past in lists(whole, "history")]
