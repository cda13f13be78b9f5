"""Lines are the same Parquet however they are cut and whoever parses them. Faults by kind: tests/data/test_csv.py."""

import bz2
import functools
import pickle
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from data import convert as module
from data.__main__ import main
from data.convert import convert, spans_of
from data.errors import TooManyRejects, UserError
from tests.data.building.test_apart import Cut, Here

LINES = [b"id,price,title", *(b"%d,%d.5,shoe %d" % (i, i, i) for i in range(120))]
LINES[7] = b"6,5.5"
LINES[50] = b"x,1.0,caf"
LINES[51] = b"50,1.0,caf\xe9"
LINES[90] = b"3,1.5,again"
LINES[99] = b"98,1.5," + b"long " * 60


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "in" / "a.csv"
    path.parent.mkdir()
    path.write_bytes(b"\n".join(LINES))  # the last line does not end
    return path


def run(csv, target, **options):
    return convert(csv, target=target, key="id", span=200, **{"max_rejects": 0.5, **options})


@pytest.mark.parametrize("size", [1, 7, 64, 200, 100_000])
def test_each_line_is_in_one_span_wherever_it_is_cut(csv, size):
    spans = list(spans_of(csv, size=size))
    assert b"".join(spans).split(b"\n") == LINES[1:]
    assert all(span.endswith(b"\n") for span in [s for s in spans if s][:-1])
    count = module._count(csv, size)
    assert [module._span(csv, number=n, size=size) for n in range(count)] == (spans + count * [b""])[:count]
    assert not any(spans[count:])


def test_the_workers_bytes_and_rejects_are_those_of_one_process(csv, tmp_path):
    here, there = (run(csv, tmp_path / name, cluster=c) for name, c in (("a", None), ("b", Here())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(here.lines()) == list(there.lines()) and here.count == there.count == 4
    assert [(fault["row"], fault["field"], fault["why"]) for fault in here.lines()] == [
        (6, "line", "2 fields, expected 3"),
        (49, "id", "no int64"),
        (50, "line", "not UTF-8"),
        (89, "id", "seen before"),
    ]
    table = pq.read_table(tmp_path / "a")
    assert np.array_equal(table["id"], np.delete(np.arange(120), [6, 49, 50, 89]))
    assert pq.read_metadata(tmp_path / "a").num_row_groups > 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "in"]


def test_a_faulty_row_does_not_take_the_key_from_a_good_one(tmp_path):
    (tmp_path / "a.csv").write_text("id,price\n" + "".join(f"{i},{i}\n" for i in range(200)) + "500,dear\n500,5\n")
    rejects = convert(tmp_path / "a.csv", target=tmp_path / "a.parquet", key="id", max_rejects=0.1)
    assert rejects.counts == {("price", "no int64"): 1}
    assert pq.read_table(tmp_path / "a.parquet")["id"][-1].as_py() == 500


def test_a_killed_run_goes_on_and_another_file_begins_anew(csv, tmp_path, monkeypatch):
    run(csv, tmp_path / "whole")
    target, done, worker = tmp_path / "b", [], module._worker
    with pytest.raises(KeyboardInterrupt):
        run(csv, target, cluster=Cut())
    assert not target.exists()
    monkeypatch.setattr(pickle, "dumps", lambda value: value)
    monkeypatch.setattr(pickle, "loads", lambda value: value)

    def counted(*given, **named):
        return lambda piece: done.append(piece) or worker(*given, **named)(piece)

    monkeypatch.setattr(module, "_worker", functools.wraps(worker)(counted))
    run(csv, target, cluster=Here())
    assert len(done) == module._count(csv, 200) - 1
    assert target.read_bytes() == (tmp_path / "whole").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(csv, target, cluster=Cut())
    csv.write_bytes(csv.read_bytes() + b"\n999,1.5,late\n")
    run(csv, target, cluster=Here())
    assert pq.read_table(target)["id"][-1].as_py() == 999


def test_what_the_workers_cannot_do_is_said(csv, tmp_path):
    packed = tmp_path / "a.csv.bz2"
    packed.write_bytes(bz2.compress(csv.read_bytes()))
    with pytest.raises(UserError, match=r"a\.csv\.bz2 is packed .* unpack it, or leave --engine out"):
        run(packed, tmp_path / "b", cluster=Here())
    run(packed, tmp_path / "packed")
    run(csv, tmp_path / "plain")
    assert pq.read_table(tmp_path / "packed").equals(pq.read_table(tmp_path / "plain"))
    with pytest.raises(TooManyRejects, match="4 of 120 rows rejected"):
        run(csv, tmp_path / "b", cluster=Here(), max_rejects=0.01)
    assert not (tmp_path / "b").exists()
    (tmp_path / "none.csv").write_text("id,price\n")
    with pytest.raises(UserError, match="no rows"):
        run(tmp_path / "none.csv", tmp_path / "b", cluster=Here())


@pytest.mark.parametrize("command", [["convert", "a.csv", "b"], ["stats", "a"], ["build", "frappe"]])
def test_every_command_that_prepares_data_takes_the_engine(command, capsys):
    assert main([*command, "--workers", "2"]) == 2
    assert "--workers is of a cluster; go with --engine ray" in capsys.readouterr().err


def test_the_mall_is_drawn_by_one_process(capsys):
    assert main(["build", "mall", "--folder", "x", "--engine", "ray"]) == 2
    assert "the mall is drawn by one process; leave --engine out" in capsys.readouterr().err


def test_a_second_command_for_the_same_target_is_told_to_wait(csv, tmp_path):
    class Busy(Here):
        def map(self, make, *, pieces):
            run(csv, tmp_path / "b", cluster=Here())
            yield from ()

    with pytest.raises(UserError, match=r"another process works in .*: wait for it"):
        run(csv, tmp_path / "b", cluster=Busy())
    shutil.rmtree(tmp_path / "b.parts")
