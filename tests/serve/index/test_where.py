import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import UserError
from serve.index.attributes import Attributes, read_attributes
from serve.index.build import build
from serve.index.where import Where

TABLE = pa.table(
    {
        "category": pa.array(["shoes", "bags", None, "shoes", "hats"]).dictionary_encode(),
        "shop": pa.array([2**60 + 1, 2**60 + 2, 5, None, 5], pa.int64()),
        "price": pa.array([5.0, 20.0, 10.0, None, float("nan")]),
        "active": [True, False, True, True, None],
    }
)


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"category": ["shoes", "hats", "socks"]}, [0, 3, 4]),
        ({"category": "bags"}, [1]),
        ({"category": []}, []),
        ({"price": {"min": 5, "max": 10}}, [0, 2]),
        ({"price": {"max": 9.5}}, [0]),
        ({"price": 20}, [1]),
        ({"shop": 2**60 + 1}, [0]),
        ({"shop": {"max": 5}}, [2, 4]),
        ({"active": True}, [0, 2, 3]),
        ({"active": [False]}, [1]),
        ({"active": True, "price": {"min": 6}, "shop": [5, 6]}, [2]),
    ],
)
def test_rows_that_meet_every_condition(wanted, rows):
    attributes = Attributes.of_table(TABLE)
    assert np.flatnonzero(attributes.mask(Where.parse(wanted))).tolist() == rows
    assert attributes.table()["price"].to_pylist() == [5, 20, 10, None, None]
    assert attributes.table()["shop"].to_pylist() == TABLE["shop"].to_pylist()


def test_what_is_remembered_is_that_filter():
    attributes = Attributes.of_table(TABLE)
    for _ in range(2):
        assert attributes.mask(Where.parse({"active": True}), keep=True).sum() == 3
        with pytest.raises(UserError, match="attribute 'active' holds truth; 1 is none"):
            attributes.mask(Where.parse({"active": 1}), keep=True)
    for price in range(20):
        attributes.mask(Where.parse({"price": price}), keep=True)
    assert attributes.mask(Where.parse({"price": 5}), keep=True).sum() == 1


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ([1], "a filter is a mapping"),
        ({"price": {}}, "is not a range; give a value, a list of values"),
        ({"price": {"from": 3}}, "is not a range"),
        ({"price": {"min": 3, "max": 2}}, "range from 3 to 2 is empty"),
        ({"price": {"min": float("nan")}}, "nan is no number"),
        ({"price": {"min": "3"}}, "'3' is no number"),
        ({"price": {"min": True}}, "True is no number"),
        ({"price": None}, "None is no value"),
        ({"price": [[3]]}, r"\[3\] is no value"),
        ({"category": {"min": 3}}, "it holds text, which has no range"),
        ({"active": {"min": 0}}, "it holds truth, which has no range"),
        ({"category": 3}, "attribute 'category' holds text; 3 is none"),
        ({"price": "3"}, "attribute 'price' holds number; '3' is none"),
        ({"shop": 5.5}, "attribute 'shop' holds integer; 5.5 is none"),
        ({"colour": "red"}, "no attribute 'colour'; it has active, category, price, shop"),
    ],
)
def test_filters_that_mean_nothing_are_named(wanted, why):
    with pytest.raises(UserError, match=why):
        Attributes.of_table(TABLE).mask(Where.parse(wanted))


def test_an_index_without_attributes_says_how_to_get_them():
    with pytest.raises(UserError, match="it has none; build the index with --attributes"):
        build(np.eye(2), ids=[1, 2]).search(np.eye(2), k=1, where=Where.parse({"a": 1}))


def test_a_file_of_attributes_is_joined_by_id(tmp_path):
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"sku": ["c", "a", "x"], "price": [3, 1, 9]}), path)
    attributes, without, foreign = read_attributes(path, ids=np.array(["a", "b", "c"]), id="sku")
    assert attributes.table().to_pydict() == {"price": [1, None, 3]}
    assert (without, foreign) == (1, 1)
    for table, why in (
        (pa.table({"sku": ["a", "a"]}), "id 'a' stands twice"),
        (pa.table({"id": ["a"]}), "no column 'sku' that names the items; it has id"),
        (pa.table({"sku": [1]}), "column 'sku' is int64, the ids of the vectors are <U1"),
        (pa.table({"sku": ["a", None]}), "lacks 1 of its values"),
        (pa.table({"sku": ["a"], "tags": [["b"]]}), "attribute 'tags' is list"),
    ):
        pq.write_table(table, path)
        with pytest.raises(UserError, match=why):
            read_attributes(path, ids=np.array(["a", "b"]), id="sku")
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match="holds no attributes"):
        read_attributes(path, ids=np.array(["a"]), id="sku")
