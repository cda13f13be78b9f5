"""Encoder, vectors as a folder, DIN with them and without: the stages hand over what the next ones read."""

import json

import chz
import pytest

from configs import image_text_mall
from configs.what_it_buys import TAIL, VECTORS, what_it_buys
from data.mall.config import Mall
from data.vectors import read
from tests.contract.cases import shrunk
from train.pipeline import run_pipeline
from train.snapshot import dump, load


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    path = tmp_path_factory.mktemp("buys")
    encoder = chz.replace(image_text_mall.get_config(), evals={})
    stored = shrunk(dump(what_it_buys(encoder=encoder, vectors=("item", "query"))))
    stored["stages"]["items"]["batch"] = 64
    for stage in stored["stages"].values():
        if "experiment" in stage:
            stage["experiment"]["steps"] = 2
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
