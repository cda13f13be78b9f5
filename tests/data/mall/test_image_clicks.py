"""Impressions of photo searches as rows of a click tower, and the views of a catalogue beside rows."""

import chz
import numpy as np
import pytest

from data.clicked_pairs import ClickRule
from data.features import FIRST, Categorical, Features, Image
from data.mall.config import Mall
from data.mall.image_clicks import MallImageClicks, exposure
from data.mall.image_search import ImageSearch, searches
from data.mall.same_style import pairs_of
from data.sources import InMemory, SourceConfig
from data.transforms.self_views import SelfViews

LAW = ImageSearch(mall=Mall(size="tiny"), requests=3_000)


@pytest.fixture
def files(tmp_path, rng):
    paths = {}
    for name, dim in (("content", 3), ("anchor", 2)):
        paths[name] = str(tmp_path / f"{name}.npz")
        np.savez(paths[name], id=FIRST + np.arange(300), vector=rng.normal(size=(300, dim)).astype(np.float32))
    return paths


def test_rows_are_as_declared_and_vectors_are_of_their_ids(files):
    source = MallImageClicks(search=LAW, split="test", **files).make()
    at = np.array([5, 0, len(source) - 1])
    rows = source.take(at)
    for name, (shape, dtype) in source.features.arrays().items():
        assert rows[name].shape == (3, *shape) and rows[name].dtype == dtype, name
        np.testing.assert_array_equal(source[5][name], rows[name][0])
    vectors = {name: np.load(path)["vector"] for name, path in files.items()}
    np.testing.assert_array_equal(rows["content"], vectors["content"][rows["item"] - FIRST])
    np.testing.assert_array_equal(rows["anchor"], vectors["anchor"][rows["item"] - FIRST])
    log = searches(LAW)
    asked = np.repeat(log["query"][log["time"] >= LAW.mall.period("test")[0]], LAW.slots)[at]
    np.testing.assert_array_equal(rows["query_content"], vectors["content"][asked])


def test_splits_part_the_requests_and_uniform_slots_are_looked_at():
    count = {s: len(MallImageClicks(search=LAW, split=s).make()) for s in ("train", "valid", "test")}
    assert sum(count.values()) == LAW.requests * LAW.slots and min(count.values()) > 0
    uniform = MallImageClicks(search=LAW, split="test", shown="uniform").make()
    assert (uniform.columns["position"] == FIRST).all() and len(uniform) == count["test"]


def test_exposure_is_the_share_shown_less_in_training():
    log, end = searches(LAW), LAW.mall.period("train")[1]
    count = np.bincount(log["item"][log["time"] < end].ravel(), minlength=300)
    expected = [((count < c).sum() + (count <= c).sum()) / 600 for c in count]
    np.testing.assert_allclose(exposure(LAW), expected, rtol=1e-6)


def test_encoders_see_no_click_of_later_days():
    late = LAW.mall.period("train")[1]
    log = searches(LAW)
    early = {(q, i) for q, row, c, t in zip(*(log[n] for n in ("query", "item", "click", "time")), strict=True)
             if t < late for i in row[c]}  # fmt: skip
    pairs = pairs_of(LAW, ClickRule(users=1, category=False, offers=100), "train")
    assert set(zip(pairs.trigger.tolist(), pairs.offer.tolist(), strict=True)) <= early


@chz.chz
class Catalogue(SourceConfig):
    def make(self):
        image = np.stack([np.full((4, 4, 3), 10 * n, np.uint8) for n in range(1, 6)])
        return InMemory({"image": image}, features=Features(all=(Image(name="image", height=4, width=4),)))


def test_both_views_are_of_one_picture_of_the_catalogue():
    transform = SelfViews(items=Catalogue())
    source = InMemory({"x": np.zeros(50)}, features=Features(all=(Categorical(name="x", rows=3),)))
    declared = transform.features(source.features).arrays()
    assert declared["view_a"] == declared["view_b"] == ((4, 4, 3), np.uint8)
    batch = transform.bind(source)({"x": np.zeros(50)}, rng=np.random.default_rng(0))
    a, b = (batch[n].astype(int).mean(axis=(1, 2, 3)) for n in ("view_a", "view_b"))
    # Brightness changes by a fifth at most, so views of one plain picture stay near each other.
    assert (np.abs(np.log(a / b)) < 0.45).all() and (a != b).any()
    assert len(np.unique(np.round(np.log2(a / 10)))) > 2
