import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from data.errors import UserError
from train.checkpoint import Checkpointer
from train.init_from import InitFrom
from train.workdir import Workdir


def fresh() -> dict:
    return {"table": jnp.full((6, 2), 9.0), "mlp/0/kernel": jnp.zeros((2, 3)), "mlp/0/bias": jnp.zeros(3)}


def there() -> dict:
    return {"table": np.arange(8.0).reshape(4, 2), "old/0/kernel": np.ones((2, 3)), "extra": np.ones(1)}


RENAME = (("^old/", "mlp/"),)


def test_rename_and_the_list_of_what_happened():
    params, report = InitFrom(workdir="run", rename=RENAME).match(fresh(), source=there())
    assert report.loaded == (("mlp/0/kernel", "old/0/kernel"),)
    assert report.missing == ("mlp/0/bias",)
    assert report.surplus == ("extra",)
    assert report.mismatched == (("table", (4, 2), (6, 2)),)
    np.testing.assert_array_equal(params["mlp/0/kernel"], 1)
    np.testing.assert_array_equal(params["table"], 9)
    text = "\n".join(report.lines())
    for expected in ("from old/0/kernel", "(4, 2) there, (6, 2) here", "mlp/0/bias", "extra", "1 loaded"):
        assert expected in text


def test_first_rows_of_a_grown_table_are_loaded_on_request():
    params, report = InitFrom(workdir="run", rename=RENAME, grow_rows=True).match(fresh(), source=there())
    assert report.grown == (("table", (4, 2), (6, 2)),)
    np.testing.assert_array_equal(params["table"], np.vstack([np.arange(8.0).reshape(4, 2), np.full((2, 2), 9.0)]))
    assert "first 4 rows loaded" in "\n".join(report.lines())


def test_a_table_that_shrank_or_widened_is_not_cut():
    source = there() | {"table": np.ones((8, 2))}
    assert InitFrom(workdir="run", rename=RENAME, grow_rows=True).match(fresh(), source=source)[1].mismatched
    source = there() | {"table": np.ones((4, 1))}
    assert InitFrom(workdir="run", rename=RENAME, grow_rows=True).match(fresh(), source=source)[1].mismatched


def test_placement_and_dtype_stay():
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    rows = NamedSharding(mesh, P("model"))
    params = {"a": jax.device_put(jnp.zeros((4, 2), jnp.bfloat16), rows), "b": jax.device_put(jnp.zeros((6, 2)), rows)}
    source = {"a": np.ones((4, 2), np.float32), "b": np.ones((4, 2), np.float32)}
    loaded, _ = InitFrom(workdir="run", grow_rows=True).match(params, source=source)
    assert {name: value.dtype for name, value in loaded.items()} == {"a": jnp.bfloat16, "b": jnp.float32}
    assert all(value.sharding.is_equivalent_to(rows, 2) for value in loaded.values())
    np.testing.assert_array_equal(loaded["b"].sum(1), [2, 2, 2, 2, 0, 0])


def test_include_and_exclude_go_by_the_names_here():
    chosen = InitFrom(workdir="run", rename=RENAME, include="^mlp/", exclude="bias$")
    _, report = chosen.match(fresh(), source=there() | {"old/0/bias": np.ones(3)})
    assert report.loaded == (("mlp/0/kernel", "old/0/kernel"),)
    assert report.left_out == ("table", "mlp/0/bias")


def test_strict_refuses_and_lists():
    with pytest.raises(UserError, match=r"(?s)strict.*missing.*mlp/0/bias"):
        InitFrom(workdir="run", rename=RENAME, strict=True).match(fresh(), source=there())
    exact = {name: np.asarray(value) for name, value in fresh().items()}
    assert InitFrom(workdir="run", strict=True).match(fresh(), source=exact)[1].complete


def test_loading_nothing_is_an_error():
    with pytest.raises(UserError, match="loaded nothing"):
        InitFrom(workdir="run").match(fresh(), source={"other": np.ones(2)})


def test_two_names_cannot_become_one():
    with pytest.raises(UserError, match="both a and b into c"):
        InitFrom(workdir="run", rename=(("a|b", "c"),)).match({"c": jnp.ones(1)}, source={"a": 1, "b": 2})


@pytest.mark.parametrize("wrong", [{"rename": (("(", ""),)}, {"include": "["}, {"exclude": "*"}, {"step": "newest"}])
def test_wrong_fields_are_refused(wrong):
    with pytest.raises(ValueError, match="init_from"):
        InitFrom(workdir="run", **wrong)


def state_of(value: float, *, ema: bool) -> dict:
    params = {"kernel": jnp.full((2, 2), value), "bias": jnp.full(2, value)}
    return {
        "step": jnp.int32(7 if value else 0),
        "params": params,
        "stats": {"mean": jnp.full(2, value)},
        "opt": (),
        "rows": {},
        "ema": {name: array + 1 for name, array in params.items()} if ema else {},
    }


@pytest.mark.parametrize("ema_there", [True, False])
def test_a_state_takes_weights_from_a_workdir(tmp_path, ema_there):
    with Workdir(tmp_path / "old") as old, Checkpointer(old.checkpoints) as checkpoints:
        old.write_config({})
        checkpoints.save(7, state=state_of(5.0, ema=ema_there), iterator={}, clock={}, config={})
    state, report = InitFrom(workdir=str(tmp_path / "old")).apply(state_of(0.0, ema=True))
    assert int(state["step"]) == 0
    np.testing.assert_array_equal(state["params"]["kernel"], 5)
    np.testing.assert_array_equal(state["stats"]["mean"], 5)
    np.testing.assert_array_equal(state["ema"]["bias"], 6 if ema_there else 5)
    assert ("stats/mean", "stats/mean") in report.loaded
    jax.jit(lambda s: s, donate_argnums=0)(state)  # no buffer is held twice


def test_a_folder_that_is_no_workdir_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a workdir \(no config.json\)"):
        InitFrom(workdir=str(tmp_path / "nowhere")).load()
