"""Knowledge beside click rows: of items whose id nobody knows too, and of a person's own past."""

import numpy as np

from data.features import UNKNOWN
from data.mall.config import Mall
from data.mall.knowledge import MallKnowledge, named_words
from data.mall.sources import MallClicks
from data.mall.texts import hashed_texts

MALL = Mall(size="tiny")


def test_knowledge_is_of_the_item_and_of_the_history_known_or_not():
    source = MallKnowledge(mall=MALL, split="test", history=6).make()
    plain = MallClicks(mall=MALL, split="test", history=6).make()
    at = np.arange(0, len(source), 17)
    rows, true = source.take(at), plain.take(at)
    new = rows["item"] == UNKNOWN
    assert new.any() and (rows["facts"][new] != 0).any(axis=1).all()
    np.testing.assert_array_equal(rows["facts"], hashed_texts(MALL)[true["item"]])
    i = int(np.argmax(true["history/length"]))
    past = true["history"][i, : true["history/length"][i]]
    said = named_words(MALL)[past].sum(axis=0)
    np.testing.assert_allclose(rows["reasoning"][i], said / np.linalg.norm(said), atol=1e-6)
    empty = true["history/length"] == 0
    assert (rows["reasoning"][empty] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(rows["reasoning"][~empty], axis=1), 1, atol=1e-5)
