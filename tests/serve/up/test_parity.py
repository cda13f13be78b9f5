"""One score of a row, wherever it is asked for: evaluation, artefact, batch and online."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from data.mall.config import Mall
from data.mall.sources import MallClicks
from data.pipeline import Loader
from modules.behavior.din import DIN
from serve.artifact import load
from serve.commands import score_parquet
from serve.export import export
from tests.serve.test_workdir import evaluated_scores, raw
from tests.serve.up.conftest import ask, serving, tensors
from train.experiment import Experiment
from train.loop import train
from train.optim import Optimizer
from train.tasks.pointwise import Pointwise

HISTORY = 5


def run(folder, *, size, rows):
    mall = Mall(size=size)
    experiment = Experiment(
        model=DIN(dim=4),
        task=Pointwise(),
        source=MallClicks(mall=mall, history=HISTORY),
        loader=Loader(batch_size=32),
        optimizer=Optimizer(lr=0.01),
        steps=10,
    )
    train(experiment, workdir=folder / "work", say=lambda _: None)
    export(folder / "work", platforms=("cpu",), request=True)
    source = MallClicks(mall=mall, split="test", history=HISTORY).make()
    rows = min(rows, len(source))
    return experiment, source, rows


def assert_agree(experiment, source, rows, *, tmp_path, ranked):
    workdir = tmp_path / "work"
    evaluated = evaluated_scores(workdir, experiment=experiment, source=source)[:rows]
    artifact = load(workdir / "export")
    encoded = {name: array for name, array in source.take(np.arange(rows)).items() if name in artifact.inputs}
    exported = artifact(encoded)["score"]
    np.testing.assert_allclose(exported, evaluated, atol=1e-6)
    table = raw(source, rows=rows).select([f.name for f in artifact.features.all])
    pq.write_table(table, tmp_path / "x.parquet")
    score_parquet(workdir / "export", input=tmp_path / "x.parquet", output=tmp_path / "y.parquet")
    batch = pq.read_table(tmp_path / "y.parquet")["score"].to_numpy()
    np.testing.assert_allclose(batch, evaluated, atol=1e-6)
    with serving(workdir, max_batch=256) as app:
        inferred = np.concatenate([infer(app, encoded, at=slice(s, s + 500)) for s in range(0, rows, 500)])
        np.testing.assert_allclose(inferred, evaluated, atol=1e-6)
        for row in range(ranked):
            np.testing.assert_allclose(rank(app, table.slice(row, 1)), evaluated[row], atol=1e-6)
    assert np.ptp(evaluated) > 0.01  # a test of equal scores must not be one of constants


def infer(app, encoded, *, at):
    body = {"inputs": tensors({n: a[at] for n, a in encoded.items()}), "outputs": [{"name": "score"}]}
    answer = ask(app, "POST", "/v2/models/din/infer", json=body)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["outputs"][0]["data"], np.float32)


def rank(app, row):
    item = {f.name for f in app.state.house.serving.encoder.item.all}
    (values,) = row.to_pylist()
    user = {n: v for n, v in values.items() if n not in item}
    candidates = [{n: v for n, v in values.items() if n in item}]
    answer = ask(app, "POST", "/v1/rank", content=json.dumps({"user": user, "candidates": candidates}))
    assert answer.status_code == 200, answer.text
    return answer.json()["scores"]["score"][0]


def test_one_score_of_200_rows(tmp_path):
    assert_agree(*run(tmp_path, size="tiny", rows=200), tmp_path=tmp_path, ranked=40)


@pytest.mark.slow
def test_one_score_of_10_000_rows(tmp_path):
    experiment, source, rows = run(tmp_path, size="small", rows=10_000)
    assert rows == 10_000
    assert_agree(experiment, source, rows, tmp_path=tmp_path, ranked=1000)
