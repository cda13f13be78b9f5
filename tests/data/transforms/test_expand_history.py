"""Histories that another domain extends: by hand, and what they are worth where half of what people do is elsewhere."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Sequence
from data.mall.config import Mall
from data.mall.interests import MallInterests
from data.mall.latents import catalogue
from data.sources import InMemory
from data.transforms.expand_history import ExpandHistory

NEAR = np.array([[0, 0], [0, 0], [20, 21], [22, 0], [0, 0], [23, 24]])


def source(columns, *, items=40, videos=8):
    item, video = Categorical(name="item", rows=items), Categorical(name="video", rows=videos)
    features = Features(all=(Sequence(name="history", of=item, length=4), Sequence(name="watched", of=video, length=3)))
    return InMemory(columns, features=features)


@pytest.fixture
def rows():
    return {
        "history": np.array([[10, 11, 0, 0], [10, 11, 12, 13], [0, 0, 0, 0]], np.int32),
        "history/length": np.array([2, 4, 0], np.int32),
        "watched": np.array([[2, 5, 4], [2, 5, 4], [3, 5, 0]], np.int32),
        "watched/length": np.array([3, 1, 1], np.int32),
    }


def expanded(tmp_path, rows, near=NEAR, **options):
    np.save(tmp_path / "near.npy", near)
    transform = ExpandHistory(path=str(tmp_path / "near.npy"), **options)
    opened = source(rows)
    out = transform.bind(opened)(rows, rng=None)
    return [row[:n].tolist() for row, n in zip(out["history"], out["history/length"], strict=True)], out


def test_what_was_done_elsewhere_comes_before(tmp_path, rows):
    lists, out = expanded(tmp_path, rows)
    assert lists == [[20, 23, 10, 11], [10, 11, 12, 13], [22]]  # 4 is like nothing; a full history stays
    assert out["history"].shape == (3, 4) and out["history"].dtype == np.int32
    assert out["history/length"].dtype == np.int32 and out["history"][2].tolist() == [22, 0, 0, 0]
    lists, _ = expanded(tmp_path, rows, count=2)
    assert lists == [[24, 23, 10, 11], [10, 11, 12, 13], [22]]


def test_times_put_both_in_order(tmp_path, rows):
    rows |= {
        "history_time": np.array([[5, 9, 0, 0], [5, 6, 7, 9], [0, 0, 0, 0]]),
        "watched_time": np.array([[1, 7, 8], [8, 0, 0], [3, 0, 0]]),
    }
    lists, _ = expanded(tmp_path, rows, times=("history_time", "watched_time"))
    assert lists == [[20, 10, 23, 11], [11, 12, 20, 13], [22]]


def test_files_of_another_shop_are_refused(tmp_path, rows):
    with pytest.raises(UserError, match="ids up to 99"):
        expanded(tmp_path, rows, near=np.full((3, 1), 99))
    with pytest.raises(UserError, match="shape"):
        expanded(tmp_path, rows, count=3)
    with pytest.raises(UserError, match="is no file"):
        ExpandHistory(path=str(tmp_path / "none.npy")).bind(source(rows))
    with pytest.raises(UserError, match="no sequence"):
        ExpandHistory(path="x", other="item").features(Features(all=(
            Categorical(name="item", rows=9),
            Sequence(name="history", of=Categorical(name="item", rows=9), length=3),
        )))  # fmt: skip


def test_watched_videos_say_what_people_want_in_the_shop(tmp_path, rng):
    """On the mall, most of each history watched as videos: neighbours by noisy content give most of it back."""
    mall = Mall(size="tiny")
    shop, people = catalogue(mall), MallInterests(mall=mall, history=20).make()
    rows = people.take(np.arange(len(people)))
    leaf = np.eye(mall.leaves)[shop.leaf]
    content = np.concatenate([leaf, shop.spu_style[shop.spu]], axis=1)
    video = rng.permutation(mall.n_items)  # a video's id says nothing of its item
    seen = content[video] + 0.3 * rng.normal(size=content.shape)
    cosine = (seen / np.linalg.norm(seen, axis=1)[:, None]) @ (content / np.linalg.norm(content, axis=1)[:, None]).T
    near = np.concatenate([np.zeros((2, 1)), 2 + cosine.argmax(axis=1)[:, None]]).astype(np.int32)
    np.save(tmp_path / "near.npy", near)
    of = np.concatenate([[0, 1], 2 + np.argsort(video)]).astype(np.int32)
    there = np.arange(20) < rows["history/length"][:, None]
    here = there & (rng.random(there.shape) < 0.15)

    def packed(keep, ids):
        order = np.argsort(~keep, axis=1, kind="stable")
        return np.take_along_axis(np.where(keep, ids, 0), order, axis=1), keep.sum(axis=1).astype(np.int32)

    own, length = packed(here, rows["history"])
    watched, count = packed(there & ~here, of[rows["history"]])
    half = {"history": own, "history/length": length, "watched": watched, "watched/length": count}
    item, clip = Categorical(name="item", rows=2 + mall.n_items), Categorical(name="clip", rows=2 + mall.n_items)
    features = Features(
        all=(Sequence(name="history", of=item, length=20), Sequence(name="watched", of=clip, length=20))
    )
    both = ExpandHistory(path=str(tmp_path / "near.npy")).bind(InMemory(half, features=features))(half, rng=None)

    def recall(history, length):
        taste = np.zeros((len(history), content.shape[1]))
        for row, (ids, n) in enumerate(zip(history, length, strict=True)):
            taste[row] = content[ids[:n] - 2].sum(axis=0)
        top = np.argsort(-(taste @ content.T), axis=1)[:, :30] + 2
        wanted = [rows["taken"][r, : rows["taken/length"][r]] for r in range(len(rows["taken"]))]
        return np.mean([np.isin(w, t).mean() for w, t in zip(wanted, top, strict=True)])

    alone, helped = recall(own, length), recall(both["history"], both["history/length"])
    whole = recall(rows["history"], rows["history/length"])
    assert alone + 0.02 < helped and abs(helped - whole) < (whole - alone) / 2, (alone, helped, whole)
