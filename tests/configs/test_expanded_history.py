"""The towers of `expanded_history_mall` on neighbours made by hand: expansion reaches training and evaluation alike."""

import chz
import numpy as np

from configs.expanded_history_mall import get_config, tower
from data.features import FIRST
from data.mall.config import Mall
from train.loop import train

MALL = Mall(size="tiny")


def small(experiment):
    loader = chz.replace(experiment.loader, batch_size=64, prefetch=0)
    evals = {name: chz.replace(one, batch_size=256) for name, one in experiment.evals.items()}
    return chz.replace(experiment, loader=loader, evals=evals, steps=30)


def test_a_perfect_neighbour_makes_of_it_the_tower_that_knows_all(tmp_path):
    """Both then learn from the same histories, but for the order within them, over which the tower takes the mean."""
    own = np.arange(FIRST + MALL.n_items, dtype=np.int32)[:, None]
    np.save(tmp_path / "near.npy", np.where(own < FIRST, 0, own))
    rows = {"here": {}, "expanded": {"near": str(tmp_path / "near.npy")}, "whole": {"share": 0.0}}
    found = {
        name: train(small(tower(MALL, **how)), workdir=tmp_path / name, say=lambda _: None).metrics
        for name, how in rows.items()
    }
    for metric in ("valid/recall@10", "test/mrr"):
        np.testing.assert_allclose(found["expanded"][metric], found["whole"][metric], rtol=1e-3)
    assert found["here"]["test/mrr"] != found["whole"]["test/mrr"]


def test_its_stages_lead_from_one_to_the_next():
    order = get_config().order()
    assert order.index("encoder") < order.index("pages") < order.index("across") < order.index("expanded")
    assert order[-1] == "gain"
