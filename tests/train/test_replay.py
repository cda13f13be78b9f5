"""Figures of a replay: by hand, of who knows the truth, and of who has learnt the bias."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import FIRST
from data.mall.config import Mall
from data.mall.shoppers import MallShoppers
from data.mall.sources import MallProducts
from data.mall.watches import MallReplay, MallWatches, seconds
from train.replay import Replay, ReplayByContent, of_ranking

MALL = Mall(size="tiny")
SHARED = {"mall": MALL, "logged": MallWatches(mall=MALL, split="valid"), "metrics": ()}


def test_figures_by_hand(rng):
    score, truth = rng.normal(size=(3, 40)), rng.random((3, 40))
    length, fresh = rng.uniform(5, 90, 40), np.arange(40) < 15
    found = of_ranking(score, truth=truth, length=length, fresh=fresh)
    best = [sorted(range(40), key=lambda i, row=row: -score[row, i])[:10] for row in range(3)]
    assert found["deep_view"] == pytest.approx(np.mean([truth[row, best[row]].mean() for row in range(3)]))
    assert found["short_share"] == pytest.approx(np.mean([(length[best[row]] < 15).mean() for row in range(3)]))
    news = [sorted(range(15), key=lambda i, row=row: -score[row, i])[:10] for row in range(3)]
    assert found["new/deep_view"] == pytest.approx(np.mean([truth[row, news[row]].mean() for row in range(3)]))
    assert found["random/new/deep_view"] == pytest.approx(truth[:, :15].mean())
    expected = np.mean([np.corrcoef(row, length)[0, 1] for row in score])
    assert found["seconds_correlation"] == pytest.approx(expected)
    perfect = of_ranking(truth, truth=truth, length=length, fresh=fresh)
    assert perfect["deep_view"] == found["possible/deep_view"] > found["deep_view"]
    with pytest.raises(UserError, match="a replay ranks 10 of the new videos, of which there are 3"):
        of_ranking(score, truth=truth, length=length, fresh=np.arange(40) < 3)


def test_a_tower_that_learns_the_bias_ranks_short_videos_first():
    replay = Replay(source=MallReplay(mall=MALL, people=30), **SHARED)
    biased = replay.run(lambda batch: {"score": -batch["seconds"] - 0.01 * batch["place"]}).values
    knowing = replay.run(lambda batch: {"score": np.arctanh(2 * batch["item"] / 1e4)}).values
    assert biased["logged/auc"] > 0.55  # finishing is of the short
    assert biased["short_share"] == 1 > biased["random/short_share"] and biased["seconds_correlation"] < -0.99
    assert biased["deep_view"] < biased["possible/deep_view"]
    assert abs(knowing["seconds_correlation"]) < 0.2


def test_content_is_replayed_for_the_same_people(rng):
    table = rng.normal(size=(FIRST + MALL.n_items, 6))
    by = ReplayByContent(
        source=MallShoppers(mall=MALL, most=None),
        items=MallProducts(mall=MALL, views=("title",)),
        videos=MallProducts(mall=MALL, views=("title",)),
        people=30,
        **SHARED,
    )

    def by_length(batch):
        """Everyone's taste is the same direction, along which videos lie by their seconds."""
        length = seconds(MALL, feed=by.feed)[batch["item"] - FIRST]
        return {"item": np.ones((len(length), 1)), "video": length[:, None].astype(np.float32)}

    found = by.run(by_length).values
    assert found["seconds_correlation"] == pytest.approx(1) and found["short_share"] == 0
    assert found["logged/auc"] < 0.45
    chance = by.run(lambda batch: dict.fromkeys(("item", "video"), table[batch["item"]])).values
    assert abs(chance["seconds_correlation"]) < 0.2
    tower = Replay(source=MallReplay(mall=MALL, people=30), **SHARED)
    random = tower.run(lambda batch: {"score": batch["seconds"]}).values
    for name in ("random/deep_view", "possible/deep_view", "random/new/deep_view", "deep_view", "short_share"):
        assert random[name] == pytest.approx(found[name], rel=1e-5), name
