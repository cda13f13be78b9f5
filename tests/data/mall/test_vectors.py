"""Files of item vectors: read by id, and refused by name where they do not fit."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import UserError
from data.mall.vectors import read_vectors

ROWS = 22  # 20 items
IDS = np.arange(2, ROWS)
VECTORS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def npz(folder, **arrays) -> str:
    path = folder / "v.npz"
    np.savez(path, **{"id": IDS, "vector": VECTORS, **arrays})
    return str(path)


def parquet(folder, **columns) -> str:
    path = folder / "v.parquet"
    pq.write_table(pa.table({"id": IDS, "vector": list(VECTORS), **columns}), path)
    return str(path)


@pytest.mark.parametrize("write", [npz, parquet])
def test_rows_are_ids_and_a_few_items_may_lack_a_vector(write, tmp_path):
    order = np.random.default_rng(1).permutation(20)[:18]
    out = read_vectors(write(tmp_path, id=IDS, vector=list(VECTORS)), rows=ROWS)
    np.testing.assert_array_equal(out[2:], VECTORS)
    assert not out[:2].any() and out.dtype == np.float32
    some = tmp_path / "some.npz"
    np.savez(some, id=IDS[order], vector=VECTORS[order])
    out = read_vectors(str(some), rows=ROWS)
    np.testing.assert_array_equal(out[IDS[order]], VECTORS[order])
    assert np.flatnonzero(~out.any(axis=1)).tolist() == sorted({0, 1, *np.setdiff1d(IDS, IDS[order])})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"id": IDS[:17], "vector": VECTORS[:17]}, r"3 ids \(19, 20, 21\) of 20 without a vector"),
        ({"id": IDS[:9], "vector": VECTORS[:9]}, r"11 ids \(11, 12, 13, 14, 15, \.\.\.\) of 20 without"),
        ({"id": IDS + 5}, "ids 7 to 26, but this mall has 22 rows"),
        ({"id": IDS - 3}, "ids -1 to 18"),
        ({"id": np.where(IDS == 9, 4, IDS)}, r"1 ids \(4\) more than once"),
        ({"id": IDS[:7]}, r"ids of shape \(7,\) and vectors of shape \(20, 3\)"),
        ({"vector": VECTORS[:, 0]}, r"vectors of shape \(20,\)"),
        ({"id": IDS[:0], "vector": VECTORS[:0]}, r"ids of shape \(0,\)"),
        ({"id": IDS.astype(str)}, "named by the integer ids"),
        ({"vector": np.where(IDS[:, None] == 6, np.nan, VECTORS)}, r"1 ids \(6\) with a vector that is not finite"),
    ],
)
def test_what_does_not_fit_is_counted_and_named(arrays, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_vectors(npz(tmp_path, **arrays), rows=ROWS)


def test_files_of_another_form_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file of item vectors"):
        read_vectors(str(tmp_path / "absent.npz"), rows=ROWS)
    other = tmp_path / "other.npz"
    np.savez(other, ids=IDS, vector=VECTORS)
    with pytest.raises(UserError, match=r"no array \['id'\]"):
        read_vectors(str(other), rows=ROWS)
    with pytest.raises(UserError, match="vectors of 2, 3 numbers"):
        read_vectors(parquet(tmp_path, vector=[[1.0, 2.0], *map(list, VECTORS[1:])]), rows=ROWS)
    pq.write_table(pa.table({"item": IDS}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"no column \['id', 'vector'\]"):
        read_vectors(str(tmp_path / "other.parquet"), rows=ROWS)
