"""A batch encoded in parts under one contrastive loss: the update of the whole batch, on one device and on four."""

import chz
import jax
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from modules.base import Model, ModelConfig
from modules.layers.similarity import Temperature, unit
from modules.layers.tokens import TokenEmbedding
from tests.train.test_program import PlainSGD, assert_same, run, sgd
from tests.train.tiny import tiny
from train.held_out import HeldOut
from train.sharding import Mesh
from train.tasks.contrastive import DistinctContrastive


@chz.chz
class Pair(ModelConfig):
    def make(self, features, *, rngs):
        return PairModel(rngs=rngs)


class PairModel(Model):
    def __init__(self, *, rngs):
        self.users, self.items = (TokenEmbedding(40, dim=6, std=1.0, rngs=rngs) for _ in range(2))
        self.out = nnx.Linear(6, 4, rngs=rngs)
        self.temperature = Temperature(3.0)

    def __call__(self, batch, *, rngs=None):
        query, item = unit(self.out(self.users(batch["user"]))), unit(self.items(batch["item"])[:, :4])
        # A mean over rows and the parameters' own array stand beside what has rows; so do numbers without gradient.
        spread = {"aux_loss/spread": (query**4).mean(), "bank": self.out.kernel[:5], "user": batch["user"]}
        return {"query": query, "item": item, **spread, **self.temperature()}


def experiment(optimizer, **fields):
    return chz.replace(tiny(optimizer=optimizer), model=Pair(), task=DistinctContrastive(label="group"), **fields)


@pytest.fixture(scope="module")
def whole():
    return run(experiment(sgd()), steps=2)


@pytest.mark.parametrize("rows", [(), (r"items/table",)], ids=["dense", "row-sparse"])
def test_parts_on_four_devices_equal_the_whole_on_one(whole, rows):
    optimizer = sgd(accumulate=4, rows=rows, row_rule=PlainSGD())
    _, state, logs = run(experiment(optimizer), steps=2, mesh=Mesh(data=2, model=2).make())
    before, after = jax.device_get(whole[0].init(0)["params"]), jax.device_get(whole[1]["params"])
    assert max(abs(before[n] - after[n]).max() for n in after) > 0.01
    assert_same(state["params"], whole[1]["params"], tol=2e-6)
    assert [float(log["loss"]) for log in logs] == pytest.approx([float(log["loss"]) for log in whole[2]], rel=1e-6)
    assert logs[1].keys() == whole[2][1].keys()


def test_no_part_keeps_the_activations_of_the_whole():
    program, state, _ = run(experiment(sgd(accumulate=4)), steps=0)
    batch = {n: np.zeros((64, *shape), dtype) for n, (shape, dtype) in program.features.arrays().items()}
    text = str(jax.make_jaxpr(program._step)(state, batch))
    assert "f32[16,6]" in text  # users' vectors of one part
    assert "f32[64,6]" not in text
    assert "f32[4,16,6]" not in text


def test_held_out_rows_are_refused():
    fields = {"held_out": HeldOut(params="kernel", every=4)}
    with pytest.raises(UserError, match="do not go together where rows are compared"):
        run(experiment(sgd(accumulate=2), **fields), steps=1)
