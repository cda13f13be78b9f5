"""On planted data the parts of TIN and DARE earn their place. Figures of every variant: tests/benchmarks."""

import pytest

from tests.benchmarks.behaviour_toys import TOYS, measure

pytestmark = pytest.mark.slow


def figures(toy: str, *variants: str) -> list[dict[str, float]]:
    make, lr, configs = TOYS[toy]
    data = make(0)
    return [measure(name, configs[name], toy=data, lr=lr, seed=0) for name in variants]


def test_tin_needs_positions_and_attention_and_product():
    names = ("TIN", "TIN without positions", "TIN without attention", "TIN without product")
    tin, *without = figures("temporal", *names)
    assert tin["auc"] >= 0.88 and tin["spearman"] >= 0.6
    costs = [tin["auc"] - other["auc"] for other in without]
    assert costs[0] >= 0.10 and costs[1] >= 0.10 and costs[2] >= 0.04


def test_decoupled_tables_find_what_matters():
    decoupled, shared = figures("decoupled", "decoupled 8", "shared 8")
    assert decoupled["auc"] - shared["auc"] >= 0.008
    assert decoupled["share"] > shared["share"]
