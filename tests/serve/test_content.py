"""Towers that a request's words or picture go through: which ones an index may be searched with."""

import re

import chz
import numpy as np
import pytest

from data.errors import UserError
from serve.content import ContentTower
from serve.funnel_config import ByContent
from serve.index.build import build
from serve.request import Unreadable
from tests.serve.up.conftest import export
from tests.serve.up.shop import COLOURS, TEXT, content_towers, png, tokenizer, vector


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    content_towers(folder)
    tokenizer(folder / "words.json")
    return folder


def index(*, dim=4, model="m"):
    return build(np.eye(dim, dtype=np.float32), ids=np.arange(dim), model=model)


def test_words_are_read_by_the_named_tokenizer_and_cut_at_the_length(folder):
    tower = ContentTower(folder / "text", kind="text", index=index(), tokenizer=folder / "words.json")
    np.testing.assert_allclose(tower("RED"), vector(COLOURS["red"]), atol=1e-6)
    mean = np.mean([vector(COLOURS["red"]), vector(COLOURS["blue"])], axis=0)
    np.testing.assert_allclose(tower("red blue"), mean, atol=1e-6)
    np.testing.assert_allclose(tower("red red red red blue blue"), vector(COLOURS["red"]), atol=1e-6)


def test_pictures_of_any_size_are_read_at_the_tower_s(folder):
    tower = ContentTower(folder / "picture", kind="picture", index=index())
    for side in (1, 4, 301):
        np.testing.assert_allclose(tower(png(COLOURS["green"], side=side)), vector(COLOURS["green"]), atol=1e-6)
    with pytest.raises(Unreadable, match="bytes, at most"):
        tower(b"\x89PNG" + bytes(7 << 20))


@pytest.mark.parametrize(
    ("name", "kind", "made", "reason"),
    [
        ("text", "text", {"model": "other"}, "the index holds vectors of model 'other'"),
        ("text", "text", {"dim": 8}, "gives vectors of 4 numbers, the index holds 8"),
        ("text", "text", {}, "takes token ids; name the tokenizer"),
        ("picture", "text", {}, "reads image; a tower of a text reads one feature, a text"),
        ("text", "picture", {}, "reads text; a tower of a picture reads one feature, a image"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_opened(folder, name, kind, made, reason):
    with pytest.raises(UserError, match=re.escape(reason)):
        ContentTower(folder / name, kind=kind, index=index(**made))


def test_a_tower_of_scores_is_none_of_vectors(tmp_path):
    with pytest.raises(UserError, match="gives no vectors"):
        ContentTower(export(tmp_path), kind="text", index=index())


def test_a_tokenizer_that_is_larger_than_the_table_or_not_there_is_told(folder, tmp_path):
    content_towers(tmp_path, text=chz.replace(TEXT, tokens=3))
    tower = ContentTower(tmp_path / "text", kind="text", index=index(), tokenizer=folder / "words.json")
    with pytest.raises(UserError, match="has 6 tokens, but 'title' declares 3"):
        tower("red")
    with pytest.raises(UserError, match="no tokenizer file"):
        ContentTower(folder / "text", kind="text", index=index(), tokenizer=folder / "nothing.json")


@pytest.mark.parametrize("wrong", [{}, {"picture": "p", "tokenizer": "t"}])
def test_a_channel_reads_something(wrong):
    with pytest.raises(ValueError, match=r"needs an artefact|does not read"):
        ByContent(index="index", **wrong)
