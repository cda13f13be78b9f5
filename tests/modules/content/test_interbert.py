"""InterBERT: what each stack sees, what is hidden and told, sides that are missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Features, Image, Text
from modules.content.interbert import InterBERT
from modules.layers.masking import hide
from modules.layers.regions import Windows, boxes, colours, hide_regions, overlaps

SIDE, TOKENS = 8, 20
FEATURES = Features(all=(Image(name="image", height=SIDE, width=SIDE), Text(name="title", tokens=TOKENS, length=5)))
WINDOWS = Windows(size=4, stride=2)
SMALL = {"dim": 8, "heads": 2, "depth": 1, "windows": WINDOWS}


@pytest.fixture
def batch(rng):
    length = np.array([5, 3, 0, 4])
    image = rng.integers(1, 256, (4, SIDE, SIDE, 3)).astype(np.uint8)
    image[3] = 0
    ids = np.where(np.arange(5) < length[:, None], rng.integers(2, TOKENS, (4, 5)), 0)
    return {"image": image, "title": ids, "title/length": length}


def run(model, batch, *, seed=None):
    graph, state = nnx.split(model)
    return jax.jit(lambda b: nnx.merge(graph, state)(b, rngs=None if seed is None else nnx.Rngs(seed)))(batch)


def test_sides_that_are_missing_leave_the_other_alone(batch):
    model = InterBERT(**SMALL).make(FEATURES, rngs=nnx.Rngs(0))
    both = run(model, batch)
    assert both["match/known"].tolist() == [True, True, False, False]
    words = run(model, {n: a for n, a in batch.items() if n != "image"})
    picture = run(model, {"image": batch["image"]})
    assert set(words) == {"text"} and set(picture) == {"image"}
    np.testing.assert_allclose(both["text"][3], words["text"][3], atol=1e-5)  # its picture is all zeros
    np.testing.assert_allclose(both["image"][2], picture["image"][2], atol=1e-5)  # its title is empty
    assert np.abs(both["text"][:2] - words["text"][:2]).max() > 1e-3  # the stack over both mixes them
    assert (both["text"][2] == 0).all() and (both["image"][3] == 0).all()
    spoilt = {**batch, "title": np.where(batch["title"] == 0, 7, batch["title"])}
    np.testing.assert_allclose(run(model, spoilt)["match"], both["match"], atol=1e-6)
    with pytest.raises(KeyError, match="batch has neither"):
        model({"title/length": batch["title/length"]})


@pytest.mark.parametrize("streams", [True, False])
def test_the_top_of_two_streams_does_not_see_across(batch, streams):
    model = InterBERT(**{**SMALL, "depth": 0}, streams=streams).make(FEATURES, rngs=nnx.Rngs(0))
    other = {**batch, "image": np.roll(batch["image"], 1, axis=0)}
    moved = np.abs(run(model, batch)["text"][:2] - run(model, other)["text"][:2]).max()
    assert moved == 0 if streams else moved > 1e-3


def test_the_match_is_of_the_product_of_both_poolers(batch):
    model = InterBERT(**SMALL).make(FEATURES, rngs=nnx.Rngs(0))
    found = run(model, batch)
    kernel, bias = np.asarray(model.match.kernel[...]), np.asarray(model.match.bias[...])
    product = np.asarray(found["text"]) * np.asarray(found["image"])
    np.testing.assert_allclose(found["match"], (product @ kernel + bias)[:, 0], rtol=1e-4, atol=1e-6)


def test_a_region_of_one_colour_is_told_by_that_colour(batch):
    model = InterBERT(**SMALL, anchors=0.5).make(FEATURES, rngs=nnx.Rngs(0))
    plain = {**batch, "image": np.full_like(batch["image"], 70)}  # shade 1 of each channel: colour 1 + 4 + 16
    model.tell_regions.kernel.set_value(jnp.zeros_like(model.tell_regions.kernel[...]))
    model.tell_regions.bias.set_value(jnp.zeros(64).at[21].set(2.0))
    found = run(model, plain, seed=1)
    wanted = np.log(np.exp(2.0) + 63) - 2.0  # KL of a one-hot truth
    assert found["mrm/known"].all()
    np.testing.assert_allclose(found["mrm"], wanted, rtol=1e-4)
    model.tell_words.kernel.set_value(jnp.zeros_like(model.tell_words.kernel[...]))
    known = run(InterBERT(**SMALL, words=0.9).make(FEATURES, rngs=nnx.Rngs(0)), batch, seed=1)["msm/known"]
    assert known.tolist() == [True, True, False, True]
    found = run(model, batch, seed=3)
    np.testing.assert_allclose(found["msm"][np.asarray(found["msm/known"])], np.log(TOKENS), rtol=1e-4)


def test_regions_that_overlap_a_hidden_one_are_hidden():
    near = overlaps(WINDOWS, shape=(SIDE, SIDE, 3))
    corner = WINDOWS.corners((SIDE, SIDE, 3))
    for i, a in enumerate(corner):
        for j, b in enumerate(corner):
            covered = [np.zeros((SIDE, SIDE), bool) for _ in range(2)]
            for mask, (y, x) in zip(covered, (a, b), strict=True):
                mask[y : y + 4, x : x + 4] = True
            assert near[i, j] == pytest.approx((covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum())
    anchors = np.zeros((1, 9), bool)
    anchors[0, 4] = True  # the one in the middle
    hidden = np.asarray(hide_regions(jnp.asarray(anchors), overlap=near, least=0.3))[0]
    assert hidden.reshape(3, 3).tolist() == [[False, True, False], [True, True, True], [False, True, False]]
    np.testing.assert_array_equal(hide_regions(jnp.asarray(anchors), overlap=near, least=0.9), anchors)
    np.testing.assert_allclose(boxes(WINDOWS, shape=(SIDE, SIDE, 3))[5], [0.5, 0.25, 1.0, 0.75, 0.25])
    with pytest.raises(ValueError, match="do not cover 8x8"):
        Windows(size=5, stride=2).corners((8, 8, 3))


def test_colours_are_shares_of_pixels(rng):
    windows = rng.integers(0, 256, (2, 3, 4, 4, 3)).astype(np.uint8)
    found = np.asarray(colours(jnp.asarray(windows)))
    number = (windows // 64 @ np.array([1, 4, 16])).reshape(2, 3, -1)
    for b in range(2):
        for n in range(3):
            np.testing.assert_allclose(found[b, n], np.bincount(number[b, n], minlength=64) / 16, atol=1e-6)


def test_spans_hide_words_in_a_row():
    where = np.arange(40)[None] < np.array([40, 25])[:, None]
    ids, where = np.full((200, 40), 5), np.repeat(where, 100, axis=0)
    kept = {"where": jnp.asarray(where), "share": 0.2, "size": 50}
    for span in (1, 4):
        _, hidden = hide(jnp.asarray(ids), span=span, rngs=nnx.Rngs(0), **kept)
        hidden = np.asarray(hidden)
        assert not (hidden & ~where).any() and 0.15 < hidden[where].mean() < 0.23
        follows = (hidden[:, 1:] & hidden[:, :-1]).sum() / hidden[:, :-1].sum()
        assert follows < 0.25 if span == 1 else follows > 0.5


def test_each_side_has_a_top_of_its_own(batch):
    model = InterBERT(**SMALL).make(FEATURES, rngs=nnx.Rngs(0))
    before = run(model, batch)
    model.tops[0].last.scale.set_value(0 * model.tops[0].last.scale[...])
    after = run(model, batch)
    np.testing.assert_array_equal(before["text"], after["text"])
    assert np.abs(before["image"] - after["image"]).max() > 1e-3
