"""People's vectors handed over: to a click tower as features, to an index as queries, and to items nobody has met."""

import json

import chz
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.learn_buys_mall import click_stage
from configs.learn_mall import learn
from data.hashed_text import hashed_tfidf
from data.mall.build import build
from data.mall.config import Mall
from data.mall.guests import MallGuests, visit_of
from data.mall.readers import MallListings, MallVisits
from data.mall.texts import listing_texts
from data.pipeline import Loader
from data.vectors import read
from modules.behavior.din import DIN
from modules.behavior.learn import LEARNRanker
from serve.commands import embed_parquet, embed_source
from serve.index.command import index_vectors
from serve.index.open import open_index
from serve.trained import _one_device
from tests.contract.cases import shrunk
from train.loop import train
from train.program import Program
from train.snapshot import dump, load

MALL = Mall(size="tiny")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """LEARN of a few steps, with the vectors that `serve embed` makes of people and listings."""
    folder = tmp_path_factory.mktemp("people")
    experiment = learn(MALL)
    small = chz.replace(experiment.model, dim=16, out=8)
    short = chz.replace(
        experiment, model=small, loader=chz.replace(experiment.loader, batch_size=32), evals={}, steps=30
    )
    train(short, workdir=folder / "learn", say=lambda _: None)
    embed_source(folder / "learn", source=MallListings(mall=MALL), output=folder / "items", say=lambda _: None)
    embed_source(
        folder / "learn",
        source=MallVisits(mall=MALL),
        output=folder / "visits",
        id="visit",
        vectors=("query",),
        say=lambda _: None,
    )
    return folder


def test_a_click_tower_reads_each_person_as_of_the_request(run):
    ids, vectors, _ = read(run / "visits")
    by_visit = dict(zip(ids.tolist(), vectors, strict=True))
    stage = click_stage(LEARNRanker(tower=DIN()), items=str(run / "items"), people=str(run / "visits"))
    experiment = load(shrunk(dump(stage))).experiment
    source = experiment.source.make()
    assert isinstance(experiment.source, MallGuests)
    batch = next(Loader(batch_size=16).open(source))
    rows = source.take(np.arange(40))
    visit = 2 + visit_of(MALL, user=rows["user_group"], time=rows["time"])
    np.testing.assert_array_equal(rows["person"], [by_visit[v] for v in visit])
    program = Program(experiment, features=source.features, mesh=_one_device())
    with jax.set_mesh(program.mesh):
        weights = program.weights(program.init(0))
        score = program.predict(weights, batch)["score"]
        other = program.predict(weights, {**batch, "person": -batch["person"]})["score"]
    assert np.isfinite(score).all() and np.abs(score - other).max() > 1e-6


def test_an_index_of_listings_is_asked_with_people(run, tmp_path):
    index_vectors(run / "items", output=tmp_path / "index", metric="dot")
    ids, items, model = read(run / "items")
    _, people, made_by = read(run / "visits")
    assert model == made_by
    found, scores = open_index(tmp_path / "index", model=made_by).search(people[500:520], k=5)
    best = np.sort(people[500:520] @ items.T, axis=1)[:, :-6:-1]
    np.testing.assert_allclose(scores, best, rtol=1e-4, atol=1e-6)
    assert set(np.unique(found).tolist()) <= set(ids.tolist())


def test_a_listing_that_no_training_row_had_is_scored_by_its_text_alone(run, tmp_path):
    """One that arrived later, and one that the mall has never seen: both stand in an index beside the others."""
    late = build(MALL).shop.arrival >= MALL.period("train")[1]
    ids, items, _ = read(run / "items")
    known = dict(zip(ids.tolist(), items, strict=True))
    assert all(np.isclose(np.linalg.norm(known[2 + n]), 1, atol=1e-4) for n in np.flatnonzero(late)[:5])
    words = listing_texts(MALL)
    text = hashed_tfidf([words[7], "never seen " + words[7]], corpus=words)
    table = {"sku": ["old", "new"], "content": pa.array(text.tolist(), pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), tmp_path / "raw.parquet")
    embed_parquet(run / "learn", input=tmp_path / "raw.parquet", output=tmp_path / "raw", id="sku", say=lambda _: None)
    names, vectors, _ = read(tmp_path / "raw")
    assert names.tolist() == ["old", "new"]
    np.testing.assert_allclose(vectors[0], known[2 + 7], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    _, people, _ = read(run / "visits")
    scores = people[people.any(axis=1)] @ vectors.T
    assert np.isfinite(scores).all() and np.corrcoef(scores.T)[0, 1] > 0.5  # a text near it is scored alike
    config = json.loads((run / "learn" / "config.json").read_text())
    assert config["model"]["reads"] == "text"
