"""`python -m data behaviours`: a log of strings in, a cleaned one and its dictionary out, the next day by the same."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq

from data.__main__ import main

NOON = datetime.datetime(2024, 5, 1, 12)


def write(path, rows):
    users, tokens = zip(*rows, strict=True)
    when = [NOON + datetime.timedelta(minutes=n) for n in range(len(rows))]
    pq.write_table(pa.table({"who": users, "when": pa.array(when, pa.timestamp("ms")), "what": tokens}), path)
    return [str(path), "--user", "who", "--time", "when", "--token", "what"]


def test_a_log_is_cleaned_and_the_next_day_by_its_dictionary(tmp_path, capsys):
    first = [(f"u{n}", "Item/1?x") for n in range(6)] + [(f"u{n}", "app/open") for n in range(20)] + [("u1", "rare")]
    given = write(tmp_path / "day1.parquet", [*first, (None, "item/1")])
    out, told = tmp_path / "clean.parquet", tmp_path / "dictionary.json"
    assert main(["behaviours", *given, "--output", str(out), "--dictionary", str(told), "--most", "0.5"]) == 0
    table = pq.read_table(out)
    assert table["user"].to_pylist() == [f"u{n}" for n in range(6)] and set(table["token"].to_pylist()) == {"item/1"}
    assert set(table["id"].to_pylist()) == {2}
    assert table["time"][0].as_py() == int(NOON.replace(tzinfo=datetime.UTC).timestamp())
    assert json.loads(told.read_text())["tokens"] == ["item/1"]
    assert "6 of 27 events, 1 tokens; 1 rows lack a value" in capsys.readouterr().out
    given = write(tmp_path / "day2.parquet", [("new", "item/1#y"), ("new", "item/2")])
    assert main(["behaviours", *given, "--output", str(out), "--known", str(told)]) == 0
    assert pq.read_table(out)["id"].to_pylist() == [2]


def test_what_is_no_log_is_refused(tmp_path, capsys):
    pq.write_table(pa.table({"user": [1], "time": [1], "token": [7]}), tmp_path / "x.parquet")
    assert main(["behaviours", str(tmp_path / "x.parquet"), "--output", str(tmp_path / "y.parquet")]) == 2
    assert "behaviours are strings" in capsys.readouterr().err
    given = write(tmp_path / "z.parquet", [("a", "b")])
    assert main(["behaviours", *given, "--output", "y", "--known", str(tmp_path / "none.json")]) == 2
    assert "no dictionary of behaviours" in capsys.readouterr().err
