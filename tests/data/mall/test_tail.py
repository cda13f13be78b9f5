"""Rows that know how often their item was clicked while the training days ran."""

import numpy as np

from data.features import FIRST
from data.mall.build import build
from data.mall.config import Mall
from data.mall.sources import MallNewcomers
from data.mall.tail import MallTail

MALL = Mall(size="tiny")


def test_train_clicks_are_those_of_the_training_days_and_newcomers_have_none():
    source = MallTail(mall=MALL, split="test", history=4).make()
    every = np.arange(len(source))
    rows, plain = source.take(every), MallNewcomers(mall=MALL, split="test", history=4).make().take(every)
    for name, column in plain.items():
        np.testing.assert_array_equal(rows[name], column, err_msg=name)
    clicks = MALL.n_items * [0]
    log = build(MALL).log.impressions
    for item, click, time in zip(log["item"], log["click"], log["time"], strict=True):
        clicks[item] += bool(click) and time < MALL.period("train")[1]
    items = source.columns["item"] - FIRST  # as a whole vocabulary would have them
    cold = rows["is_cold"] > 0
    np.testing.assert_array_equal(rows["train_clicks"][~cold], np.array(clicks)[items[~cold]])
    assert cold.any() and (rows["train_clicks"][cold] == -1).all()
    assert "train_clicks" not in {f.name for f in source.features}, "an input of no model"
    one = source[3]
    assert one["train_clicks"] == rows["train_clicks"][3]
