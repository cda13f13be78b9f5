"""The train step: row-sparse against dense, micro-batches against whole, clipping, averaging, precision."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from modules.base import Model, ModelConfig
from modules.ctr.dnn import DNN
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from modules.layers.multiplex import Multiplex
from tests.train.tiny import Tiny, tiny
from train.optim import Optimizer
from train.program import Program, make_predict
from train.rowwise import RowRule
from train.sharding import Mesh, put_batch

TABLE = "embed/table_4"


@chz.chz
class PlainSGD(RowRule):
    """Row-wise gradient descent: defined alike for dense and row-sparse tables."""

    def init_rows(self, table):
        return {}

    def step(self, grads, slots):
        return grads, {}


def run(experiment, *, steps=3, mesh=None):
    mesh = mesh or Mesh(data=1).make(devices=jax.devices()[:1])
    batches = experiment.loader.open(experiment.source.make())
    program = Program(experiment, features=batches.features, mesh=mesh)
    logs = []
    with jax.set_mesh(mesh):
        state = program.init(0)
        for _ in range(steps):
            state, log = program.train_step(state, put_batch(next(batches), mesh=mesh))
            logs.append(jax.device_get(log))
    return program, state, logs


def sgd(**fields):
    return Optimizer(algorithm="sgd", lr=0.5, **fields)


def assert_same(a, b, *, tol=1e-6):
    a, b = jax.device_get(a), jax.device_get(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tol, atol=tol, err_msg=name)


@pytest.fixture(scope="module")
def dense():
    return run(tiny(optimizer=sgd()))


def test_row_sparse_equals_dense(dense):
    _, state, logs = run(tiny(optimizer=sgd(rows=(r"table",), row_rule=PlainSGD())))
    assert state["rows"].keys() == {TABLE}
    assert_same(state["params"], dense[1]["params"])
    for ours, theirs in zip(logs, dense[2], strict=True):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)


def test_a_multiplexed_table_is_row_sparse_too():
    """Features and chunks that meet in a row add their gradients."""
    shared = DNN(dim=4, embedding=Embedding(multiplex=Multiplex(rows=14, chunk=2)), mlp=MLP(widths=(8,)))
    _, dense, _ = run(tiny(model=shared, optimizer=sgd()))
    _, rows, _ = run(tiny(model=shared, optimizer=sgd(rows=(r"table",), row_rule=PlainSGD())))
    assert rows["rows"].keys() == {"embed/table_2"}
    assert_same(rows["params"], dense["params"])


def test_row_sparse_with_micro_batches_equals_dense(dense):
    _, state, _ = run(tiny(optimizer=sgd(rows=(r"table",), row_rule=PlainSGD(), accumulate=4)))
    assert_same(state["params"], dense[1]["params"])


def test_micro_batches_equal_the_whole_batch(dense):
    _, state, logs = run(tiny(optimizer=sgd(accumulate=4)))
    assert_same(state["params"], dense[1]["params"])
    assert logs[0]["loss"] == pytest.approx(dense[2][0]["loss"], rel=1e-6)


def test_clipping_counts_tables_alike():
    _, dense, _ = run(tiny(optimizer=sgd(clip_norm=0.05)))
    _, rows, logs = run(tiny(optimizer=sgd(clip_norm=0.05, rows=(r"table",), row_rule=PlainSGD())))
    assert logs[0]["grad_norm"] > 0.05
    assert_same(rows["params"], dense["params"])


def test_learning_rate_scale_reaches_row_sparse_tables():
    fields = {"lr_scale": ((r"table", 0.1),)}
    _, dense, _ = run(tiny(optimizer=sgd(**fields)))
    _, rows, _ = run(tiny(optimizer=sgd(**fields, rows=(r"table",), row_rule=PlainSGD())))
    assert_same(rows["params"], dense["params"])


def test_rows_that_no_batch_reads_stay_to_the_bit():
    program, state, _ = run(tiny(optimizer=Optimizer(rows=(r"table",))), steps=3)
    before = jax.device_get(program.init(0)["params"][TABLE])
    after = jax.device_get(state["params"][TABLE])
    moved = (before != after).any(axis=1)
    assert moved.any()
    assert not moved[:2].any()  # missing and unknown occur in no row of this source


def test_average_follows_the_parameters_and_is_what_predicts():
    program, state, _ = run(tiny(optimizer=sgd(ema=0.5)), steps=2)
    _, one, _ = run(tiny(optimizer=sgd(ema=0.5)), steps=1)
    start = jax.device_get(program.init(0)["params"])
    name = "mlp/out/kernel"
    first, second = jax.device_get(one["params"][name]), jax.device_get(state["params"][name])
    np.testing.assert_allclose(
        jax.device_get(state["ema"][name]), 0.25 * start[name] + 0.25 * first + 0.5 * second, rtol=1e-5
    )
    assert program.weights(state)["params"][name] is state["ema"][name]


def test_bfloat16_computes_low_and_keeps_parameters_whole(dense):
    _, state, logs = run(tiny(optimizer=sgd(), precision="bfloat16"))
    assert all(p.dtype == jnp.float32 for p in state["params"].values())
    assert logs[0]["loss"] != dense[2][0]["loss"]
    assert logs[0]["loss"] == pytest.approx(dense[2][0]["loss"], rel=2e-2)


@pytest.mark.parametrize("rows", [(), (r"table",)], ids=["dense", "rows"])
def test_four_devices_train_as_one(rows):
    four = Mesh(data=2, model=2).make()
    optimizer = Optimizer(rows=rows) if rows else Optimizer()
    _, a, _ = run(tiny(optimizer=optimizer))
    _, b, _ = run(tiny(optimizer=optimizer), mesh=four)
    assert_same(a["params"], b["params"], tol=2e-5)
    assert b["params"][TABLE].sharding.spec == jax.P("model")


def test_a_batch_that_does_not_divide_names_both_numbers():
    with pytest.raises(UserError, match=r"64 does not divide into optimizer\.accumulate=3"):
        run(tiny(optimizer=sgd(accumulate=3)))
    with pytest.raises(UserError, match=r"66 rows .* does not divide over mesh\.data=4"):
        run(tiny(batch_size=66), mesh=Mesh(data=4).make())


@chz.chz
class WholeTable(ModelConfig):
    def make(self, features, *, rngs):
        return WholeTableModel(rngs)


class WholeTableModel(Model):
    def __init__(self, rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (40, 4)))

    def __call__(self, batch, *, rngs=None):
        return {"logit": (self.table[batch["user"]] @ self.table.T).sum(-1)}


def test_a_table_read_whole_cannot_be_row_sparse():
    experiment = chz.replace(tiny(optimizer=Optimizer(rows=(r"table",))), model=WholeTable())
    with pytest.raises(UserError, match=r"reads the whole table|never reads its rows"):
        run(experiment)


def test_predict_needs_no_label_and_any_number_of_rows():
    program, state, _ = run(tiny(), steps=1)
    rows = Tiny(split="valid").make().take(np.arange(7))
    inputs = {name: rows[name] for name in ("user", "item", "price")}
    with jax.set_mesh(program.mesh):
        predict = make_predict(program, program.weights(state))
        whole = predict(inputs)["score"]
        alone = predict({n: a[2:3] for n, a in inputs.items()})["score"]
    assert whole.shape == (7,)
    np.testing.assert_allclose(whole[2:3], alone, rtol=1e-6)


def test_dropout_differs_by_step_and_repeats_by_seed():
    model = DNN(dim=4, mlp=MLP(widths=(8,), dropout=0.5))
    optimizer = Optimizer(algorithm="sgd", lr=0.0)
    same = tiny(optimizer=optimizer, model=model, batch_size=512)
    _, _, logs = run(chz.replace(same, loader=chz.replace(same.loader, shuffle=False)), steps=2)
    _, _, again = run(chz.replace(same, loader=chz.replace(same.loader, shuffle=False)), steps=2)
    assert logs[0]["loss"] != logs[1]["loss"]
    assert [x["loss"] for x in logs] == [x["loss"] for x in again]
