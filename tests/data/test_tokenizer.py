import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.__main__ import main
from data.errors import UserError
from data.features import Features, Text
from data.parquet import Parquet
from data.tokenizer import learn


@pytest.fixture
def titles(tmp_path):
    words = ["red", "Shoe", "blau", "jacke", "ünï"]
    text = [" ".join(words[(i * k) % 5] for k in range(1, 4)) for i in range(200)]
    pq.write_table(pa.table({"title": [*text, None, "x" * 1_000_000], "n": range(202)}), tmp_path / "a.parquet")
    return tmp_path


def test_a_tokenizer_learns_reads_and_keeps_zero_for_padding(titles, capsys):
    command = ["tokens", str(titles), "--columns", "title", "--size", "300", "--target", str(titles / "v/title.json")]
    assert main(command) == 0 and "title.json: 2" in capsys.readouterr().out
    title = Text(name="title", tokens=300, length=8, tokenizer="title.json")
    source = Parquet(path=str(titles), features=Features(all=(title,)), vocabularies=str(titles / "v")).make()
    tokens, length = source.columns["title"], source.columns["title/length"]
    assert len(source) == 202 and length[200] == 0 and length[201] > 0
    held = np.arange(8) < length[:, None]
    assert (tokens[held] > 0).all() and (tokens[~held] == 0).all()
    assert source.rejects.notes["title", "longer than 256 characters, cut before tokenising"] == 1
    back = source.vocabularies.tokenizer("title.json").decode(tokens[1][: length[1]].tolist())
    assert back.strip() == "shoe blau jacke"


def test_what_cannot_be_learned_is_named(titles):
    with pytest.raises(UserError, match="'n' is int64"):
        learn(str(titles), columns=("n",), size=300, target=titles / "t.json")
    with pytest.raises(UserError, match="more than 257 tokens"):
        learn(str(titles), columns=("title",), size=200, target=titles / "t.json")
    with pytest.raises(UserError, match="did you mean 'title'"):
        learn(str(titles), columns=("titel",), size=300, target=titles / "t.json")
