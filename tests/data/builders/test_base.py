"""What every builder owes to the framework: whole or nothing, faults named, the same data twice."""

import bz2
import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data.__main__ import main
from data.builders import base
from data.errors import TooManyRejects, UserError
from data.pipeline import Loader

FRAPPE = Path(__file__).parent / "fixtures" / "frappe"
HEAD = "label,user,item,daytime,weekday,isweekend,homework,cost,weather,country,city"


@pytest.fixture
def manual(tmp_path):
    return Path(shutil.copytree(FRAPPE, tmp_path / "manual"))


def rows(count: int) -> str:
    return "\n".join([HEAD, *(f"{i % 2},{i % 7},{i % 5 + 10},40,50,60,70,80,90,100,110" for i in range(count))]) + "\n"


def build(manual, out, **options):
    return base.build("frappe", manual=manual, out=out, **{"max_rejects": 0.5} | options)


def test_missing_file_names_its_owner_and_md5(manual, tmp_path):
    (manual / "test.csv").unlink()
    with pytest.raises(UserError, match=r"test\.csv: no such file .* Frappe_x1 page.*--config x1_without_test"):
        build(manual, tmp_path / "out")
    (manual / "valid.csv").unlink()
    with pytest.raises(UserError, match=r"valid\.csv.*md5 88d51bf2"):
        build(manual, tmp_path / "out", config="x1_without_test")
    with pytest.raises(UserError, match="no files there; get them from"):
        build(tmp_path / "nowhere", tmp_path / "out")


def test_blocks_give_back_every_row_in_order_and_feed_the_loader(manual, tmp_path):
    (manual / "train.csv").write_text(rows(2500))
    path = build(manual, tmp_path / "out")
    source = base.Built(path=str(path), split="train").make()
    assert len(source) == 2500
    assert np.array_equal(source.columns["label"], np.arange(2500) % 2)
    batch = next(Loader(batch_size=64).open(source))
    assert batch["user"].shape == (64,) and batch["user"].min() >= 2
    last = base.Built(path=str(path), split="train[-1:]").make()
    assert len(last) == 2500 - 2048


def test_too_many_malformed_rows_leave_nothing(manual, tmp_path):
    with pytest.raises(TooManyRejects, match=r"train\.csv row 3: line: 5 fields, expected 11"):
        build(manual, tmp_path / "out", max_rejects=0.01)
    assert not list((tmp_path / "out").rglob("dataset_info.json"))
    assert main(["build", "frappe", "--manual", str(manual), "--out", str(tmp_path / "out")]) == 3


def test_rows_are_named_by_their_place_in_the_file(manual, tmp_path):
    lines = rows(10).splitlines()
    lines[4], lines[7], lines[9] = "1,2", lines[7].replace("60", "sixty"), "2" + lines[9][1:]
    (manual / "train.csv").write_text("\n".join(lines) + "\n")
    path = build(manual, tmp_path / "out")
    found = [line.split('"row": ')[1].split(",")[0] for line in (path / "rejects.jsonl").read_text().splitlines()]
    assert found == ["3", "6", "8"]


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: f.write_text(rows(9).replace(",", ";")), r"no ','; it has 10 ';'"),
        (lambda f: f.write_text(rows(9).replace("daytime", "daytme")), "did you mean 'daytme'"),
        (lambda f: f.write_text(HEAD + "\n"), "has no rows"),
    ],
)
def test_files_of_another_form(manual, tmp_path, break_it, says):
    break_it(manual / "train.csv")
    with pytest.raises(UserError, match=says):
        build(manual, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("dataset_info.json"))


def test_gzip_whole_and_truncated(manual, tmp_path):
    plain = build(manual, tmp_path / "plain")
    packed = gzip.compress((manual / "train.csv").read_bytes())
    (manual / "train.csv").unlink()
    (manual / "train.csv.gz").write_bytes(packed)
    assert base.metadata(build(manual, tmp_path / "packed"))["statistics"] == base.metadata(plain)["statistics"]
    (manual / "train.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"train\.csv\.gz: broken after"):
        build(manual, tmp_path / "half")
    assert not list((tmp_path / "half").rglob("dataset_info.json"))


def test_bzip2_whole_and_damaged(manual, tmp_path):
    packed = bz2.compress((manual / "train.csv").read_bytes())
    (manual / "train.csv").unlink()
    (manual / "train.csv.bz2").write_bytes(packed)
    assert base.metadata(build(manual, tmp_path / "packed"))["statistics"]["splits"]["train"]["rows"] == 4
    (manual / "train.csv.bz2").write_bytes(packed[:10] + b"xx" + packed[12:])
    with pytest.raises(UserError, match=r"train\.csv\.bz2: broken after"):
        build(manual, tmp_path / "broken")


def test_bytes_that_are_no_text_are_named(manual, tmp_path):
    (manual / "train.csv").write_bytes(rows(300).encode() + b"1,\xff\xfe,10,40,50,60,70,80,90,100,110\n")
    found = base.metadata(build(manual, tmp_path / "out", max_rejects=0.01))
    assert found["rejected"]["why"] == ["rejected: line: not UTF-8: 1 rows"]


def test_split_hash_follows_the_content(manual, tmp_path):
    first = base.metadata(build(manual, tmp_path / "a"))["statistics"]
    again = base.metadata(build(manual, tmp_path / "b"))["statistics"]
    assert first == again
    text = (manual / "test.csv").read_text()
    (manual / "test.csv").write_text(text.replace("1,3,23", "1,3,22"))
    other = base.metadata(build(manual, tmp_path / "c"))["statistics"]
    assert other["hash"] != first["hash"] and other["splits"]["train"] == first["splits"]["train"]
    assert other["splits"]["test"]["hash"] != first["splits"]["test"]["hash"]


def test_a_second_build_leaves_the_first(manual, tmp_path):
    path = build(manual, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert build(manual, tmp_path / "out") == path
    assert before == {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    (manual / "train.csv").write_text(rows(30))
    with pytest.raises(UserError, match=r"was built from another train\.csv .*remove it"):
        build(manual, tmp_path / "out")


def test_a_killed_build_leaves_nothing_and_the_next_one_a_whole(manual, tmp_path):
    (manual / "train.csv").write_text(rows(400_000))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data", "build", "frappe", "--manual", str(manual), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.rglob("incomplete.*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(out.rglob("incomplete.*")) and not list(out.rglob("dataset_info.json"))
    (manual / "train.csv").write_text(rows(1500))
    path = build(manual, out)
    assert len(base.Built(path=str(path), split="train").make()) == 1500
    assert not list(out.rglob("incomplete.*"))


def test_commands(manual, tmp_path, capsys):
    arguments = ["build", "frappe", "--manual", str(manual), "--out", str(tmp_path / "out"), "--max-rejects", "0.5"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "train                          4           2" in printed and "density" in printed and "id order" in printed
    assert main(["build", "--list"]) == 0
    assert "frappe (x1, x1_without_test)" in capsys.readouterr().out
    assert main([*arguments, "--config", "x9"]) == 2
    assert main(["build", "frape", "--manual", str(manual), "--out", str(tmp_path)]) == 2
    assert "did you mean 'frappe'" in capsys.readouterr().err
