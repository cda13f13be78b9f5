"""What every config gets for free: no line here names a model.

Goldens change only on purpose: UPDATE_GOLDEN=1 python -m pytest tests/contract
"""

import json
import os
import re

import jax
import numpy as np
import pytest

from serve.trained import Served
from tests.contract.cases import ROOT, case, config_files, encodes, experiments, lacking, resolved, trained
from train.checkpoint import Checkpointer, Checkpointing
from train.program import make_predict
from train.sharding import put_batch
from train.snapshot import dump

GOLDEN = ROOT / "tests" / "golden"
FILES = {path.stem: path for path in config_files()}


def distinct(files):
    """Every experiment once: a stage that trains what a plain config or an earlier stage trains is no further case."""
    every = {
        name: (path, json.dumps({**dump(experiment), "evals": None}))  # nothing here evaluates
        for path in files
        for name, experiment in experiments(path).items()
    }
    first = {}
    for name, (_, text) in sorted(every.items(), key=lambda case: ":" in case[0]):
        first.setdefault(text, name)
    return {name: path for name, (path, text) in every.items() if first[text] == name}


CASES = distinct(FILES.values())


def both(function):
    return pytest.mark.parametrize("name", sorted(CASES))(function)


def on_one_device(function):
    """Compiles the step once more: of content encoders among the slow tests."""
    encoders = {name for path in FILES.values() for name, e in experiments(path).items() if encodes(e)}
    names = [pytest.param(n, marks=pytest.mark.slow) if n in encoders else n for n in sorted(CASES)]
    return pytest.mark.parametrize("name", names)(function)


def needs_data(name):
    if lost := lacking(experiments(CASES[name])[name]):
        pytest.skip(f"not set: {', '.join(lost)}; the real data or weights of this config are not here")


def get(name):
    needs_data(name)
    return case(name, CASES[name])


def assert_close(a, b, *, tol=2e-5):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_allclose(np.asarray(a[key]), np.asarray(b[key]), rtol=tol, atol=tol, err_msg=key)


@pytest.mark.parametrize("stem", sorted(FILES))
def test_resolved_config_equals_golden(stem):
    assert_golden(f"{stem}.config.json", resolved(FILES[stem]))


@both
def test_parameter_shapes_equal_golden(name):
    shapes = {path: list(shape) for path, shape in sorted(get(name).on_one.parameter_shapes().items())}
    assert_golden(f"{name.replace(':', '.')}.shapes.json", shapes)


def assert_golden(filename, value):
    path = GOLDEN / filename
    text = json.dumps(value, indent=1) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.exists(), f"no golden {path.name}; make it with UPDATE_GOLDEN=1"
    assert json.loads(path.read_text()) == json.loads(text), f"{path.name} changed; if on purpose, UPDATE_GOLDEN=1"


@both
def test_state_is_placed_by_the_rules_on_four_devices(name):
    c = get(name)
    state = trained(name, CASES[name])["state"]
    planned = c.on_four.state_sharding
    wrong = jax.tree.leaves(
        jax.tree.map(lambda a, s: None if a.sharding.is_equivalent_to(s, a.ndim) else str(s), state, planned)
    )
    assert not wrong
    split = [p for p, a in state["params"].items() if re.search(r"(^|/)table(_\d+)?$", p)]
    # A model may read texts alone and leave the ids to the transforms, or look ids up in texts that are its state.
    read = Served(c.on_one, weights=c.on_one.weights(state)).inputs()
    looked_up = {f.name: f.size for f in c.on_one.features if f.size and f.name in read}
    kept = [path for path, a in state["stats"].items() if a.ndim == 2 and len(a) in looked_up.values()]
    assert split or kept or not looked_up, "no embedding table by the name that the rules know"
    for path in split:
        assert len(state["params"][path].addressable_shards[0].data) * 2 == len(state["params"][path])


@both
def test_thirty_steps_on_one_batch_lower_the_loss(name):
    losses = trained(get(name).name, CASES[name])["losses"]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@on_one_device
def test_devices_do_not_change_the_loss(name):
    """The first step on one device and on four."""
    c = get(name)
    run = trained(name, CASES[name])
    start = jax.device_put(run["start"], c.on_one.state_sharding)
    with jax.set_mesh(c.on_one.mesh):
        _, logs = c.on_one.train_step(start, put_batch(c.batch, mesh=c.on_one.mesh))
    assert float(logs["loss"]) == pytest.approx(run["losses"][0], rel=1e-4)


def predictions(name, batch):
    c = get(name)
    state = trained(name, CASES[name])["state"]
    weights = jax.device_put(jax.device_get(c.on_four.weights(state)), c.on_one.mesh.devices.item())
    with jax.set_mesh(c.on_one.mesh):
        return make_predict(c.on_one, weights)(batch)


@both
def test_a_row_alone_scores_as_in_its_batch(name):
    c = get(name)
    whole = predictions(name, c.inputs())
    alone = predictions(name, c.inputs(slice(3, 4)))
    assert_close({k: v[3:4] for k, v in whole.items()}, alone)


@both
def test_what_stands_in_padding_changes_nothing(name):
    c = get(name)
    inputs = c.inputs()
    spoilt = {n: a.copy() for n, a in inputs.items()}
    places = 0
    for feature in c.on_one.features:
        if not feature.max_len:
            continue
        padding = np.arange(feature.max_len)[None, :] >= inputs[f"{feature.name}/length"][:, None]
        places += int(padding.sum())
        spoilt[feature.name][padding] = 1
    if not places:
        pytest.skip("no feature of this config has padding in its first batch")
    assert_close(predictions(name, inputs), predictions(name, spoilt), tol=1e-6)


@on_one_device
def test_saved_on_four_devices_goes_on_the_same_on_one(name, tmp_path):
    c = get(name)
    state = trained(name, CASES[name])["state"]
    with Checkpointer(tmp_path, config=Checkpointing()) as checkpointer:
        checkpointer.save(30, state=state, iterator={"batch": 30}, clock={}, config={}, wait=True)
        restored = checkpointer.restore(c.on_one.target())
    with jax.set_mesh(c.on_one.mesh):
        _, one = c.on_one.train_step(restored.state, put_batch(c.batch, mesh=c.on_one.mesh))
    with jax.set_mesh(c.on_four.mesh):
        copy = jax.tree.map(lambda a: a.copy(), state)
        _, four = c.on_four.train_step(copy, put_batch(c.batch, mesh=c.on_four.mesh))
    assert float(one["loss"]) == pytest.approx(float(four["loss"]), rel=1e-4)
