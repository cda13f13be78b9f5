"""Classes of the mall's products beside any source that names products, and the words for them."""

import numpy as np
import pytest

from data.mall.build import shop_of
from data.mall.classes import CLASSES, MallClasses, MallPrompts
from data.mall.config import Mall
from data.mall.sources import MallPairs
from data.mall.triples import MallTriples
from data.mall.views.words import lexicon

MALL = Mall(size="tiny")


@pytest.mark.parametrize("of", [MallPairs(mall=MALL), MallTriples(mall=MALL)], ids=["pairs", "triples"])
def test_rows_keep_what_they_were_and_state_the_truth(of):
    classed, plain = MallClasses(of=of, mall=MALL).make(), of.make()
    chosen = np.array([3, 0, 5])
    rows, shop = classed.take(chosen), shop_of(MALL)
    for name, values in plain.take(chosen).items():
        np.testing.assert_array_equal(rows[name], values)
    np.testing.assert_array_equal(rows["leaf"], shop.spu_leaf[rows["spu"]])
    np.testing.assert_array_equal(rows["colour"], shop.spu_attributes[rows["spu"], 0])
    assert set(CLASSES) <= set(classed.features.arrays()) and len(classed) == len(plain)
    assert [f.name for f in classed.features] == [f.name for f in plain.features]  # nothing more for the model


def test_a_prompt_is_a_word_of_the_class_and_titles_use_it():
    words = lexicon(MALL)
    for kind in ("colour", "leaf"):
        source = MallPrompts(of=kind, mall=MALL).make()
        rows = source.take(np.arange(len(source)))
        np.testing.assert_array_equal(words.means(rows["title"][:, 0], kind=kind), rows[kind])
        assert (rows["title/length"] == 1).all() and len(np.unique(rows["title"][:, 0])) == len(source)
    classed = MallClasses(of=MallPairs(mall=MALL), mall=MALL).make()
    rows = classed.take(np.arange(60))
    named = words.means(rows["title"], kind="colour")
    said = (named >= 0).any(1)
    assert said.mean() > 0.5 and (named.max(1)[said] == rows["colour"][said]).all()
    assert classed.spell(rows["title"][0]).split()[0] in words.strings
    with pytest.raises(ValueError, match="no class 'size'"):
        MallPrompts(of="size", mall=MALL).make()
    with pytest.raises(ValueError, match="no class 'size'"):
        MallClasses(of=MallPairs(mall=MALL), mall=MALL, classes=("size",))
