"""A published text encoder as a stage: its weights as they came, embedded by the stage that follows."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.packed_classes import PackedTitles
from modules.content.sentence import Sentence
from modules.encoders.bert import BERT
from serve.stages import Embed
from tests.modules.encoders.published import loaded, write
from train.as_published import AsPublished
from train.pipeline import Pipeline, run_pipeline
from train.pretrained import Pretrained

FIXTURE = Path(__file__).parents[1] / "data" / "builders" / "fixtures" / "fashion_packed"
TINY = BERT(dim=16, depth=2, heads=4, hidden=24, vocabulary=43, positions=12)


def pipeline(tmp_path, weights):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "plain", "blue", "bright", "red", "black", "top"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    titles = PackedTitles(
        path=str(FIXTURE),
        tokenizer=str(tmp_path / "vocab.txt"),
        length=12,
        max_rejects=0.5,
        cache=str(tmp_path / "cache"),
    )
    start = Pretrained(path=weights, layout="bert", under="language")
    return titles, Pipeline(
        stages={
            "bert": AsPublished(model=Sentence(language=TINY), start=start, source=titles),
            "titles": Embed(of="@bert", source=titles, id="product", vectors=("query",), batch=8),
        }
    )


def test_weights_stay_as_they_came_and_embed_every_title_once(tmp_path, monkeypatch):
    write("bert", folder=tmp_path)
    monkeypatch.setenv("WEIGHTS_HERE", str(tmp_path))
    titles, stages = pipeline(tmp_path, "$WEIGHTS_HERE")
    run_pipeline(stages, workdir=tmp_path / "run", say=lambda line: None)
    with np.load(tmp_path / "run" / "titles" / "vectors.npz") as file:
        ids, vectors = file["id"], file["vector"]
    rows = titles.make().columns
    np.testing.assert_array_equal(ids, rows["product"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # By hand through the same weights: the parity of the encoder itself is tests/modules/encoders' affair.
    model = loaded(
        lambda: TINY.make(tokens=43, length=12, rngs=nnx.Rngs(0)), Pretrained(path=str(tmp_path), layout="bert")
    )
    where = np.arange(12) < rows["title/length"][:, None]
    plain = np.asarray(jax.jit(lambda ids: model(ids, where=where))(rows["title"]))
    np.testing.assert_allclose(vectors, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-4)


def test_weights_that_are_nowhere_are_named(tmp_path):
    _, stages = pipeline(tmp_path, "$NO_SUCH_VARIABLE_HERE/model")
    with pytest.raises(UserError, match="the environment variable NO_SUCH_VARIABLE_HERE is not set"):
        run_pipeline(stages, workdir=tmp_path / "run", say=lambda line: None)
