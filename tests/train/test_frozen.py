"""Parameters with a learning rate of 0: no gradient, no moments, no average, no place in the norm."""

import jax
import numpy as np
import pytest

from tests.train.test_program import run, sgd
from tests.train.tiny import tiny
from train.optim import Optimizer

FROZEN = (("table", 0.0), ("hidden", 0.0))


@pytest.mark.parametrize("rows", [(), ("table",)])
def test_frozen_parameters_cost_nothing_and_stay(rows):
    optimizer = Optimizer(
        algorithm="adamw", weight_decay=0.1, l2=(("kernel", 0.1),), ema=0.9, accumulate=2, lr_scale=FROZEN, rows=rows
    )
    program, state, _ = run(tiny(optimizer=optimizer), steps=2)
    assert program.frozen == {p for p in state["params"] if "table" in p or "hidden" in p}
    before, after = jax.device_get((program.init(0)["params"], state["params"]))
    moved = {path for path in after if not np.array_equal(before[path], after[path])}
    assert moved == set(after) - program.frozen
    held = {jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(state["opt"]) if leaf.ndim}
    assert held and not [name for name in held if "table" in name or "hidden" in name]
    assert set(state["ema"]) == moved and not state["rows"]


def test_the_norm_is_that_of_the_others():
    _, free, logs = run(tiny(optimizer=sgd()), steps=1)
    _, state, frozen = run(tiny(optimizer=sgd(lr_scale=FROZEN)), steps=1)
    program, _, _ = run(tiny(optimizer=sgd()), steps=0)
    first = jax.device_get(program.init(0)["params"])
    step = [jax.device_get(free["params"][p]) - first[p] for p in first if not ("table" in p or "hidden" in p)]
    lr = float(logs[0]["lr"])
    assert frozen[0]["grad_norm"] < 0.99 * logs[0]["grad_norm"]
    assert frozen[0]["grad_norm"] == pytest.approx(np.sqrt(sum((d**2).sum() for d in step)) / lr, rel=1e-4)
    for path in first:
        if not ("table" in path or "hidden" in path):
            np.testing.assert_allclose(state["params"][path], free["params"][path], atol=1e-6)
