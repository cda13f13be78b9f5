import gzip

import pyarrow.parquet as pq
import pytest

from data.convert import convert
from data.errors import TooManyRejects, UserError

GOOD = "id,price,title\n" + "".join(f"{i},{i}.5,shoe {i}\n" for i in range(300))


def test_types_and_rows(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD + "7,,\n")
    rejects = convert(tmp_path / "a.csv", target=tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "string"]
    assert table.num_rows == 301 and rejects.count == 0 and table["price"][2].as_py() == 2.5
    assert table["title"][300].as_py() is None


def test_each_kind_of_bad_line_is_counted_and_named(tmp_path):
    lines = GOOD.encode() + b"1,2\n" + b"9,1.0,caf\xe9\n" + b"x9,1.0,shoe\n" + "7,3.5,ünï\n".encode()
    (tmp_path / "a.csv").write_bytes(lines)
    rejects = convert(tmp_path / "a.csv", target=tmp_path / "a.parquet", key="id", max_rejects=0.1)
    assert rejects.counts == {
        ("line", "2 fields, expected 3"): 1,
        ("line", "not UTF-8"): 1,
        ("id", "no int64"): 1,
        ("id", "seen before"): 1,
    }
    assert rejects.count == 4 and pq.read_metadata(tmp_path / "a.parquet").num_rows == 300
    assert any("id: no int64 (x9)" in line for line in rejects.first())
    with pytest.raises(TooManyRejects, match="4 of 304 rows rejected"):
        convert(tmp_path / "a.csv", target=tmp_path / "b.parquet", key="id")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv", "a.parquet"]


def test_truncated_gzip_leaves_nothing(tmp_path):
    whole = gzip.compress((GOOD * 50).encode())
    (tmp_path / "a.csv.gz").write_bytes(whole)
    with pytest.raises(TooManyRejects):
        convert(tmp_path / "a.csv.gz", target=tmp_path / "a.parquet", max_rejects=0.0)
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.csv\.gz: broken after"):
        convert(tmp_path / "a.csv.gz", target=tmp_path / "a.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv.gz"]


def test_wrong_delimiter_is_named(tmp_path):
    (tmp_path / "a.csv").write_text(GOOD.replace(",", "\t"))
    with pytest.raises(UserError, match=r"no ',' but 2 '\\t'"):
        convert(tmp_path / "a.csv", target=tmp_path / "a.parquet")
    assert convert(tmp_path / "a.csv", target=tmp_path / "a.parquet", delimiter="\t").count == 0


def test_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("id,price\n")
    with pytest.raises(UserError, match="no rows"):
        convert(tmp_path / "a.csv", target=tmp_path / "a.parquet")
