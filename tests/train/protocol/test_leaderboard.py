"""The table holds what the runs found beside what the literature has, and its plot is a file that stands alone."""

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from data.errors import UserError
from train.protocol.chart import Line, Panel, Point, draw
from train.protocol.leaderboard import Leaderboard, Row

SVG = "{http://www.w3.org/2000/svg}"


def results(folder, auc, *, sd=0.001, speed=123456.7, possible=None):
    mean = {
        "valid/auc": auc, "valid/logloss": 0.3, "model/parameters": 1234, "train/seconds_per_epoch": 2.5,
        "train/epochs": 7.0, "train/rows_per_second": speed, "score/rows_per_second": 4 * speed,
    }  # fmt: skip
    if possible is not None:
        mean["valid/auc/possible"] = possible
    folder.mkdir()
    value = {"overrides": {"a.b": 1}, "trials": 6, "mean": mean, "sd": dict.fromkeys(mean, sd), "runs": [{}, {}, {}]}
    (folder / "results.json").write_text(json.dumps(value))
    return str(folder)


def run(tmp_path, **fields):
    out = tmp_path / "out"
    out.mkdir()
    said = []
    rows = {
        "LR": Row(of=results(tmp_path / "lr", 0.93, speed=4e5, possible=0.99)),
        "DNN": Row(of=results(tmp_path / "dnn", 0.985), anchor=0.984, paper=".9833"),
    }
    figures = Leaderboard(title="Frappe", rows=rows, **fields).run(out=out, say=said.append)
    return out, figures, said


def test_table_of_figures_anchors_and_costs(tmp_path):
    out, figures, said = run(tmp_path, anchor="zoo")
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0] == "Frappe"
    head, lr, dnn = (re.split(r" ?\| ?", line)[1:-1] for line in (lines[2], *lines[4:]))
    by = dict(zip(head, dnn, strict=True))
    assert by["valid/auc"] == "0.98500 ± 0.00100"
    assert by["zoo"] == "0.98400 (+0.00100)"
    assert (by["paper"], by["setting"], by["trials"], by["seeds"]) == (".9833", "a.b=1", "6", "3")
    assert (by["parameters"], by["s/epoch"], by["train rows/s"], by["score rows/s"]) == ("1,234", "2.5", "123k", "494k")
    assert dict(zip(head, lr, strict=True))["zoo"] == ""
    assert said[1:] == lines[2:]
    stored = json.loads((out / "results.json").read_text())
    assert stored["rows"]["DNN"]["anchor"] == 0.984
    assert figures["DNN/valid/auc"] == stored["rows"]["DNN"]["mean"]["valid/auc"] == 0.985
    page = (out / "leaderboard.html").read_text()
    assert "0.98400 (+0.00100)" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_the_plot_stands_alone_and_draws_the_line_of_what_is_possible(tmp_path):
    out, *_ = run(tmp_path, line="valid/auc/possible")
    figure = ElementTree.parse(out / "chart.svg").getroot()
    texts = [t.text for t in figure.iter(f"{SVG}text")]
    for name in ("Training", "Scoring", "LR", "DNN", "Bayes-optimal 0.9900"):
        assert name in texts, name


def test_rates_of_a_speed_stage_stand_for_those_of_the_runs(tmp_path):
    rates = tmp_path / "dnn.json"
    rates.write_text(json.dumps({"train/rows_per_second": 2.5e5 + 0.5, "score/rows_per_second": 1.5e6}))
    (tmp_path / "out").mkdir()
    rows = {"DNN": Row(of=results(tmp_path / "dnn", 0.985), speed=str(rates))}
    figures = Leaderboard(title="t", rows=rows).run(out=tmp_path / "out", say=lambda line: None)
    assert figures["DNN/train/rows_per_second"] == 2.5e5 + 0.5
    assert "| 250k | 1.5M |" in (tmp_path / "out/table.md").read_text()


def test_the_share_of_the_way_from_a_base_to_the_line(tmp_path):
    out, *_ = run(tmp_path, line="valid/auc/possible", base="LR")
    head, lr, dnn = (
        line.split(" | ") for line in (out / "table.md").read_text().splitlines()[2:6] if "---" not in line
    )
    column = head.index("of the way to Bayes-optimal")
    assert (lr[column], dnn[column]) == ("0.0%", "91.7%")  # .93, .985 and .99
    with pytest.raises(ValueError, match="name the figure of the line too"):
        Leaderboard(title="t", rows={}, base="LR")
    board = Leaderboard(title="t", rows={"A": Row(of="@a"), "B": Row(of="@b")}, line="valid/auc/possible", base="A")
    assert board.among({"b"}).base is None


def test_a_figure_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match="row 'LR' has no figure 'valid/gauc'; it has model/parameters"):
        run(tmp_path, also=("valid/gauc",))
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match="no row has the figure 'valid/best'"):
        run(other, line="valid/best")


def test_rows_of_stages_that_do_not_run_are_left_out():
    board = Leaderboard(title="t", rows={"A": Row(of="@a"), "B": Row(of="@b")})
    assert set(board.among({"b", "c"}).rows) == {"B"}
    assert board.among({"c"}) is None


def circles(figure):
    panel = figure.find(f"{SVG}g")
    return {
        c.find(f"{SVG}title").text.split(":")[0]: (float(c.get("cx")), float(c.get("cy")))
        for c in panel.iter(f"{SVG}circle")
    }


def test_faster_stands_right_better_stands_high_and_labels_stand_apart():
    points = [
        Point("slow", 1e3, 0.98),
        Point("fast", 1e5, 0.9801),
        Point("middle", 1e4, 0.9802),
        Point("bad", 1e4, 0.9),
    ]
    figure = ElementTree.fromstring(draw([Panel("p", points, "rows/s", "auc", line=Line("best", 0.99))]))
    at = circles(figure)
    assert at["slow"][0] < at["middle"][0] < at["fast"][0]
    assert at["middle"][0] - at["slow"][0] == pytest.approx(at["fast"][0] - at["middle"][0], abs=0.2)
    assert at["bad"][1] > at["slow"][1] > at["fast"][1] > at["middle"][1]
    names = {t.text: float(t.get("y")) for t in figure.iter(f"{SVG}text") if t.get("class") == "name"}
    heights = sorted(names.values())
    assert min(b - a for a, b in pairwise(heights)) >= 14.9
    assert names["middle"] < names["fast"] < names["slow"] < names["bad"]


def test_equal_steps_of_what_a_figure_lacks_are_equal_heights():
    points = [Point(str(y), 10.0, y) for y in (0.9, 0.95, 0.975)]
    at = circles(ElementTree.fromstring(draw([Panel("p", points, "x", "y")])))
    assert at["0.9"][1] - at["0.95"][1] == pytest.approx(at["0.95"][1] - at["0.975"][1], abs=0.2)
