"""From a trained workdir to an artefact, scores and vectors: one forward, equal everywhere."""

import subprocess
import sys

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import UserError
from data.mall.config import Mall
from data.mall.sources import MallClicks
from data.pipeline import Loader
from modules.ctr.dnn import DNN
from serve.__main__ import main
from serve.artifact import load
from serve.commands import score_source
from serve.stages import Export, Score
from serve.trained import Trained
from train.checkpoint import Checkpointing
from train.evaluators import Evaluate
from train.experiment import Experiment
from train.loop import train
from train.metrics.auc import AUC
from train.optim import Optimizer
from train.pipeline import DONE, Pipeline, Train, run_pipeline
from train.program import make_predict
from train.tasks.pointwise import Pointwise

MALL = Mall(size="tiny")
TEST = MallClicks(mall=MALL, split="test", history=4)
EXPERIMENT = Experiment(
    model=DNN(dim=4),
    task=Pointwise(),
    source=MallClicks(mall=MALL, history=4),
    loader=Loader(batch_size=32),
    optimizer=Optimizer(ema=0.9),
    evals={"test": Evaluate(source=TEST, metrics=(AUC(label="click"),))},
    checkpoint=Checkpointing(every=3),
    steps=6,
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "work"
    train(EXPERIMENT, workdir=path, say=lambda _: None)
    return path


@pytest.fixture(scope="module")
def exported(workdir):
    assert main(["export", str(workdir)]) == 0
    return workdir / "export"


@pytest.fixture(scope="module")
def evaluated(workdir):
    return evaluated_scores(workdir, experiment=EXPERIMENT, source=TEST.make())


def evaluated_scores(workdir, *, experiment, source):
    """The scores that the evaluator sees, on four devices."""
    trained = Trained(workdir, step="latest")
    mesh = experiment.mesh.make()
    program = type(trained.program)(experiment, features=trained.features, mesh=mesh)
    weights = {"params": {}, "stats": {}}
    for name, value in trained.weights.items():
        kind, _, path = name.partition("/")
        weights[kind][path] = value
    with jax.set_mesh(mesh):
        return make_predict(program, weights)(source.take(np.arange(len(source))))["score"]


def test_artefact_workdir_and_evaluation_give_one_score(workdir, exported, evaluated, tmp_path):
    source = TEST.make()
    artifact = load(exported)
    assert artifact.signature["model"] == "modules.ctr.dnn:DNN"
    assert artifact.signature["step"] == 6
    assert set(artifact.inputs) == {n for feature in Trained(workdir).features for n in feature.arrays()}
    np.testing.assert_allclose(artifact(source.take(np.arange(len(source))))["score"], evaluated, atol=1e-6)
    for name, model in (("a", exported), ("w", workdir)):
        done = score_source(model, source=TEST, output=tmp_path / name, columns=("item", "click"), batch=256)
        got = pq.read_table(tmp_path / name)
        assert done.rows == len(source)
        np.testing.assert_allclose(got["score"].to_numpy(), evaluated, atol=1e-6)
        np.testing.assert_array_equal(got["item"].to_numpy(), source.take(np.arange(len(source)))["item"])


def raw(source, *, rows):
    """Encoded rows as a table of raw columns."""
    taken = source.take(np.arange(rows))
    columns = {}
    for feature in source.features:
        values = taken[feature.name]
        if feature.max_len:
            lengths = taken[f"{feature.name}/length"]
            values = pa.array([v[:n].tolist() for v, n in zip(values, lengths, strict=True)], pa.list_(pa.int64()))
        elif getattr(feature, "transform", "none") == "standard":
            values = values * feature.scale + feature.mean
        elif getattr(feature, "transform", "none") == "log1p":
            values = np.expm1(values)
        columns[feature.name] = values
    return pa.table(columns)


def test_raw_parquet_scores_as_evaluated_without_labels_or_our_code(exported, evaluated, tmp_path, root):
    x, y = tmp_path / "x.parquet", tmp_path / "y.parquet"
    pq.write_table(raw(TEST.make(), rows=200), x)
    code = f"""
import sys
from serve.__main__ import main
assert main(["score", {str(exported)!r}, "--input", {str(x)!r}, "--output", {str(y)!r}, "--columns", "item"]) == 0
ours = [m for m in sys.modules if m.split(".")[0] in ("modules", "train", "flax")]
assert not ours, ours
"""
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    got = pq.read_table(y)
    assert got.column_names == ["item", "score"]
    np.testing.assert_allclose(got["score"].to_numpy(), evaluated[:200], atol=1e-6)


def test_commands_end_with_one_line_and_a_code(workdir, exported, tmp_path, capsys):
    x, y = tmp_path / "x.parquet", tmp_path / "y.parquet"
    table = raw(TEST.make(), rows=50)
    pq.write_table(table.rename_columns([n if n != "brand" else "brands" for n in table.column_names]), x)
    assert main(["score", str(workdir), "--input", str(x), "--output", str(y)]) == 2
    assert "has no column 'brand', which the model needs; did you mean 'brands'?" in capsys.readouterr().err
    price = np.where(np.arange(50) % 10 == 0, np.nan, 1.0)
    pq.write_table(table.set_column(table.column_names.index("price"), "price", pa.array(price)), x)
    assert main(["score", str(workdir), "--input", str(x), "--output", str(y)]) == 3
    assert "x.parquet row 40: price" in capsys.readouterr().err
    assert main(["score", str(workdir), "--input", str(x), "--output", str(y), "--max-rejects", "0.1"]) == 0
    assert "5 rows were rejected" in capsys.readouterr().out
    assert main(["export", str(tmp_path)]) == 2
    assert "is not a workdir" in capsys.readouterr().err
    assert main(["export", str(workdir), "--step", "5"]) == 2
    assert "no checkpoint 5" in capsys.readouterr().err
    assert main(["embed", str(workdir), "--source", "tests", "--output", str(tmp_path / "v.npz")]) == 2
    assert "declares no source 'tests'; it has train, test" in capsys.readouterr().err
    assert main(["embed", str(workdir), "--source", "test", "--output", str(tmp_path / "v.npz")]) == 2
    assert "the model gives score for these inputs, but no vector 'item'" in capsys.readouterr().err


def test_an_earlier_checkpoint_can_be_exported(workdir, tmp_path):
    assert main(["export", str(workdir), "--step", "3", "--output", str(tmp_path / "e"), "--platforms", "cpu"]) == 0
    assert load(tmp_path / "e").signature["step"] == 3
    with pytest.raises(UserError, match=r"not a folder"):
        load(tmp_path / "other")


def test_a_pipeline_trains_exports_and_scores(tmp_path):
    pipeline = Pipeline(
        stages={
            "tower": Train(experiment=EXPERIMENT),
            "export": Export(of="@tower", platforms=("cpu",)),
            "score": Score(of="@export", source=TEST, columns=("item",)),
        }
    )
    figures = run_pipeline(pipeline, workdir=tmp_path / "run", say=lambda _: None)
    assert figures["score"]["rows"] == len(TEST.make())
    assert (tmp_path / "run" / "score" / DONE).is_file()
    assert pq.read_table(tmp_path / "run" / "score" / "scores.parquet").column_names == ["item", "score"]
