"""What serving encodes by stands beside the model, also a tokenizer that this run did not have to read."""

import numpy as np

from data.features import Features, Text
from data.sources import InMemory
from data.tokenizer import train
from data.vocabulary import Vocabularies
from train.loop import _keep_beside_the_model


def test_a_tokenizer_is_kept_where_the_rows_came_from_a_cache(tmp_path):
    (tmp_path / "own" / "deep").mkdir(parents=True)
    train(iter([["red shoe", "blue coat"]]), size=300).save(str(tmp_path / "own" / "deep" / "title.json"))
    title = Text(name="title", tokens=300, length=2, tokenizer="deep/title.json")
    ids = Text(name="ids", tokens=300, length=2, tokenizer="not_here.json")  # its column held ids already
    columns = {"ids": np.zeros((1, 2), np.int32), "ids/length": np.zeros(1, np.int32)}
    columns |= {"title": np.zeros((1, 2), np.int32), "title/length": np.zeros(1, np.int32)}
    source = InMemory(columns, features=Features(all=(title, ids)))
    source.vocabularies = Vocabularies(tmp_path / "own")
    _keep_beside_the_model(source, folder=tmp_path)
    served = Vocabularies(tmp_path / "vocabularies").tokenizer("deep/title.json")
    assert served.encode("blue coat").ids == source.vocabularies.tokenizer("deep/title.json").encode("blue coat").ids
