"""Rows held out of a batch: each parameter follows its own rows and no other's."""

import chz
import jax
import numpy as np
import pytest

from data.errors import UserError
from tests.train.test_program import PlainSGD, sgd
from tests.train.tiny import tiny
from train.held_out import HeldOut
from train.program import Program
from train.sharding import Mesh, put_batch

CHOSEN = "mlp/out/bias"
HELD = HeldOut(params=r"out/bias$", every=4)


def step(experiment, batch, *, devices=1):
    mesh = Mesh(data=devices).make(devices=jax.devices()[:devices])
    program = Program(experiment, features=experiment.source.make().features, mesh=mesh)
    with jax.set_mesh(mesh):
        state, logs = program.train_step(program.init(0), put_batch(batch, mesh=mesh))
        return jax.device_get(state["params"]), jax.device_get(logs)


def one_batch(experiment):
    batches = experiment.loader.open(experiment.source.make())
    batch = next(batches)
    batches.close()
    return batch


@pytest.mark.parametrize("rows", [(), (r"table",)], ids=["dense", "rows"])
def test_each_parameter_follows_the_gradient_of_its_rows(rows):
    optimizer = sgd(rows=rows, row_rule=PlainSGD()) if rows else sgd()
    plain = tiny(optimizer=optimizer)
    batch = one_batch(plain)
    held = np.arange(64) % 4 == 0
    learned, learn_logs = step(plain, {n: a[~held] for n, a in batch.items()})
    judged, held_logs = step(plain, {n: a[held] for n, a in batch.items()})
    both, logs = step(chz.replace(plain, held_out=HELD), batch)
    assert np.abs(learned[CHOSEN] - judged[CHOSEN]).max() > 1e-4
    for path, value in both.items():
        wanted = judged if path == CHOSEN else learned
        np.testing.assert_allclose(value, wanted[path], rtol=1e-5, atol=1e-6, err_msg=path)
    assert logs["loss"] == pytest.approx(learn_logs["loss"], rel=1e-5)
    assert logs["held_out_loss"] == pytest.approx(held_logs["loss"], rel=1e-5)


def test_devices_and_micro_batches_change_nothing():
    plain = chz.replace(tiny(optimizer=sgd()), held_out=HELD)
    batch = one_batch(plain)
    one, _ = step(plain, batch)
    four, _ = step(plain, batch, devices=4)
    for path in one:
        np.testing.assert_allclose(four[path], one[path], rtol=1e-5, atol=1e-6, err_msg=path)
    parts, _ = step(chz.replace(plain, optimizer=sgd(accumulate=2)), batch)
    assert all(np.isfinite(p).all() for p in parts.values())


@pytest.mark.parametrize(
    ("held", "optimizer", "message"),
    [
        (HeldOut(params="alfa"), sgd(), "'alfa' matches no parameter; the nearest is"),
        (HeldOut(params="table"), sgd(rows=(r"table",), row_rule=PlainSGD()), "keeps row-sparse"),
        (HeldOut(params="bias", every=5), sgd(), "a batch of 64 does not divide by held_out.every=5"),
    ],
)
def test_what_cannot_be_held_out_is_refused(held, optimizer, message):
    experiment = chz.replace(tiny(optimizer=optimizer), held_out=held)
    with pytest.raises(UserError, match=message):
        step(experiment, one_batch(experiment))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        HeldOut(params="alpha", every=1)
    with pytest.raises(ValueError, match="is not a regular expression"):
        HeldOut(params="(")
