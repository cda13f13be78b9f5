"""Packed pictures and their titles."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.builders.base import Built, build
from data.errors import UserError
from data.packed_classes import PackedClasses, PackedListings, PackedPrompts, PackedTitles, numbers
from data.packed_images import PackedImages

FIXTURE = Path(__file__).parent / "builders" / "fixtures" / "fashion_packed"


def source(tmp_path, split, **more):
    config = PackedImages(path=str(FIXTURE), split=split, tokens=300, max_rejects=0.5, cache=str(tmp_path), **more)
    return config.make()


def test_pictures_are_decoded_when_taken(tmp_path):
    valid = source(tmp_path, "val", height=12, width=9)
    assert len(valid) == 2
    rows = valid.take(np.array([1, 0, 1]))
    assert rows["image"].shape == (3, 12, 9, 3) and rows["image"].dtype == np.uint8
    assert rows["image"].std() > 10
    assert not np.array_equal(rows["image"][0], rows["image"][1])
    for name, (shape, dtype) in valid.features.arrays().items():
        assert rows[name].shape[1:] == shape and rows[name].dtype == dtype, name
        np.testing.assert_array_equal(rows[name][0], valid[1][name])


def test_equal_titles_are_one_product(tmp_path):
    train = source(tmp_path, "train")
    first = train._rows["product"][0]  # listings 1 (train) and 5 (val) share their title
    assert first == source(tmp_path, "val")._rows["product"][1]
    assert (train._rows["product"] == first).sum() == 1


def test_a_picture_that_does_not_decode_is_named(tmp_path):
    train = source(tmp_path, "train")
    with pytest.raises(UserError, match="image does not decode; python -m data build fashion"):
        train.take(np.arange(len(train)))


def test_the_tokenizer_is_learnt_once_and_goes_with_the_model(tmp_path):
    train = source(tmp_path, "train")
    files = list(tmp_path.rglob("title.json"))
    assert len(files) == 1 and train.features["title"].tokens <= 300
    written = files[0].stat().st_mtime_ns
    source(tmp_path, "val")
    assert files[0].stat().st_mtime_ns == written
    train.vocabularies.tokenizer("title.json")
    train.vocabularies.save(tmp_path / "model")
    assert (tmp_path / "model" / "title.json").is_file()


def test_the_builder_gives_the_same_pictures(tmp_path):
    path = build("fashion", config="packed", manual=FIXTURE, out=tmp_path, max_rejects=0.5)
    built = Built(path=str(path), split="valid").make()
    direct = source(tmp_path, "val").take(np.arange(2))
    np.testing.assert_array_equal(built.columns["image"], direct["image"])
    np.testing.assert_array_equal(built.columns["product"], direct["product"])


def test_classes_are_numbered_and_named(tmp_path):
    shared = {"path": str(FIXTURE), "tokens": 300, "max_rejects": 0.5, "cache": str(tmp_path)}
    listed = PackedClasses(split="val", classes=("baseColour", "gender"), height=12, width=9, **shared).make()
    rows = listed.take(np.arange(len(listed)))
    prompts = PackedPrompts(of="baseColour", **shared).make()
    names = [listed.spell(t) for t in prompts.columns["title"]]
    assert names == sorted(names) and prompts.columns["baseColour"].tolist() == list(range(len(names)))
    whole = PackedClasses(split="all", classes=("baseColour", "gender"), **shared).make()
    assert len(whole) == len(listed) + len(source(tmp_path, "train"))
    np.testing.assert_array_equal(rows["title"], source(tmp_path, "val").take(np.arange(len(listed)))["title"])
    once = PackedClasses(split="all", distinct=True, **shared).make()
    product = whole._rows["product"]
    assert product[0] in product[1:]  # the fifth listing has the first one's title
    np.testing.assert_array_equal(once._rows["product"], list(dict.fromkeys(product.tolist())))
    assert once.features["title"].tokens == whole.features["title"].tokens
    stated = pa.table({"season": ["Summer", "", "Fall", "NA", "Summer"]})
    assert numbers(stated, "season").tolist() == [1, -1, 0, -1, 1]
    with pytest.raises(UserError, match="no attribute 'size'"):
        PackedPrompts(of="size", **shared).make()


def test_a_listing_that_states_no_class_stays_and_one_set_aside_takes_its_picture_along(tmp_path, monkeypatch):
    shared = {"path": str(FIXTURE), "tokens": 300, "max_rejects": 0.5, "cache": str(tmp_path)}
    plain = source(tmp_path, "all", height=12, width=9)
    config = PackedClasses(split="all", classes=("baseColour",), height=12, width=9, **shared)
    items = config._listings()

    def opened(column, values):
        array = pa.array(values, items[column].type)
        told = items.set_column(items.column_names.index(column), column, array)
        monkeypatch.setattr(PackedClasses, "_listings", lambda self: told)
        return config.make()

    listed = opened("baseColour", ["NA"] * items.num_rows)
    assert len(listed) == len(plain) and (listed._rows["baseColour"] == -1).all()
    fewer = opened("product", [None, *items["product"].to_pylist()[1:]])
    assert len(fewer) == len(plain) - 1 and fewer.rejects.count == 1
    decoded = [i for i in range(1, len(plain)) if _decodes(plain, i)]
    assert len(decoded) > 2
    for i in decoded:
        np.testing.assert_array_equal(fewer[i - 1]["image"], plain[i]["image"])
        np.testing.assert_array_equal(fewer[i - 1]["title"], plain[i]["title"])


def _decodes(pictures, index: int) -> bool:
    try:
        pictures[index]
    except UserError:
        return False
    return True


def test_a_tokenizer_that_came_with_weights_stands_in_for_ones_own(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "plain", "blue", "red", "##s", "t", "##shirt", "heel"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    valid = source(tmp_path, "val", tokenizer=str(tmp_path / "vocab.txt"))
    assert valid.features["title"].tokens == len(pieces)
    told = [row[:n].tolist() for row, n in zip(valid._rows["title"], valid._rows["title/length"], strict=True)]
    assert [2, 4, 5, 8, 9, 3] in told  # "Plain Blue Tshirt"
    valid.vocabularies.tokenizer("title.json")
    valid.vocabularies.save(tmp_path / "model")
    assert (tmp_path / "model" / "title.json").is_file()
    with pytest.raises(UserError, match="no such tokenizer; name the tokenizer"):
        source(tmp_path, "val", tokenizer=str(tmp_path / "none.json"))


def test_titles_without_pictures_get_vectors_that_listings_find_by_product(tmp_path):
    shared = {"path": str(FIXTURE), "tokens": 300, "max_rejects": 0.5, "cache": str(tmp_path)}
    titles = PackedTitles(**shared).make()
    every = source(tmp_path, "all")
    assert len(titles) == len(np.unique(every._rows["product"])) < len(every)
    vectors = np.random.default_rng(0).normal(size=(len(titles), 3)).astype(np.float32)
    shuffled = np.random.default_rng(1).permutation(len(titles))
    path = tmp_path / "vectors.npz"
    np.savez(path, id=titles.columns["product"][shuffled], vector=vectors[shuffled])
    told = source(tmp_path, "val", vectors=str(path), height=8, width=6)
    assert told.features["title_vector"].shape == (3,)
    rows = told.take(np.arange(len(told)))
    for row in range(len(told)):
        (same,) = np.flatnonzero(titles.columns["product"] == rows["product"][row])
        np.testing.assert_array_equal(rows["title_vector"][row], vectors[same])
        np.testing.assert_array_equal(rows["title"][row], titles.columns["title"][same])
    assert titles.vocabularies.tokenizer("title.json").get_vocab_size() == titles.features["title"].tokens
    np.savez(path, id=titles.columns["product"][1:], vector=vectors[1:])
    with pytest.raises(UserError, match=rf"lacks 1 products, such as {titles.columns['product'][0]}"):
        source(tmp_path, "all", vectors=str(path))  # one of its listings has this product
    with pytest.raises(UserError, match="no such vectors; run the stage"):
        source(tmp_path, "all", vectors=str(tmp_path / "none.npz"))


def test_pictures_find_their_vectors_by_listing_and_need_no_pixels(tmp_path):
    shared = {"path": str(FIXTURE), "tokens": 300, "max_rejects": 0.5, "cache": str(tmp_path)}
    listed = PackedListings(split="all", **shared).make()
    ids = listed._rows["id"].astype(np.int64)
    assert sorted(ids) == sorted(PackedImages(split="all", **shared)._listings()["id"].to_pylist())
    vectors = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(np.float32)
    path = tmp_path / "pictures.npz"
    np.savez(path, id=ids[::-1], vector=vectors[::-1])
    for split in ("val", "all"):
        plain, told = source(tmp_path, split), source(tmp_path, split, picture_vectors=str(path), pixels=False)
        assert "image" not in told.features and told.features["image_vector"].shape == (3,)
        rows = told.take(np.arange(len(told)))
        assert "image" not in rows
        np.testing.assert_array_equal(rows["title"], plain._rows["title"])
        wanted = ids if split == "all" else np.array(config_ids(shared))
        np.testing.assert_array_equal(rows["image_vector"], vectors[[ids.tolist().index(i) for i in wanted]])
    assert listed._rows["id"].dtype == listed.features["id"].dtype == np.int32
    np.savez(path, id=ids[1:], vector=vectors[1:])
    with pytest.raises(UserError, match=rf"lacks 1 ids, such as {ids[0]}"):
        source(tmp_path, "all", picture_vectors=str(path))


def test_a_listing_whose_number_is_too_long_is_named(tmp_path, monkeypatch):
    config = PackedListings(path=str(FIXTURE), split="all", tokens=300, max_rejects=0.5, cache=str(tmp_path))
    items = config._listings()
    long = pa.array([2**31 + 5, *items["id"].to_pylist()[1:]])
    told = items.set_column(items.column_names.index("id"), "id", long)
    monkeypatch.setattr(PackedListings, "_listings", lambda self: told)
    with pytest.raises(UserError, match="id 2147483653 does not fit int32"):
        config.make()


def config_ids(shared) -> list[int]:
    return PackedListings(split="val", **shared).make()._rows["id"].astype(int).tolist()
