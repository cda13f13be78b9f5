"""The report: complete, self-contained, safe for any name, and made again from a workdir alone."""

import json
import re
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from train.evaluators import save_curves
from train.log import Logger, Logging
from train.metrics.auc import AUC, PRAUC
from train.metrics.calibration import ECE
from train.report import Section, write_pipeline_report, write_report
from train.report_charts import Chart, Series, draw, number, thin, ticks

CONFIG = {
    "$type": "train.experiment:Experiment",
    "model": {"$type": "modules.ctr.dnn:DNN", "hidden": [64, 32], "note": "<script>alert(1)</script>"},
    "source": {"$type": "data.mall.sources:MallClicks"},
    "steps": 40,
    "evals": {"valid": {"$type": "train.evaluators:Evaluate", "slices": {"cold": {"feature": "is_cold"}}}},
}
VOID = {"meta", "path", "rect", "circle", "br"}


class Page(HTMLParser):
    """Checks that tags close in order and collects text and what a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.links, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def make_run(workdir, *, evaluations=(20, 40)):
    workdir.mkdir(exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(CONFIG))
    log = Logger(workdir, config=Logging(every=10, progress="none"), steps=40, batch_size=8)
    rng = np.random.default_rng(0)
    predictions = {"score": rng.random(200)}
    batch = {"click": (rng.random(200) < predictions["score"]).astype(np.float32)}
    curves = {}
    for metric in (AUC(), PRAUC(), ECE()):
        accumulator = metric.make()
        accumulator.update(predictions, batch)
        curves |= accumulator.curves()
    for step in range(1, 41):
        log.train(step, {"loss": jnp.float32(1 / step), "norm": jnp.float32(1.0)}, waited=0.0)
        if step in evaluations:
            values = {
                "valid/auc": 0.8 if step == 20 else 0.75,
                "valid/logloss": 1 / step,
                "valid/cold/auc": float("nan"),
            }
            log.evaluation(step, values, reasons={"valid/cold/auc": "no row was seen"})
    save_curves(workdir, name="valid", curves={**curves, **{f"cold/{n}": c for n, c in curves.items()}})
    log.flush()
    log.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "dnn"
    make_run(workdir)
    return workdir


def test_a_run_is_shown_whole(run):
    path = write_report(run)
    assert path == run / "report.html"
    found = Page(path.read_text())
    text = "\n".join(found.text)
    for part in ("DNN · MallClicks", "40 of 40 steps", "valid · cold", "no row was seen", "best 0.8 at 20", "jaxlib"):
        assert part in text, part
    for chart in (
        "ROC, valid: auc",
        "Precision and recall, valid: pr_auc",
        "Reliability, valid: ece",
        "loss",
        "rows_per_s",
    ):
        assert chart in found.text, chart
    assert "model.hidden=" in text and "64,32" in text


def test_the_page_fetches_nothing_and_runs_nothing_of_the_config(run):
    text = write_report(run).read_text()
    found = Page(text)
    assert found.links == [] and "url(" not in text and "@import" not in text
    assert found.tags.count("script") == 1 and "&lt;script&gt;alert(1)" in text
    assert "default-src 'none'" in text
    assert not re.findall(r"https?://(?!www\.w3\.org)", text)


def test_the_best_is_the_lowest_loss_and_the_highest_auc(run):
    text = write_report(run).read_text()
    logloss = re.search(r"<td>logloss</td><td>(.*?)</td>", text).group(1)
    assert logloss == "0.025"  # the last is the best: nothing to add


def test_a_run_that_has_just_begun_or_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    Page(write_report(tmp_path).read_text())
    with pytest.raises(UserError, match="not a workdir"):
        write_report(tmp_path / "nothing")


def test_a_pipeline_shows_gains_stages_and_runs(tmp_path):
    make_run(tmp_path / "base-1")
    (tmp_path / "gain-2").mkdir()
    figures = {"ids/test/auc": 0.7, "content/test/auc": 0.75, "ids/test/logloss": 0.4, "content/test/logloss": 0.5}
    stages = [
        {"name": "base", "kind": "Train", "status": "ran", "folder": "base-1", "seconds": 1.25, "results": {"a": 1.0}},
        {
            "name": "gain",
            "kind": "Compare",
            "status": "skipped",
            "folder": "gain-2",
            "seconds": 0.1,
            "results": figures,
        },
    ]
    compare = {"title": "What content buys", "rows": {"ids": "@base", "content": "@base"}}
    compare["metrics"] = ["test/auc", "test/logloss"]
    (tmp_path / "stages.json").write_text(json.dumps(stages))
    (tmp_path / "config.json").write_text(json.dumps({"stages": {"gain": compare}}))
    text = write_pipeline_report(tmp_path, sections=[Section("Scores", head=("a", "b"), rows=[("x", "y")])]).read_text()
    found = Page(text)
    for part in (
        "What content buys",
        "Scores",
        "Stages",
        "skipped",
        "1.2",
        "base: DNN · MallClicks",
        "ROC, valid: auc",
    ):
        assert part in found.text, part
    assert '<td class="good">+0.0500</td>' in text  # a higher AUC is better
    assert "<td>+0.1000</td>" in text  # a higher loss is not
    with pytest.raises(UserError, match=r"stages\.json"):
        write_pipeline_report(tmp_path / "base-1")


def test_numbers_and_ticks():
    shown = [number(v) for v in (0.78125, 12345, 12345.6, 2.5e6, 0.00001234, float("nan"), None, -3.0)]
    assert shown == ["0.7812", "12,345", "12.3k", "2.5M", "1.23e-05", "–", "–", "-3"]
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.712, 0.731, most=4) == [0.715, 0.72, 0.725, 0.73]


def test_thinning_keeps_ends_and_spikes():
    x = list(range(10_000))
    y = [0.0] * 10_000
    y[4321] = 9.0
    short_x, short_y = thin(x, y)
    assert len(short_x) <= 602 and short_x[0] == 0 and short_x[-1] == 9999 and max(short_y) == 9.0


@pytest.mark.parametrize("values", [[0.0], [0.5, 0.5], [-1.0, -1.0], [1e9, 2e9], [1e-9, 2e-9]])
def test_charts_of_odd_values_stay_inside_their_frame(values):
    text = draw(Chart("t", [Series("a", list(range(len(values))), values)]))
    Page(text)
    assert "nan" not in text
    points = [float(v) for v in re.findall(r'c[xy]="([-\d.]+)"', text)]
    points += [float(v) for path in re.findall(r'class="line s0" d="M(.*?)"', text) for v in re.split("[ L]", path)]
    assert points and all(0 <= v <= 520 for v in points)
    assert draw(Chart("t", [Series("a", [], [])])) == ""
