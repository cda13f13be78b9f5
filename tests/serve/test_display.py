"""What people are shown: from which columns, which pictures, and what is refused when a funnel is opened."""

import json

import pyarrow as pa
import pytest

from data.errors import UserError
from serve.display import Showcase, media_type
from serve.features.arrow_store import build
from serve.funnel_config import Display

IDS = ["a", "b/c", "d"]


@pytest.fixture
def store(tmp_path):
    table = pa.table(
        {
            "sku": IDS,
            "name": ["one", None, "three"],
            "image": [b"\x89PNG\r\n\x1a\nx", None, b""],
            "price": [1.5, float("nan"), None],
            "new": [True, False, None],
            "stock": [3, 0, None],
            "sizes": [[1, 2], [], None],
        }
    )
    return build(table, id="sku", output=tmp_path / "store")


def showcase(store, tmp_path, **config):
    return Showcase(Display(**config), folder=tmp_path, store=store, features=store)


def test_titles_and_columns_as_json_takes_them(store, tmp_path):
    shown = showcase(store, tmp_path, title="name", columns=("price", "new", "sizes"))
    found = shown.of(["d", "a", "nothing", "b/c"])
    assert found == [
        {"title": "three", "price": None, "new": None, "sizes": None},
        {"title": "one", "price": 1.5, "new": True, "sizes": "[1, 2]"},
        {"title": None, "price": None, "new": None, "sizes": None},
        {"title": None, "price": None, "new": False, "sizes": "[]"},
    ]
    json.dumps(found, allow_nan=False)


def test_pictures_by_ids_of_any_text(store, tmp_path):
    shown = showcase(store, tmp_path, image="image")
    assert shown.image("a").endswith(b"x")
    assert shown.image("b/c") == shown.image("d") == b"" and shown.image("nothing") is None
    without = showcase(store, tmp_path)
    assert without.image("a") == b"" and without.image("nothing") is None


def test_filters_by_kind(store, tmp_path):
    shown = showcase(store, tmp_path, filters=("price", "new", "stock", "name"))
    assert [one["kind"] for one in shown.filters()] == ["number", "truth", "integer", "text"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"title": "nam"}, "displays 'nam', which the store does not have"),
        ({"columns": ("cost",)}, "displays 'cost'"),
        ({"filters": ("cost",)}, "displays 'cost'"),
        ({"title": "price"}, "'price' is double, it should hold text"),
        ({"image": "name"}, "'name' is string, it should hold the bytes of pictures"),
    ],
)
def test_what_the_store_does_not_have_is_named(store, tmp_path, config, reason):
    with pytest.raises(UserError, match=reason):
        showcase(store, tmp_path, **config)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [({"user": 1}, "it is a list"), ([1], "it is a list"), ([{"age": 1}, {"agee": 2}], "reads the field 'agee'")],
)
def test_examples_that_no_request_could_be_are_told(store, tmp_path, stored, reason):
    (tmp_path / "examples.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=reason):
        showcase(store, tmp_path).read_examples(tmp_path, fields={"age"})


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n..", "image/png"),
        (b"\xff\xd8\xff\xe0..", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"<svg xmlns=''>", None),
        (b"<!doctype html>", None),
    ],
)
def test_a_picture_s_type_is_what_its_bytes_say(start, kind):
    assert media_type(start) == kind
