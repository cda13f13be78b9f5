"""Encoder, vectors as a folder, DIN with them and without: the stages hand over what the next ones read."""

import json

import chz
import jax
import numpy as np
import pytest

from configs import cope_buys_mall, image_text_mall
from configs.what_it_buys import TAIL, VECTORS, what_it_buys
from data.mall.config import Mall
from data.vectors import read
from serve.embed import forward_of
from serve.trained import Served, _one_device, inputs_in
from tests.contract.cases import shrunk
from train.pipeline import run_pipeline
from train.program import Program
from train.snapshot import dump, load


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    path = tmp_path_factory.mktemp("buys")
    encoder = chz.replace(image_text_mall.plain(), evals={})
    stored = shrunk(dump(what_it_buys(encoder=encoder, vectors=("item", "query"))))
    stored["stages"]["items"]["batch"] = 64
    for stage in stored["stages"].values():
        if "experiment" in stage:
            for measured in stage["experiment"]["evals"].values():
                measured["batch_size"] = 1024
    return path, run_pipeline(load(stored), workdir=path, say=lambda _: None)


@pytest.mark.slow
def test_every_system_is_measured_on_all_rows_on_newcomers_and_on_the_tail(ran):
    _, figures = ran
    for row in ("ids", "vectors"):
        for metric in ("test/auc", "test/cold/auc", "test/tail/auc", "test/cold/logloss"):
            assert 0 < figures["gain"][f"{row}/{metric}"] < 1


@pytest.mark.slow
def test_the_tower_reads_the_folder_of_vectors(ran):
    path, figures = ran
    mall = Mall(size="tiny")
    ids, vectors, _ = read(path / "items" / "vectors")
    assert sorted(ids.tolist()) == list(range(2, 2 + mall.n_items))
    assert figures["items"]["rows"] == mall.n_items and vectors.shape[1] == 128
    config = json.loads((path / "vectors" / "config.json").read_text())
    assert config["source"]["content"].endswith("/vectors")
    features = json.dumps(json.loads((path / "vectors" / "features.json").read_text()))
    assert '"content"' in features and '"history_content"' in features


def test_towers_differ_in_what_they_are_given_alone():
    stages = what_it_buys(encoder=image_text_mall.get_config()).stages
    ids, vectors = (dump(stages[n].experiment) for n in ("ids", "vectors"))
    assert vectors["source"]["content"] == VECTORS and ids["source"]["content"] is None
    vectors["source"], vectors["evals"] = ids["source"], ids["evals"]
    vectors["model"]["embedding"]["widths"] = {}
    assert vectors == ids
    assert ids["evals"]["test"]["slices"]["tail"]["below"] == TAIL


def test_copes_pages_are_vectors_of_the_listings():
    """From pictures and titles alone: its videos and live streams are no part of a listing."""
    stages = load(shrunk(dump(cope_buys_mall.get_config()))).stages
    experiment, items = stages["encoder"].experiment, stages["items"]
    program = Program(experiment, features=experiment.source.make().features, mesh=_one_device())
    with jax.set_mesh(program.mesh):
        model = Served(program, weights=jax.device_get(program.weights(program.init(0))))
    source = items.source.make()
    forward = forward_of(
        model, vectors=items.vectors, offered=inputs_in(source, features=model.features), batch=items.batch
    )
    assert set(forward.inputs) == {"image", "title", "title/length"}
    rows = source.take(np.arange(8))
    vectors = forward({name: rows[name] for name in forward.inputs})["vector"]
    assert vectors.shape == (8, experiment.model.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
