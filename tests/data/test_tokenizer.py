import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.__main__ import main
from data.errors import UserError
from data.features import Features, Text
from data.parquet import Parquet
from data.tokenizer import learn, load


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


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "shoe", "##s", "blau"]


@pytest.fixture
def pieces(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


def test_a_tokenizer_that_came_with_weights_is_read_from_either_file(pieces):
    tokenizer = load(pieces / "vocab.txt")
    assert tokenizer.encode("Red SHOES, hat").tokens == ["[CLS]", "red", "shoe", "##s", "[UNK]", "[UNK]", "[SEP]"]
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(pieces / "tokenizer.json"))
    again = load(pieces / "tokenizer.json")
    assert again.encode("red shoes blau red").ids == [2, 4, 5, 6, 7, 4, 3]  # no padding, nothing cut
    (pieces / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load(pieces / "vocab.txt").encode("Red").tokens == ["[CLS]", "[UNK]", "[SEP]"]


def test_what_is_no_tokenizer_is_named(pieces):
    (pieces / "vocab.txt").write_text("red\nshoe\n")
    with pytest.raises(UserError, match=r"vocab\.txt is no tokenizer .*\[CLS\], \[SEP\] not among its 2 lines"):
        load(pieces / "vocab.txt")
    (pieces / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer"):
        load(pieces / "tokenizer.json")


def test_a_long_text_keeps_the_token_that_ends_it(pieces):
    pq.write_table(pa.table({"title": ["red", "red red shoe blau", None]}), pieces / "a.parquet")
    feature = Text(name="title", tokens=8, length=4, tokenizer="vocab.txt")
    source = Parquet(path=str(pieces / "a.parquet"), features=Features(all=(feature,)), vocabularies=str(pieces)).make()
    np.testing.assert_array_equal(source.columns["title"], [[2, 4, 3, 0], [2, 4, 4, 3], [2, 3, 0, 0]])
    assert source.rejects.notes["title", "longer than 4 tokens, cut"] == 1


def test_a_tokenizer_larger_than_its_feature_is_refused(pieces):
    pq.write_table(pa.table({"title": ["red"]}), pieces / "a.parquet")
    features = Features(all=(Text(name="title", tokens=7, length=4, tokenizer="vocab.txt"),))
    with pytest.raises(UserError, match=r"tokenizer 'vocab\.txt' has 8 tokens, but 'title' declares 7"):
        Parquet(path=str(pieces / "a.parquet"), features=features, vocabularies=str(pieces)).make()
