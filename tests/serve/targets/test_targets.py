"""Exports for other runtimes: what is written computes what the model computes, or nothing is written."""

import json
import re
import sys

import chz
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

from data.errors import UserError
from data.manifest import read_json
from modules.behavior.din import DIN
from modules.layers.mlp import MLP
from serve.__main__ import main
from serve.artifact import load
from serve.targets import base, savedmodel
from serve.targets import onnx as module
from serve.targets.base import write_target
from serve.targets.onnx import Onnx
from serve.trained import Trained
from tests.benchmarks import export_targets
from tests.serve.test_workdir import EXPERIMENT, TEST
from train.loop import train

MODEL = DIN(dim=4, attention=MLP(widths=(6,), activation="dice"), mlp=MLP(widths=(8,), activation="dice"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A tower with histories, moments and attention, trained a little."""
    path = tmp_path_factory.mktemp("run") / "work"
    train(chz.replace(EXPERIMENT, model=MODEL), workdir=path, say=lambda _: None)
    return path


@pytest.fixture(scope="module")
def folder(workdir):
    assert main(["export", str(workdir), "--format", "onnx"]) == 0
    return workdir / "export-onnx" / (workdir / "export-onnx" / "latest").read_text().strip()


@pytest.fixture(scope="module")
def trained(workdir):
    return Trained(workdir)


def session(folder):
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])


def test_the_runtime_scores_real_rows_as_the_model(trained, folder):
    rows = TEST.make().take(np.arange(37))
    batch = {name: rows[name] for name in trained.inputs()}
    signature = read_json(folder / "signature.json")
    fed = {spec["tensor"]: batch[name].astype(spec["dtype"]) for name, spec in signature["inputs"].items()}
    names = [spec["tensor"] for spec in signature["outputs"].values()]
    (score,) = session(folder).run(names, fed)
    wanted = trained.forward(max_batch=64)(batch)["score"]
    assert np.ptp(wanted) > 1e-3, "scores that are all alike compare nothing"
    np.testing.assert_allclose(score, wanted, atol=1e-5)


def test_the_folder_says_what_it_takes_and_how_near_it_is(trained, folder):
    signature = read_json(folder / "signature.json")
    assert (signature["target"], signature["program"], signature["step"]) == ("onnx", "model.onnx", 6)
    assert signature["model"] == "modules.behavior.din:DIN"
    assert 0 <= signature["parity"]["error"] <= 1e-5
    assert set(signature["versions"]) >= {"jax", "jax2onnx", "onnxruntime"}
    graph = onnx.load(folder / "model.onnx").graph
    taken = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input}
    assert taken == {spec["tensor"]: spec["shape"] for spec in signature["inputs"].values()}
    assert signature["inputs"]["item"]["rows"] == trained.features["item"].rows
    stored = load_file(folder / "selfcheck.safetensors")
    fed = {n.removeprefix("input/"): a for n, a in stored.items() if n.startswith("input/")}
    np.testing.assert_allclose(session(folder).run(["score"], fed)[0], stored["output/score"], atol=1e-5)


def page(root, runtime):
    """The page's program for this runtime."""
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "export.md").read_text(), re.DOTALL)
    return next(block for block in blocks if f"import {runtime}" in block)


def test_the_page_runs_and_its_table_is_what_was_measured(root, folder, tmp_path, monkeypatch):
    (tmp_path / "runs" / "din").mkdir(parents=True)
    (tmp_path / "runs" / "din" / "export-onnx").symlink_to(folder.parent)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(page(root, "onnxruntime"), found)
    stored = load_file(folder / "selfcheck.safetensors")
    np.testing.assert_allclose(found["scores"]["score"], stored["output/score"], atol=1e-5)
    text = (root / "docs" / "export.md").read_text()
    measured = json.loads((root / "tests" / "benchmarks" / "export_targets.json").read_text())["configs"]
    assert export_targets.with_table(text, measured) == text, "python -m tests.benchmarks.export_targets --table --page"


def test_the_console_stays_clean(workdir, tmp_path, capfd):
    assert main(["export", str(workdir), "--format", "onnx", "--output", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith(f"exported {tmp_path}") and out.count("\n") == 1


def test_an_artefact_for_another_runtime_is_told(folder):
    with pytest.raises(UserError, match="is for another runtime \\(onnx\\); export without --format"):
        load(folder)


def convert(folder, function, *, outputs=("score",), weights=None):
    """A function of one input "x" of three numbers."""
    inputs = {"x": ((3,), np.dtype(np.float32))}
    given = {name: ((), np.dtype(np.float32)) for name in outputs}
    return Onnx().write(folder, function=function, weights=weights or {}, inputs=inputs, outputs=given)


def test_an_operation_without_a_form_is_named(tmp_path):
    def function(weights, batch):
        x = batch["x"][:, 0]
        return {"score": jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)}

    with pytest.raises(UserError, match=r"jax2onnx has no ONNX form of the operation 'pure_callback'"):
        convert(tmp_path, function)


def test_what_cannot_be_traced_is_said_in_one_line(tmp_path):
    def function(weights, batch):
        raise ValueError("no such thing\nand more of it")

    with pytest.raises(UserError) as raised:
        convert(tmp_path, function)
    assert "no such thing" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_output_may_bear_the_name_of_an_input(tmp_path):
    made = convert(tmp_path, lambda weights, batch: {"x": batch["x"].sum(1)}, outputs=("x",))
    assert made["tensors"] == {"inputs": {"x": "x"}, "outputs": {"x": "output/x"}}
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(Onnx().run(tmp_path, about=made, batches=[{"x": x}])[0]["x"], [3, 12])


def test_heavy_weights_lie_beside_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EXTERNAL_BYTES", 1000)
    table = np.random.default_rng(0).normal(size=(3, 500)).astype(np.float32)
    made = convert(tmp_path, lambda w, b: {"score": (b["x"] @ jnp.asarray(w["t"])).sum(1)}, weights={"t": table})
    assert (tmp_path / "model.weights").stat().st_size >= table.nbytes > (tmp_path / "model.onnx").stat().st_size
    x = np.ones((2, 3), np.float32)
    found = Onnx().run(tmp_path, about=made, batches=[{"x": x}])[0]["score"]
    np.testing.assert_allclose(found, (x @ table).sum(1), rtol=1e-4)


class Wrong:
    """A runtime that computes something else, as `change` says, or does not run at all."""

    name, packages = "wrong", ()

    def __init__(self, model, change):
        self.forward, self.change = model.forward(max_batch=16), change

    def write(self, folder, **_):
        names = {n: n for n in self.forward.inputs}
        return {"program": "none", "tensors": {"inputs": names, "outputs": {"score": "score"}}}

    def run(self, folder, *, about, batches):
        return [{"score": self.change(self.forward(batch)["score"])} for batch in batches]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: s + 4e-5, r"output 'score' is off by .*e-05 on a batch of 16, allowed 1e-05"),
        (lambda s: s + np.float32(4e-5) * (len(s) == 1), "on a batch of 1, allowed"),
        (lambda s: s * np.nan, "is off by nan"),
        (lambda s: np.resize(s, 16), r"gives output 'score' the shape \(16,\), the model \(1,\)"),
    ],
)
def test_another_result_is_refused_and_leaves_nothing(trained, tmp_path, change, line):
    with pytest.raises(UserError, match=line):
        write_target(trained, target=Wrong(trained, change), output=tmp_path / "out", step=6)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_difference_within_the_tolerance_is_reported(trained, tmp_path):
    done = write_target(trained, target=Wrong(trained, lambda s: s + np.float32(8e-6)), output=tmp_path, step=6)
    assert 4e-6 < done.error <= base.TOLERANCE
    assert read_json(done.path / "signature.json")["parity"]["error"] == done.error


def test_unknown_formats_and_mixed_options_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["export", str(tmp_path), "--format", "coreml"])
    assert raised.value.code == 2
    assert "invalid choice: 'coreml'" in capsys.readouterr().err
    for words in (["--request"], ["--vectors", "item"], ["--platforms", "cpu"]):
        assert main(["export", str(tmp_path), "--format", "onnx", *words]) == 2
        assert "leave them or --format onnx out" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--format", "onnx"]) == 2
    assert "is not a workdir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("format", "package", "extra"), [("onnx", "onnxruntime", "onnx"), ("savedmodel", "tensorflow", "tf")]
)
def test_without_the_extra_its_name_is_told(tmp_path, capsys, monkeypatch, format, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(tmp_path), "--format", format]) == 2
    assert f"needs {package}, which is not installed; pip install 'adloom[{extra}]'" in capsys.readouterr().err


def test_a_savedmodel_computes_what_the_model_computes(root, workdir, trained, tmp_path, monkeypatch):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow, the extra tf, is not installed")
    output = tmp_path / "runs" / "din" / "export-savedmodel"
    assert main(["export", str(workdir), "--format", "savedmodel", "--output", str(output)]) == 0
    folder = output / (output / "latest").read_text().strip()
    signature = read_json(folder / "signature.json")
    call = tf.saved_model.load(str(folder / savedmodel.FOLDER)).signatures["serving_default"]
    rows = TEST.make().take(np.arange(37))
    batch = {name: rows[name] for name in trained.inputs()}
    found = call(**{spec["tensor"]: tf.constant(batch[n]) for n, spec in signature["inputs"].items()})
    wanted = trained.forward(max_batch=64)(batch)["score"]
    np.testing.assert_allclose(found[signature["outputs"]["score"]["tensor"]].numpy(), wanted, atol=1e-5)
    assert signature["inputs"]["history/length"]["tensor"] == "history_length"
    monkeypatch.chdir(tmp_path)
    page_found = {}
    exec(page(root, "tensorflow"), page_found)
    stored = load_file(folder / "selfcheck.safetensors")
    np.testing.assert_allclose(page_found["scores"]["score"], stored["output/score"], atol=1e-5)
