"""Triples of the mall: one product a row, splits that share none, what is said and what is left of it."""

import numpy as np
import pytest

from data.mall.build import shop_of
from data.mall.config import Mall
from data.mall.triples import MallTriples, _rows
from data.mall.views.words import lexicon
from data.speech import KeepCatalogue

MALL = Mall(size="tiny")


def rows_of(split):
    return _rows(MallTriples(mall=MALL, split=split))


def test_rows_are_as_declared():
    source = MallTriples(mall=MALL, asr="clean", frames=2).make()
    rows = source.take(np.array([0, len(source) - 1, 0]))
    declared = source.features.arrays()
    assert set(rows) == set(declared)
    for name, (shape, dtype) in declared.items():
        assert rows[name].shape == (3, *shape) and rows[name].dtype == dtype, name
    assert all(np.array_equal(source[0][name], rows[name][2]) for name in declared)
    assert rows["video"].shape[1] == 2 and rows["video"].std() > 0


def test_the_views_of_a_row_are_of_its_product_by_several_listings():
    shop = shop_of(MALL)
    spu, listings = rows_of("train")
    assert (shop.spu[listings] == spu[:, None]).all()
    assert (listings[:, 0] != listings[:, 1]).mean() > 0.2
    several = len(np.unique(spu))
    assert len(spu) == 4 * several
    assert len(set(spu[:several])) == several  # a pass over the products before the next


def test_splits_share_no_product_and_seen_ones_no_listing():
    shown = {split: rows_of(split) for split in ("train", "seen", "valid", "test")}
    products = {split: set(spu.tolist()) for split, (spu, _) in shown.items()}
    assert not products["train"] & (products["valid"] | products["test"]) and not products["valid"] & products["test"]
    assert products["seen"] <= products["train"]
    trained_on = set(shown["train"][1].ravel().tolist())
    assert products["seen"] and not trained_on & set(shown["seen"][1].ravel().tolist())
    for split in ("seen", "valid", "test"):
        listings = shown[split][1]
        assert (listings == listings[:, :1]).all()


@pytest.fixture(scope="module")
def said():
    sources = {kind: MallTriples(mall=MALL, asr=kind, silent=0.3).make() for kind in ("raw", "clean")}
    return {kind: source.take(np.arange(60)) for kind, source in sources.items()}


def test_cleaned_speech_is_what_describes_products(said):
    words = lexicon(MALL)
    raw, clean = said["raw"]["live_text"], said["clean"]["live_text"]
    spoken = said["raw"]["live_text/length"] > 0
    assert 0.5 < spoken.mean() < 0.9
    assert (said["clean"]["live_text/length"] > 0).tolist() == spoken.tolist()
    chatter = [(words.means(tokens[tokens > 0], kind="chatter") >= 0).mean() for tokens in (raw, clean)]
    assert chatter[0] > 0.7 and chatter[1] == 0
    assert not np.array_equal(clean, said["clean"]["video_text"])  # another occasion, other facts


def test_a_cleaner_that_errs_lets_chatter_through():
    source = MallTriples(mall=MALL, asr="clean", cleaner=KeepCatalogue(error=0.1)).make()
    tokens = source.take(np.arange(60))["video_text"]
    assert 0.05 < (lexicon(MALL).means(tokens[tokens > 0], kind="chatter") >= 0).mean() < 0.7
