"""The shipped pipeline from training to replayed requests, shrunk."""

import json
import shutil

import numpy as np
import pytest

from data.features import FIRST
from data.mall.serving import asked, worth
from data.manifest import read_json
from serve.funnel import Answer, Ranked, open_funnel
from serve.replay import replay
from tests.serve.funnel.conftest import MALL


def test_every_stage_leaves_its_figures_and_the_replay_a_report(ran):
    workdir, figures = ran
    found = figures["replay"]
    assert found["requests"] == 40
    assert 0 < found["found/page"] <= found["found/ranked"] <= found["found/retrieved"] <= 1
    stored = json.loads((workdir / "replay" / "replay.json").read_text())
    assert stored["figures"] == found
    lost = round(10 * 40 * (1 - found["found/page"]))
    assert sum(stored["reasons"].values()) == lost
    html = (workdir / "replay" / "replay.html").read_text()
    assert f"{found['ndcg@10/share']:.2%}" in html and "retrieve: no channel found it" in html
    assert set(figures["funnel"]) > {"funnel", "ranker", "features", "popular/lists"}


def test_a_funnel_that_retrieves_everything_loses_nothing(folder, tmp_path):
    """Then both pages are one: a share of exactly 1, and whatever was not on the other page was not here either."""
    shutil.copytree(folder, tmp_path / "wide")
    config = read_json(folder / "funnel.json")
    config["channels"] = {"two_tower": {**config["channels"]["two_tower"], "quota": 300}}
    config["merge"]["limit"] = 300
    (tmp_path / "wide" / "funnel.json").write_text(json.dumps(config))
    found = replay(open_funnel(tmp_path / "wide"), mall=MALL, most=10, say=lambda _: None).figures
    assert found["ndcg@10/share"] == pytest.approx(1.0, abs=1e-12)
    assert found["revenue/share"] == pytest.approx(1.0, abs=1e-12)
    assert found["found/page"] == found["found/two_tower"] == 1.0


class Oracle:
    """Answers with the truly best listings, or the worst, and a price of 2 for each."""

    def __init__(self, funnel, *, true, best):
        self.config, self.channels, self.fields, self.versions = funnel.config, {}, funnel.fields, funnel.versions
        self._true, self._best = iter(true), best

    def warm(self):
        pass

    def answer(self, request):
        if not request.candidates and "auction" in request.skip:
            self._now = next(self._true)
        sign = -1.0 if self._best else 1.0
        order = np.argsort(sign * np.nan_to_num(self._now, nan=sign * np.inf))[:10]
        items = [Ranked(int(FIRST + n), {"price": 2.0}) for n in order]
        return Answer(items, [], {"total": 0.0}, {})


@pytest.mark.parametrize("best", [True, False])
def test_ndcg_and_revenue_are_those_of_the_truth(funnel, best):
    true = np.concatenate([t for _, t in worth(MALL, rows=asked(MALL, split="test", most=15))])
    found = replay(Oracle(funnel, true=true, best=best), mall=MALL, most=15, say=lambda _: None).figures
    top = -np.sort(-np.nan_to_num(true, nan=-1.0), axis=1)[:, :10]
    low = np.sort(np.nan_to_num(true, nan=2.0), axis=1)[:, :10]
    discount = 1 / np.log2(2 + np.arange(10))
    page = top if best else low
    assert found["ndcg@10"] == pytest.approx(np.mean((page @ discount) / (top @ discount)))
    seen = (1.0 + np.arange(10)) ** -MALL.exposure.position
    assert found["revenue"] == pytest.approx(2.0 * np.mean(page @ seen))
    assert found["best/page"] == (1.0 if best else 0.0)
