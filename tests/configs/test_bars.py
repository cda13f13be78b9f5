"""What the tables under one protocol show is what their runs measure."""

import numpy as np
import pytest

from tests.contract.cases import ROOT
from train.command import read_config
from train.protocol.leaderboard import Leaderboard

BATCH = {
    **{name: np.array([0, 1, 0, 1]) for name in ("click", "label")},
    **{name: np.array([2, 2, 3, 3]) for name in ("user_group", "user_id")},
    "true_ctr": np.array([0.1, 0.6, 0.2, 0.7]),
}


def figures(experiment) -> set[str]:
    """Names of what the experiment's evaluators compute."""
    found = set()
    for name, evaluator in experiment.evals.items():
        for metric in evaluator.metrics:
            accumulator = metric.make()
            accumulator.update({"score": np.array([0.2, 0.7, 0.6, 0.5], np.float32)}, BATCH)
            found |= {f"{name}/{figure}" for figure in accumulator.compute()}
    return found


@pytest.mark.parametrize("stem", ["bars_frappe", "bars_amazon_beauty", "bars_mall"])
def test_every_column_and_the_line_of_a_table_are_measured(stem):
    pipeline = read_config(ROOT / "configs" / f"{stem}.py", [])
    board = next(stage for stage in pipeline.stages.values() if isinstance(stage, Leaderboard))
    wanted = {*board.also, *([board.line] if board.line else [])}
    for row in board.rows.values():
        repeat = pipeline.stages[row.of.removeprefix("@")]
        assert {repeat.metric, *wanted} <= figures(repeat.experiment), row.of
