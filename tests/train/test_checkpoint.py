import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from data.errors import UserError
from train import checkpoint_files as files
from train.checkpoint import Checkpointer, Checkpointing, CheckpointWriteError, load_weights, sound_step

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3), optax.ema(0.9))


def mesh_of(shape: tuple[int, int]) -> jax.sharding.Mesh:
    devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    return jax.sharding.Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def placement(path: tuple, mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P("model") if "embed/table_4" in jax.tree_util.keystr(path) else P())


def make_state(seed: int = 0, *, mesh: jax.sharding.Mesh | None = None) -> dict:
    rng = np.random.default_rng(seed)
    params = {
        "embed/table_4": rng.normal(size=(8, 4)).astype(np.float32),
        "mlp/0/kernel": rng.normal(size=(4, 3)).astype(jnp.bfloat16),
        "mlp/0/bias": rng.normal(size=3).astype(np.float32),
    }
    state = {
        "step": np.int32(seed),
        "key": np.array([1, 2], np.uint32),
        "params": params,
        "stats": {"norm/mean": rng.normal(size=3).astype(np.float32)},
        "opt": jax.tree.map(lambda x: x + 0.5 if x.dtype == jnp.float32 else x, TX.init(params)),
        "rows": {"embed/table_4": {"m": np.zeros((8, 4), np.float32), "count": np.arange(8)}},
        "ema": {},
    }
    mesh = mesh or mesh_of((1, 4))
    return jax.tree_util.tree_map_with_path(lambda path, x: jax.device_put(x, placement(path, mesh)), state)


def target(*, mesh: jax.sharding.Mesh | None = None, state: dict | None = None) -> dict:
    mesh = mesh or mesh_of((1, 4))
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement(path, mesh)), state or make_state()
    )


def assert_same(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype, path
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


def save(checkpoints: Checkpointer, *steps: int, metrics: dict | None = None) -> None:
    for step in steps:
        found = None if metrics is None else {"valid/auc": metrics[step]}
        state = make_state(step)
        checkpoints.save(step, state=state, iterator={"batch": step}, clock={}, config={}, metrics=found)
    checkpoints.wait()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_at(tmp_path, said):
    """Opens the checkpoints of one folder, as often as a run starts."""
    opened = []

    def start(**config) -> Checkpointer:
        checkpoints = Checkpointer(tmp_path / "checkpoints", config=Checkpointing(**config), report=said.append)
        opened.append(checkpoints)
        return checkpoints

    yield start
    for checkpoints in opened:
        checkpoints.close()


# -- round trip --------------------------------------------------------------------------------------------


def test_saved_on_four_devices_restored_on_any(open_at):
    state = make_state(3)
    iterator = {"batch": 2**40, "inner": {"epoch": 1, "names": ["a", "ü"]}}
    open_at().save(
        3, state=state, iterator=iterator, clock={"seconds": 0.1}, config={"a": (1,)}, metrics={"m": 1}, wait=True
    )
    for shape in ((1, 4), (1, 1), (2, 2)):
        mesh = mesh_of(shape)
        found = open_at().restore(target(mesh=mesh))
        assert_same(found.state, state)
        assert (found.step, found.iterator, found.clock) == (3, iterator, {"seconds": 0.1})
        assert (found.config, found.metrics) == ({"a": [1]}, {"m": 1.0})
        assert found.state["opt"][1][0].mu["embed/table_4"].sharding == NamedSharding(mesh, P("model"))
        updates, _ = jax.jit(TX.update)(found.state["params"], found.state["opt"], found.state["params"])
        assert updates.keys() == state["params"].keys()


def test_nothing_saved_is_none(open_at):
    checkpoints = open_at()
    assert checkpoints.restore(target()) is None
    assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([], None, None)


def test_what_the_loop_goes_on_changing_is_saved_as_it_was(open_at, monkeypatch):
    changed, write = threading.Event(), ocp.JsonCheckpointHandler._save_fn

    async def write_late(handler, *arguments):
        changed.wait()
        await write(handler, *arguments)

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", write_late)
    state, iterator = make_state(1), {"batch": 1, "inner": {"epoch": 1}}
    before = jax.tree.map(lambda x: np.array(x, copy=True), state)
    bump = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    checkpoints = open_at()
    checkpoints.save(1, state=state, iterator=iterator, clock={}, config={})
    iterator["batch"] = iterator["inner"]["epoch"] = 2
    changed.set()
    jax.block_until_ready(bump(state))
    found = checkpoints.restore(target())
    assert_same(jax.tree.map(np.asarray, found.state), before)
    assert found.iterator == {"batch": 1, "inner": {"epoch": 1}}


def test_every_save_is_honoured_while_others_are_in_flight(open_at):
    checkpoints = open_at(keep_last=10)
    answers = [
        checkpoints.save(step, state=make_state(step), iterator={}, clock={}, config={}) for step in (1, 2, 3, 4, 4)
    ]
    checkpoints.wait()
    assert answers == [True, True, True, True, False]
    assert checkpoints.steps() == [1, 2, 3, 4]
    assert_same(checkpoints.restore(target(), step=2).state, make_state(2))


def test_a_step_that_is_not_there_is_refused(open_at):
    checkpoints = open_at()
    save(checkpoints, 1, 2)
    with pytest.raises(UserError, match=r"no checkpoint 7; there are \[1, 2\]"):
        checkpoints.restore(target(), step=7)


def test_another_model_is_named_and_the_checkpoint_left_alone(open_at, said):
    checkpoints = open_at()
    save(checkpoints, 1)
    wide = make_state()
    wide["params"]["mlp/0/bias"] = jnp.zeros(5)
    with pytest.raises(UserError, match=r"params/mlp/0/bias is \(3,\) there and \(5,\) here"):
        checkpoints.restore(target(state=wide))
    without = make_state()
    without["opt"] = ()
    with pytest.raises(UserError, match=r"opt/1/0/count is \(\) there and absent here.*more"):
        checkpoints.restore(target(state=without))
    assert checkpoints.steps() == [1]
    assert said == []


# -- weights only ------------------------------------------------------------------------------------------


def test_weights_load_without_the_optimizer(open_at, tmp_path):
    save(open_at(best="valid/auc", keep_last=5), 1, 2, 3, metrics={1: 0.5, 2: 0.7, 3: 0.6})
    for step, expected in (("best", 2), ("latest", 3), (1, 1)):
        weights = load_weights(tmp_path / "checkpoints", step=step)
        assert sorted(weights) == ["ema", "params", "stats"]
        assert_same(weights, {name: jax.tree.map(np.asarray, make_state(expected)[name]) for name in weights})
        assert all(type(x) is np.ndarray for x in jax.tree.leaves(weights))


def test_weights_pass_over_damage_and_move_nothing(open_at, tmp_path, said):
    save(open_at(), 1, 2)
    folder = tmp_path / "checkpoints"
    truncate(folder / "2" / "state" / "manifest.ocdbt")
    assert sound_step(folder, report=said.append) == 1
    assert "checkpoint 2 is damaged (state/manifest.ocdbt has" in said[0]
    assert files.steps(folder) == [1, 2]
    with pytest.raises(UserError, match=r"no sound checkpoint among \[2\]"):
        load_weights(folder, step=2, report=said.append)
    with pytest.raises(UserError, match="has no checkpoint; train first"):
        load_weights(tmp_path / "nowhere")


# -- retention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 3)])
def test_the_last_and_the_best_are_kept(open_at, mode, best):
    checkpoints = open_at(keep_last=2, keep_best=1, best="valid/auc", mode=mode)
    metrics = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.5, 5: 0.5, 6: 0.5, 7: float("nan")}
    save(checkpoints, *metrics, metrics=metrics)
    assert checkpoints.steps() == sorted({best, 6, 7})
    assert checkpoints.best() == best
    assert open_at(keep_last=1, best="valid/auc", mode=mode).best() == best


def test_checkpoints_without_the_metric_are_never_the_best(open_at, said):
    checkpoints = open_at(keep_last=1, keep_best=2, best="valid/acu")
    save(checkpoints, 1, 2, metrics={1: 0.5, 2: 0.6})
    assert (checkpoints.steps(), checkpoints.best()) == ([2], None)
    assert len(said) == 1
    assert "'valid/acu', which is not among valid/auc" in said[0]


def test_wrong_cadence_is_refused():
    for wrong in ({"every": 0}, {"keep_last": 0}, {"keep_best": -1}):
        with pytest.raises(ValueError, match=r"checkpoint\."):
            Checkpointing(**wrong)
    assert [step for step in range(7) if Checkpointing(every=3).due(step)] == [3, 6]
    assert not any(Checkpointing(every=None).due(step) for step in range(7))


# -- damage ------------------------------------------------------------------------------------------------


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def remove(path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [flip, truncate, remove])
def test_harm_to_any_file_is_found_and_named(open_at, tmp_path, harm):
    save(open_at(), 1)
    folder = tmp_path / "checkpoints" / "1"
    names = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"meta/metadata", "state/_METADATA", "state/manifest.ocdbt"} < set(names)
    assert any("/d/" in name for name in names)
    assert files.damage(folder) is None
    for name in names:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        harm(copy / name)
        assert files.damage(copy).startswith(f"{name} ")
        shutil.rmtree(copy)


@pytest.mark.parametrize("harm", [flip, truncate, remove])
def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_is_used(open_at, tmp_path, said, harm):
    save(open_at(), 1, 2)
    folder = tmp_path / "checkpoints"
    harm(max((folder / "2" / "state").rglob("*"), key=lambda p: p.stat().st_size * p.is_file()))
    found = open_at().restore(target())
    assert found.step == 1
    assert_same(found.state, make_state(1))
    assert len(said) == 1
    assert said[0].startswith("warning: checkpoint 2 is damaged (state/")
    assert said[0].endswith("kept as corrupt-2, going back to checkpoint 1")
    assert sorted(p.name for p in folder.iterdir()) == ["1", "corrupt-2"]
    again = open_at()
    save(again, 2)
    assert again.restore(target()).step == 2


@pytest.mark.parametrize("harm", [flip, truncate])
def test_a_damaged_manifest_condemns_its_checkpoint(open_at, tmp_path, said, harm):
    save(open_at(), 1, 2)
    path = tmp_path / "checkpoints" / "2" / "manifest.json"
    path.write_text(path.read_text().rstrip())
    harm(path)
    assert open_at().restore(target()).step == 1
    assert "checkpoint 2 is damaged" in said[0]


def test_without_a_manifest_a_checkpoint_is_tried(open_at, tmp_path, said):
    save(open_at(), 1, 2)
    (tmp_path / "checkpoints" / "2" / "manifest.json").unlink()
    assert open_at().restore(target()).step == 2
    truncate(tmp_path / "checkpoints" / "2" / "state" / "manifest.ocdbt")
    assert open_at().restore(target()).step == 1
    assert len(said) == 1
    assert "checkpoint 2 is damaged (" in said[0]


def test_all_damaged_ends_the_run_now_and_later(open_at, tmp_path, said):
    save(open_at(), 1, 2)
    for step in ("1", "2"):
        truncate(tmp_path / "checkpoints" / step / "meta" / "metadata")
    for _ in range(2):
        with pytest.raises(UserError, match=r"no sound checkpoint is left in .*: corrupt-1, corrupt-2 are damaged"):
            open_at().restore(target())
    assert [line.rsplit(", ", 1)[1] for line in said] == ["going back to checkpoint 1", "there is none before it"]


def test_a_damaged_step_that_was_asked_for_is_refused(open_at, tmp_path):
    save(open_at(), 1, 2)
    truncate(tmp_path / "checkpoints" / "2" / "meta" / "metadata")
    with pytest.raises(UserError, match=r"checkpoint 2 in .* is damaged: meta/metadata has"):
        open_at().restore(target(), step=2)
    assert files.steps(tmp_path / "checkpoints") == [1, 2]


# -- kill and full disk ------------------------------------------------------------------------------------

CHILD = """
import resource, sys, time
import jax
from tests.train.test_checkpoint import make_state
from train import checkpoint_files as files
from train.checkpoint import Checkpointer
from data.errors import UserError

checkpoints = Checkpointer(sys.argv[1])
rest = dict(iterator={"batch": 1}, clock={}, config={})
checkpoints.save(1, state=make_state(1), wait=True, **rest)
if sys.argv[2] == "kill":
    # The last thing before the rename: all is written, nothing is committed.
    files.seal = lambda folder: (print("saving", flush=True), time.sleep(60))
    checkpoints.save(2, state=make_state(2), **rest)
    time.sleep(60)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
big = make_state(2) | {"ema": {"big": jax.random.normal(jax.random.key(0), (100_000,))}}
try:
    checkpoints.save(2, state=big, wait=True, **rest)
except UserError as error:
    print(error.exit_code, error, flush=True)
checkpoints.close()
"""


@pytest.fixture
def child(root, tmp_path):
    started = []

    def start(what: str) -> subprocess.Popen:
        command = [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "checkpoints"), what]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=root, env=os.environ, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_kill_amid_a_save_leaves_the_one_before(child, open_at, tmp_path, said):
    process = child("kill")
    assert process.stdout.readline() == "saving\n", process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = tmp_path / "checkpoints"
    (folder / "deleted-0").mkdir()
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2.orbax-checkpoint-tmp", "deleted-0"]
    found = open_at().restore(target())
    assert (found.step, found.iterator) == (1, {"batch": 1})
    assert_same(found.state, make_state(1))
    assert [p.name for p in folder.iterdir()] == ["1"]
    assert said == []


def test_a_full_disk_ends_the_run_in_one_line(child, open_at, tmp_path):
    output, errors = child("full").communicate(timeout=60)
    folder = tmp_path / "checkpoints"
    assert output == (
        f"5 cannot write checkpoint 2 to {folder}: File too large; checkpoint 1 is untouched; "
        f"make room and run the same command again\n"
    )
    assert errors == ""
    assert open_at().restore(target()).step == 1
    assert [p.name for p in folder.iterdir()] == ["1"]


def test_a_full_disk_in_the_background_is_met_at_the_next_look(open_at, monkeypatch):
    checkpoints = open_at()
    failed = threading.Event()

    def no_room(folder):
        failed.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "seal", no_room)
    checkpoints.save(1, state=make_state(1), iterator={}, clock={}, config={})
    failed.wait()
    with pytest.raises(CheckpointWriteError, match=r"cannot write checkpoint 1 .* there is no earlier one"):
        checkpoints.save(2, state=make_state(2), iterator={}, clock={}, config={})
    monkeypatch.undo()
    save(checkpoints, 2)
    assert checkpoints.steps() == [2]


def test_other_errors_are_not_taken_for_a_full_disk(open_at, monkeypatch):
    checkpoints = open_at()
    monkeypatch.setattr(files, "seal", lambda folder: 1 / 0)
    checkpoints.save(1, state=make_state(1), iterator={}, clock={}, config={})
    with pytest.raises(ZeroDivisionError):
        checkpoints.wait()
