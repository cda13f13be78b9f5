"""The mall as people see it, and the words that they may type."""

import io

import chz
import numpy as np
from PIL import Image

from data.features import FIRST
from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.display import MallDisplay
from data.mall.tokenizer import word_tokenizer
from data.mall.views.image import images
from data.mall.views.title import titles
from data.mall.views.words import lexicon

MALL = Mall(size="tiny", seed=0)


def test_a_row_per_listing_with_its_title_and_its_picture():
    table = MallDisplay(mall=MALL, side=16).make()
    shop = shop_of(MALL)
    assert table["item"].to_pylist() == list(range(FIRST, FIRST + len(shop)))
    drawn = images(MALL, shop=shop, items=np.array([0, 299]), side=16)
    for row, pixels in zip((0, 299), drawn, strict=True):
        with Image.open(io.BytesIO(table["image"][row].as_py())) as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels)
    tokens, lengths = titles(MALL, shop=shop, items=np.array([7]))
    said = table["title"][7].as_py()
    assert said.split() == [lexicon(MALL).strings[t] for t in tokens[0, : lengths[0]]]


def test_a_listing_without_a_picture_has_null():
    bare = chz.replace(MALL, views=chz.replace(MALL.views, no_image=0.5))
    missing = MallDisplay(mall=bare, side=8).make()["image"].null_count
    assert 100 < missing < 200


def test_typed_words_become_the_tokens_of_titles():
    """But for strings that several words share: then each is one of theirs."""
    tokenizer, strings = word_tokenizer(MALL), lexicon(MALL).strings
    shop = shop_of(MALL)
    tokens, lengths = titles(MALL, shop=shop, items=np.arange(len(shop)))
    same = total = 0
    for row, length in zip(tokens, lengths, strict=True):
        wanted = row[:length].tolist()
        found = tokenizer.encode(" ".join(strings[t] for t in wanted).upper()).ids
        assert [strings[t].lower() for t in found] == [strings[t].lower() for t in wanted]
        same, total = same + sum(a == b for a, b in zip(found, wanted, strict=True)), total + length
    assert same / total > 0.8
    assert tokenizer.encode("zzzz").ids == [1]
    assert tokenizer.encode("").ids == []
