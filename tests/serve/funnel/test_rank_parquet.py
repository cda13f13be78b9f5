import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import TooManyRejects
from data.features import FIRST
from data.mall.serving import MallRequests
from serve.__main__ import main
from serve.features.store import StoreDown
from serve.funnel import Request
from serve.rank_parquet import rank_parquet
from tests.serve.funnel.conftest import MALL

REQUESTS = MallRequests(mall=MALL, split="test", history=50, most=9).make()
NAMES = [f"r{n}" for n in range(len(REQUESTS))]


@pytest.fixture
def asked(tmp_path):
    """The requests in a file, changed as the test wants."""

    def write(**columns):
        table = REQUESTS.append_column("name", pa.array(NAMES))
        for name, values in columns.items():
            at = table.column_names.index(name) if name in table.column_names else None
            table = table.append_column(name, values) if at is None else table.set_column(at, name, values)
        pq.write_table(table, tmp_path / "requests.parquet", row_group_size=4)
        return tmp_path / "requests.parquet"

    return write


def test_a_file_is_answered_as_its_requests_one_by_one(funnel, asked, tmp_path):
    done = rank_parquet(funnel, requests=asked(), output=tmp_path / "y.parquet", id="name", explain=True, threads=3)
    rows = pq.read_table(tmp_path / "y.parquet").to_pylist()
    assert list(dict.fromkeys(row["request"] for row in rows)) == NAMES
    for name, user in zip(NAMES, REQUESTS.to_pylist(), strict=True):
        answer = funnel.answer(Request(user, explain=True))
        mine = [row for row in rows if row["request"] == name]
        assert [row["id"] for row in mine] == [r.id for r in (*answer.items, *answer.dropped)]
        assert [row["place"] for row in mine] == [*range(len(answer.items)), *([None] * len(answer.dropped))]
        for row, ranked in zip(mine, (*answer.items, *answer.dropped), strict=True):
            scores = {n: row[n] for n in ("retrieve", "rank", "calibrate", "ecpm", "price") if row[n] is not None}
            assert (scores, row["why"]) == (ranked.scores, ranked.why)
            assert dict(zip(row["channels"], row["ranks"], strict=True)) == {
                n: s.rank for n, s in ranked.sources.items()
            }
    assert (done.requests, done.rejected, done.rejects) == (9, 0, None)
    assert done.items == sum(row["place"] is not None for row in rows) == 90
    assert sorted(p.name for p in tmp_path.iterdir()) == ["requests.parquet", "y.parquet"]


def test_columns_say_what_belongs_to_the_request(funnel, asked, tmp_path):
    candidates = pa.array([[FIRST + 3, FIRST + 7]] + [None] * 8, pa.list_(pa.int64()))
    path = asked(candidates=candidates, k=pa.array([None, 2, *[1] * 7], pa.int64()))
    skip = frozenset(("auction", "diversity"))
    rank_parquet(funnel, requests=path, output=tmp_path / "y.parquet", k=4, skip=skip, where={"arrival": {"min": 0}})
    rows = pq.read_table(tmp_path / "y.parquet").to_pylist()
    assert {row["id"] for row in rows if row["request"] == 0} == {FIRST + 3, FIRST + 7}
    assert [sum(row["request"] == n for row in rows) for n in range(9)] == [2, 2, *[1] * 7]
    assert {row["price"] for row in rows} == {None}


def test_a_request_that_cannot_be_answered_is_named_and_too_many_stop_it(funnel, asked, tmp_path, capsys):
    user = REQUESTS["user"].to_pylist()
    user[5] = 10_000_000
    path, y = asked(user=pa.array(user)), tmp_path / "y.parquet"
    with pytest.raises(TooManyRejects, match=r"requests\.parquet row 5: request: user\.user: id outside"):
        rank_parquet(funnel, requests=path, output=y)
    assert not y.exists()
    done = rank_parquet(funnel, requests=path, output=y, max_rejects=0.2)
    assert (done.rejected, done.requests) == (1, 9)
    (line,) = map(json.loads, done.rejects.read_text().splitlines())
    assert line["row"] == 5
    assert set(pq.read_table(y)["request"].to_pylist()) == set(range(9)) - {5}
    args = ["rank", str(funnel.folder), "--requests", str(path), "--output", str(tmp_path / "z.parquet")]
    assert main(args) == 3
    assert "1 of 9 rows rejected so far" in capsys.readouterr().err
    assert main([*args, "--max-rejects", "0.2", "--where", '{"category": [2, 3]}', "--id", "name", "--explain"]) == 0
    assert "items for 9 requests" in (out := capsys.readouterr().out)
    assert "1 requests could not be answered" in out
    assert main([*args, "--id", "nam"]) == 2
    assert "did you mean 'name'?" in capsys.readouterr().err


def test_a_store_that_is_down_stops_the_run(funnel, asked, tmp_path, monkeypatch):
    def down(*_, **__):
        raise StoreDown("the feature store redis://x cannot be reached: gone")

    monkeypatch.setattr(funnel.ranker, "look_up", down)
    with pytest.raises(StoreDown):
        rank_parquet(funnel, requests=asked(), output=tmp_path / "y.parquet", max_rejects=1.0)
    assert not (tmp_path / "y.parquet").exists()
