import datetime
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Picture

from data.encode import encode
from data.errors import TooManyRejects, UserError
from data.features import (
    Categorical,
    Dense,
    Features,
    Group,
    Image,
    Label,
    MultiHot,
    Numeric,
    Sequence,
    Text,
    Time,
    Weight,
)
from data.rejects import Rejects
from data.vocabulary import Vocabularies, Vocabulary


def one(values, feature, *, kind=None, **options):
    table = pa.table({feature.name: pa.array(values, kind) if not isinstance(values, pa.Array) else values})
    return encode(table, features=Features(all=(feature,)), file="f.parquet", **options)


def faults(done):
    return {(line["row"], line["field"], line["why"]) for line in done.rejects.lines()}


def test_ids_are_checked_and_null_is_missing():
    done = one([0, 5, None, 9, 10, -1], Categorical(name="ad", rows=10), first_row=100)
    assert done.rows["ad"].tolist() == [0, 5, 0, 9] and done.rows["ad"].dtype == np.int32
    assert done.keep.tolist() == [0, 1, 2, 3]
    assert faults(done) == {(104, "ad", "id outside 0..9"), (105, "ad", "id outside 0..9")}
    assert done.rejects.count == 2
    assert done.rejects.first(1) == ["f.parquet row 104: ad: id outside 0..9 (10)"]


def test_ids_that_pandas_made_floats():
    done = one([1.0, None, float("nan"), 2.5], Categorical(name="ad", rows=10))
    assert done.rows["ad"].tolist() == [1, 0, 0] and done.rejects.count == 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_hash_is_stable_across_types_and_keeps_zero_and_one_free(kind):
    words = ["", None, "a", "b" * 9, "ünï", "c" * 1000, "a"]
    ids = one(words, Categorical(name="w", rows=1000, encode="hash"), kind=kind).rows["w"]
    assert ids[0] == ids[1] == 0 and ids[2] == ids[6] and (ids[2:] >= 2).all()
    assert ids[2:6].tolist() == [400, 705, 504, 940]  # part of the stored format


def test_hash_of_integers_and_of_integral_floats_agree():
    feature = Categorical(name="w", rows=1000, encode="hash")
    whole = one([1, 2, 3, None], feature).rows["w"]
    assert np.array_equal(whole, one([1.0, 2.0, 3.0, None], feature).rows["w"])
    many = one(list(range(20_000)), feature).rows["w"]
    assert many.min() == 2 and many.max() == 999 and len(np.unique(many)) == 998


def test_vocabulary_ids_unknown_and_missing():
    vocabulary = Vocabulary(pa.array(["x", "y", "z"]), np.array([5, 3, 1]), name="w")
    feature = Categorical(name="w", rows=5, encode="vocabulary")
    done = one(["x", "z", "new", None, "x"], feature, vocabularies={"w": vocabulary})
    ids = done.rows["w"]
    assert ids[0] == ids[4] and ids[2] == 1 and ids[3] == 0 and sorted({*ids[:2]} | {2, 3, 4}) == [2, 3, 4]
    assert vocabulary.value(ids).to_pylist() == ["x", "z", None, None, "x"]
    assert done.rejects.notes["w", "unknown, became id 1"] == 1
    with pytest.raises(UserError, match="needs 5 rows"):
        one(["x"], Categorical(name="w", rows=4, encode="vocabulary"), vocabularies={"w": vocabulary})
    with pytest.raises(UserError, match="built from string"):
        one([1, 2], feature, vocabularies={"w": vocabulary})
    with pytest.raises(UserError, match="no vocabulary 'w'"):
        one(["x"], feature)


def test_numbers():
    done = one([1.0, None, float("nan"), float("inf"), -3.0], Numeric(name="price", transform="log1p"))
    assert np.allclose(done.rows["price"], [np.log(2), -np.log(4)]) and done.rejects.count == 3
    mended = one([1.0, None, float("nan"), float("inf")], Numeric(name="price", default=7.0))
    assert mended.rows["price"].tolist() == [1, 7, 7] and mended.rejects.count == 1
    scaled = one([5, 7], Numeric(name="price", transform="standard", mean=5, scale=2))
    assert scaled.rows["price"].tolist() == [0, 1]


def test_histories_keep_the_newest_and_may_be_empty():
    feature = Sequence(name="seen", of=Categorical(name="ad", rows=10), length=3)
    values = pa.array([[9, 9], [1, 2, 3, 4], [], None, [5], [11, 1], [11, 1, 2, 3]])
    done = one(values[1:], feature)
    assert done.rows["seen"].tolist() == [[2, 3, 4], [0, 0, 0], [0, 0, 0], [5, 0, 0], [1, 2, 3]]
    assert done.rows["seen/length"].tolist() == [3, 0, 0, 1, 3]
    assert faults(done) == {(4, "seen", "id outside 0..9")}
    assert done.rejects.notes["seen", "longer than 3, oldest dropped"] == 2
    assert one([[], None], feature, kind=pa.list_(pa.int64())).rows["seen/length"].tolist() == [0, 0]


def test_sequences_of_numbers_vectors_and_joined_strings():
    prices = one([[1.0, 2.0], [float("nan")], []], Sequence(name="p", of=Numeric(name="x"), length=2))
    assert prices.rows["p"].tolist() == [[1, 2], [0, 0]] and prices.rejects.count == 1
    vectors = pa.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0]], None], pa.list_(pa.list_(pa.float32())))
    done = one(vectors, Sequence(name="v", of=Dense(name="e", dim=2), length=3))
    assert done.rows["v"].shape == (2, 3, 2) and done.rows["v"][0, 1].tolist() == [3, 4]
    feature = MultiHot(name="tags", of=Categorical(name="tag", rows=50), length=3)
    joined = one(["3^4", "", None, "x^5"], feature, separator="^")
    assert joined.rows["tags"].tolist() == [[3, 4, 0], [0, 0, 0], [0, 0, 0]] and joined.rejects.count == 1


def test_targets_and_keys():
    done = one([0, 1, None, 2], Label(name="click"))
    assert done.rows["click"].tolist() == [0, 1]
    assert faults(done) == {(2, "click", "null label"), (3, "click", "label is not 0 or 1")}
    assert one([0, 3, -1], Label(name="c", type="class")).rows["c"].tolist() == [0, 3]
    assert one([1.5, -1.0], Weight(name="w")).rows["w"].tolist() == [1.5]
    assert one([7, 2**40], Group(name="u")).rejects.count == 1
    assert len(np.unique(one(["a", "b", "a"], Group(name="u", encode="hash")).rows["u"])) == 2
    day = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    for values in ([day], pa.array([day.date()]), [day.timestamp()]):
        assert one(values, Time(name="t", origin=int(day.timestamp()) - 60)).rows["t"].tolist() == [60]
    assert one([2**40], Time(name="t")).rejects.count == 1


def test_vectors_of_fixed_and_free_length():
    fixed = pa.array([[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))[1:]
    assert one(fixed, Dense(name="e", dim=2)).rows["e"].tolist() == [[1, 2], [3, 4]]
    done = one([[1.0, 2.0], [1.0], None, [float("nan"), 0.0]], Dense(name="e", dim=2))
    assert done.rows["e"].tolist() == [[1, 2]] and done.rejects.count == 3


def png(color, size=(8, 6), kind="PNG"):
    out = io.BytesIO()
    Picture.new("RGB", size, color).save(out, kind)
    return out.getvalue()


def test_images_that_do_not_decode_are_named():
    good = png((250, 10, 20))
    values = [good, good[: len(good) // 2], b"text", None, png((0, 0, 0), (80, 60), "JPEG"), png((1, 2, 3), (3, 3))]
    done = one(values, Image(name="page", height=6, width=8), kind=pa.binary())
    assert done.keep.tolist() == [0, 4, 5] and done.rows["page"].shape == (3, 6, 8, 3)
    assert done.rows["page"][0, 0, 0].tolist() == [250, 10, 20]
    assert done.rejects.counts == {("page", "image does not decode"): 2, ("page", "no image"): 1}
    done = one(values, Image(name="page", height=6, width=8, absent="black"), kind=pa.binary())
    assert done.keep.tolist() == [0, 3, 4, 5] and not done.rows["page"][1].any()
    done = one([None, None], Image(name="page", height=6, width=8, absent="black"))
    assert done.rows["page"].shape == (2, 6, 8, 3) and not done.rows["page"].any()


def test_frames_are_the_newest_and_a_clip_may_have_none():
    clip = Sequence(name="clip", of=Image(name="frame", height=2, width=2), length=2)
    a, b, c = (png((level, 0, 0)) for level in (50, 100, 150))
    broken = a[:20]
    done = one([[broken, b, c], [], None, [a], [b, broken]], clip, kind=pa.list_(pa.binary()), first_row=10)
    assert done.keep.tolist() == [0, 1, 2, 3] and done.rows["clip/length"].tolist() == [2, 0, 0, 1]
    assert done.rows["clip"][:, :, 0, 0, 0].tolist() == [[100, 150], [0, 0], [0, 0], [50, 0]]
    assert faults(done) == {(14, "clip", "a frame does not decode")}
    assert not one([None, None], clip).rows["clip/length"].any()
    with pytest.raises(UserError, match="needs encoded image bytes"):
        one([[1, 2]], clip)


@pytest.fixture
def tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[pad]": 0, "[unk]": 1, "red": 2, "shoe": 3}
    made = Tokenizer(models.WordLevel(words, unk_token="[unk]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "words.json"))
    return Vocabularies(tmp_path)


def test_titles_of_a_megabyte_are_cut_and_counted(tokenizer):
    feature = Text(name="title", tokens=4, length=3, tokenizer="words.json")
    done = one(["red shoe", None, "", "red " * 250_000, "blue"], feature, vocabularies=tokenizer)
    assert done.rows["title"].tolist() == [[2, 3, 0], [0, 0, 0], [0, 0, 0], [2, 2, 2], [1, 0, 0]]
    assert done.rows["title/length"].tolist() == [2, 0, 0, 3, 1]
    assert done.rejects.notes["title", "longer than 96 characters, cut before tokenising"] == 1
    tokens = one([[1, 2, 3, 1], [4]], Text(name="title", tokens=4, length=3))
    assert tokens.rows["title"].tolist() == [[1, 2, 3]] and tokens.rejects.count == 1


@pytest.mark.parametrize(
    ("values", "feature", "says"),
    [
        (["a"], Numeric(name="x"), "needs numbers"),
        (["a"], Label(name="x"), "needs numbers"),
        (["a"], Categorical(name="x", rows=9), "declare encode='hash'"),
        ([1], Sequence(name="x", of=Categorical(name="y", rows=9), length=2), "needs lists"),
        (["a"], Image(name="x", height=2, width=2), "image bytes"),
        (["a"], Text(name="x", tokens=9, length=2), "name a tokenizer"),
        (["a"], Time(name="x"), "timestamps"),
        (["a"], Group(name="x"), "encode='hash'"),
        ([1.0], Dense(name="x", dim=1), "lists of 1 numbers"),
    ],
)
def test_wrong_types_name_file_and_column(values, feature, says):
    with pytest.raises(UserError, match=r"f\.parquet: column 'x' is") as error:
        one(values, feature)
    assert says in str(error.value)


def test_missing_column_names_the_nearest():
    with pytest.raises(UserError, match=r"f\.parquet: no column 'clicks'; did you mean 'click'"):
        encode(pa.table({"click": [1]}), features=Features(all=(Label(name="clicks"),)), file="f.parquet")


def test_a_row_with_two_faults_counts_once_and_rejects_are_written(tmp_path):
    table = pa.table({"a": [99, 1], "y": pa.array([None, 1], pa.int64())})
    done = encode(table, features=Features(all=(Categorical(name="a", rows=9), Label(name="y"))), file="f")
    assert done.rejects.count == 1 and len(faults(done)) == 2
    done.rejects.write(tmp_path / "r" / "rejects.jsonl")
    again = Rejects.read(tmp_path / "r" / "rejects.jsonl", count=1)
    assert list(again.lines()) == list(done.rejects.lines())
    done.rejects.check(100)
    with pytest.raises(TooManyRejects, match=r"1 of 2 rows rejected .* f row 0: a: id outside 0..8 \(99\)"):
        done.rejects.check(2)


def test_no_rows():
    table = pa.table({"a": pa.array([], pa.int64()), "s": pa.array([], pa.list_(pa.int64()))})
    features = Features(
        all=(Categorical(name="a", rows=9), Sequence(name="s", of=Categorical(name="a", rows=9), length=4))
    )
    done = encode(table, features=features)
    assert done.rows["s"].shape == (0, 4) and len(done.keep) == 0
