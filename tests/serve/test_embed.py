"""Vectors of one tower, from a two-tower run to an index that knows which model made it."""

import numpy as np
import pytest

from data.errors import UserError
from data.mall.config import Mall
from data.mall.sources import MallClicks, MallProducts, MallQueries
from data.mall.vectors import read_vectors
from data.pipeline import Loader
from modules.retrieval.two_tower import TwoTower
from serve.__main__ import main
from serve.commands import embed_source
from serve.embed import read
from serve.index.open import open_index
from serve.stages import Embed, Index
from serve.trained import Trained
from train.evaluators import Retrieve
from train.experiment import Experiment
from train.metrics.ranking import MRR
from train.pipeline import Pipeline, Train, run_pipeline
from train.tasks.contrastive import InBatchSoftmax

MALL = Mall(size="tiny")
ITEMS = MallProducts(mall=MALL)
EXPERIMENT = Experiment(
    model=TwoTower(),
    task=InBatchSoftmax(),
    source=MallQueries(mall=MALL, history=4),
    loader=Loader(batch_size=32),
    evals={"test": Retrieve(source=MallQueries(mall=MALL, split="test", history=4), corpus=ITEMS, metrics=(MRR(),))},
    steps=3,
)


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    pipeline = Pipeline(
        stages={
            "towers": Train(experiment=EXPERIMENT),
            "items": Embed(of="@towers", source=ITEMS, batch=128),
            "index": Index(of="@items/vectors.npz"),
            "folder": Embed(of="@towers", source=ITEMS, name="vectors", batch=128),
            "folder_index": Index(of="@folder/vectors"),
        }
    )
    return path, run_pipeline(pipeline, workdir=path, say=lambda _: None)


def test_the_pipeline_ends_with_an_index_of_every_item(figures):
    path, found = figures
    trained = Trained(path / "towers")
    assert found["items"]["rows"] == found["index"]["rows"] == MALL.n_items
    index = open_index(path / "index" / "index", model=trained.version)
    source = ITEMS.make()
    rows = source.take(np.arange(len(source)))
    weights = {"params": {}, "stats": {}}
    for name, value in trained.weights.items():
        kind, _, rest = name.partition("/")
        weights[kind][rest] = value
    inputs = {n: rows[n] for n in trained.features.arrays(inputs_only=True) if n in rows}
    wanted = np.asarray(trained.program.predict(weights, inputs)["item"])
    np.testing.assert_array_equal(index.ids, rows["item"])
    np.testing.assert_allclose(index.vectors, wanted, atol=1e-6)


def test_parquet_and_npz_hold_the_same_and_feed_a_click_tower(figures, tmp_path):
    path, _ = figures
    output = tmp_path / "v.parquet"
    embed_source(path / "towers", source=ITEMS, output=output, batch=100, say=lambda _: None)
    ids, vectors, model = read(output)
    other_ids, other, other_model = read(path / "items" / "vectors.npz")
    assert model == other_model != ""
    np.testing.assert_array_equal(ids, other_ids)
    np.testing.assert_allclose(vectors, other, atol=1e-6)
    rows = read_vectors(str(output), rows=MALL.n_items + 2)
    np.testing.assert_array_equal(rows[ids], vectors)


def test_a_stage_writes_a_folder_that_index_and_towers_read(figures):
    path, found = figures
    ids, vectors, model = read(path / "folder" / "vectors", model=Trained(path / "towers").version)
    wanted = read(path / "items" / "vectors.npz")
    np.testing.assert_array_equal(ids, wanted[0])
    np.testing.assert_allclose(vectors, wanted[1], atol=1e-6)
    assert found["folder"]["new"] == found["folder"]["rows"] == found["folder_index"]["rows"] == MALL.n_items
    assert open_index(path / "folder_index" / "index", model=model).ids.tolist() == ids.tolist()
    source = MallClicks(mall=MALL, content=str(path / "folder" / "vectors"), content_history=True, history=4).make()
    rows = source.take(np.arange(50))
    np.testing.assert_array_equal(rows["content"], vectors[rows["item"] - 2])
    assert rows["history_content"].shape == (50, 4, vectors.shape[1])


def test_the_query_side_comes_from_the_source_the_run_trained_on(figures, tmp_path, capsys):
    path, _ = figures
    output = tmp_path / "q.npz"
    words = ["embed", str(path / "towers"), "--source", "train", "--output", str(output)]
    assert main([*words, "--id", "user_group", "--vectors", "query"]) == 0
    assert len(read(output)[0]) == len(EXPERIMENT.source.make())
    assert main([*words, "--id", "users"]) == 2
    assert "has no 'users'" in capsys.readouterr().err


def test_a_workdir_is_indexed_by_the_name_of_a_source(figures, tmp_path, capsys):
    path, _ = figures
    words = ["index", str(path / "towers"), "--output", str(tmp_path / "index")]
    assert main([*words, "--source", "test/corpus"]) == 0
    np.testing.assert_allclose(
        open_index(tmp_path / "index").vectors, open_index(path / "index" / "index").vectors, atol=1e-6
    )
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    assert main([*words, "--source", "items"]) == 2
    assert "it has train, test/corpus, test" in capsys.readouterr().err
    assert main(words) == 2


def test_what_is_no_file_of_vectors_is_named(tmp_path):
    with pytest.raises(UserError, match="ends neither in"):
        embed_source(tmp_path, source=ITEMS, output=tmp_path / "v.csv")
    np.savez(tmp_path / "v.npz", ids=np.zeros(3))
    with pytest.raises(UserError, match=r"v\.npz holds no vectors"):
        read(tmp_path / "v.npz")
    assert main(["index", str(tmp_path / "none.parquet"), "--output", str(tmp_path / "i")]) == 2
