"""Placement: one list of rules for parameters, their moments and row slots, on four devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from data.errors import UserError
from train.optim import Optimizer
from train.rowwise import LazyAdam
from train.sharding import Mesh, batch_sharding, describe, put_batch


@pytest.fixture(scope="module")
def state():
    """Shapes alone, in the form of a train state."""

    def make():
        table = jnp.zeros((8, 2))
        params = {"embed/table_2": table, "mlp/0/kernel": jnp.zeros((2, 4)), "mlp/0/bias": jnp.zeros(4)}
        tx = Optimizer(lr_scale=(("bias", 0.0),)).make(params, steps=3)
        rows = {"embed/table_2": LazyAdam().init(table)}
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": tx.init(params), "rows": rows, "ema": {}}

    return jax.eval_shape(make)


def specs(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): leaf.spec for path, leaf in leaves}


def test_tables_moments_and_slots_split_together(state):
    config = Mesh(model=2)
    mesh = config.make()
    assert dict(mesh.shape) == {"data": 2, "model": 2}
    found = specs(config.shardings(state, mesh=mesh))
    split = [name for name, spec in found.items() if spec == P("model")]
    assert len(split) == 1 + 2 + 4, found  # the table, Adam's two moments, the four slots
    assert all("table_2" in name for name in split)
    assert all(spec == P() for name, spec in found.items() if name not in split)


def test_first_matching_rule_wins_and_moments_follow(state):
    config = Mesh(model=2, rules=((r"mlp/\d+/kernel$", (None, "model")), (r"kernel$", ("model",))))
    found = specs(config.shardings(state, mesh=config.make()))
    kernels = {name: spec for name, spec in found.items() if "kernel" in name}
    assert len(kernels) == 3
    assert set(kernels.values()) == {P(None, "model")}


def test_axes_of_one_device_split_nothing(state):
    config = Mesh()
    mesh = config.make()
    assert dict(mesh.shape) == {"data": 4, "model": 1}
    assert set(specs(config.shardings(state, mesh=mesh)).values()) == {P()}


def test_describe_lists_what_is_split(state):
    config = Mesh(model=2)
    text = describe(config.shardings(state, mesh=config.make()), state=state)
    assert "params/embed/table_2  (8, 2)" in text and "50% a device" in text
    assert "kernel" not in text


def test_a_dimension_that_does_not_divide_is_named(state):
    config = Mesh(data=1, model=4, rules=((r"kernel$", ("model",)),))
    with pytest.raises(UserError, match=r"params/mlp/0/kernel of shape \(2, 4\).*'kernel\$'.*not a multiple of 4"):
        config.shardings({"params": state["params"]}, mesh=config.make())


@pytest.mark.parametrize(("data", "model"), [(3, 1), (-1, 3), (4, 4)])
def test_devices_that_do_not_divide_are_refused(data, model):
    with pytest.raises(UserError, match="4 devices"):
        Mesh(data=data, model=model).make()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": 0}, "at least 1"),
        ({"rules": (("(", ("model",)),)}, "regular expression"),
        ({"rules": (("a", ("rows",)),)}, "'rows'"),
        ({"rules": (("a", ("model", "model")),)}, "two dimensions"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Mesh(**fields)


def test_batches_split_over_data():
    mesh = Mesh(model=2).make()
    batch = {"x": np.arange(8).reshape(4, 2), "y": np.arange(4, dtype=np.float32)}
    placed = put_batch(batch, mesh=mesh)
    assert placed["x"].sharding == batch_sharding(mesh)
    assert placed["x"].addressable_shards[0].data.shape == (2, 2)
    np.testing.assert_array_equal(placed["y"], batch["y"])


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"6 rows.*mesh\.data=4"):
        put_batch({"x": np.zeros(6)}, mesh=Mesh().make())
