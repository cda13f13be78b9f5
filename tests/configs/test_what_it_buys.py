"""Encoder, vectors as a folder, DIN with them and without: the stages hand over what the next ones read."""

import json

import chz
import jax
import numpy as np
import pytest

from configs import content_buys_mall, cope_buys_mall, image_text_mall
from configs.what_it_buys import TAIL, Encoder, what_it_buys
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
    stored = shrunk(dump(what_it_buys(Encoder(encoder, vectors=("item", "query")))))
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
    stages = what_it_buys(Encoder(image_text_mall.get_config())).stages
    ids, vectors = (dump(stages[n].experiment) for n in ("ids", "vectors"))
    assert vectors["source"]["content"] == "@items/vectors" and ids["source"]["content"] is None
    vectors["source"], vectors["evals"] = ids["source"], ids["evals"]
    vectors["model"]["embedding"]["widths"] = {}
    assert vectors == ids
    assert ids["evals"]["test"]["slices"]["tail"]["below"] == TAIL


def test_several_encoders_differ_in_the_vectors_alone():
    stages = content_buys_mall.get_config().stages
    rows = [name for name in stages["gain"].rows if name != "ids"]
    assert rows == ["pair", "interbert", "esspr", "moon", "composed", "short_video", "in_out"]
    towers = []
    for name in rows:
        assert not stages[f"{name}_encoder"].experiment.evals and stages[f"{name}_items"].of == f"@{name}_encoder"
        stored = json.dumps(dump(stages[name].experiment))
        assert f"@{name}_items/vectors" in stored
        towers.append(stored.replace(f"@{name}_items/vectors", "@"))
    alone = what_it_buys(Encoder(image_text_mall.plain())).stages
    assert set(towers) == {json.dumps(dump(alone["vectors"].experiment)).replace("@items/vectors", "@")}
    assert dump(stages["ids"]) == dump(alone["ids"])
    started = [name for name in rows if f"{name}_encoder_start" in stages]
    assert started == ["short_video"]
    for name in rows:
        start = stages[f"{name}_encoder"].experiment.init_from
        assert (start is not None) == (name in started)
    assert stages["short_video_encoder"].experiment.init_from.workdir == "@short_video_encoder_start"


SHOWN = {"image", "title", "title/length"}
LISTING = SHOWN | {f"{text}{end}" for text in ("path", "stated") for end in ("", "/length")}


@pytest.mark.parametrize(
    ("pipeline", "prefix", "inputs", "width"),
    [
        (cope_buys_mall, "", SHOWN, 128),
        (content_buys_mall, "pair_", SHOWN - {"title", "title/length"}, 64),
        (content_buys_mall, "esspr_", SHOWN, 64),
        (content_buys_mall, "composed_", {"image"}, 64),
        (content_buys_mall, "short_video_", {"video", "video/length"}, 64),
        (content_buys_mall, "in_out_", {"item"}, 24),
        pytest.param(content_buys_mall, "interbert_", SHOWN, 128, marks=pytest.mark.slow),
        pytest.param(content_buys_mall, "moon_", LISTING, 64, marks=pytest.mark.slow),
    ],
)
def test_vectors_are_of_listings_as_they_are_shown(pipeline, prefix, inputs, width):
    """From what is a listing's own: COPE's videos and live streams and the queries of others are no part of it."""
    stages = load(shrunk(dump(pipeline.get_config()))).stages
    experiment, items = stages[f"{prefix}encoder"].experiment, stages[f"{prefix}items"]
    program = Program(experiment, features=experiment.source.make().features, mesh=_one_device())
    rng = np.random.default_rng(0)
    with jax.set_mesh(program.mesh):
        weights = program.weights(program.init(0))
        # Moved by chance, since IN-OUT starts with its OUT vectors at zero.
        weights = jax.tree.map(lambda w: w + 0.1 * rng.normal(size=w.shape).astype(w.dtype), weights)
        model = Served(program, weights=jax.device_get(weights))
    source = items.source.make()
    forward = forward_of(
        model, vectors=items.vectors, offered=inputs_in(source, features=model.features), batch=items.batch
    )
    assert set(forward.inputs) == inputs
    rows = source.take(np.arange(8))
    assert set(rows) >= {"item"} | inputs
    vectors = forward({name: rows[name] for name in forward.inputs})["vector"]
    assert vectors.shape == (8, width) and np.isfinite(vectors).all() and vectors.std(axis=0).max() > 1e-3
