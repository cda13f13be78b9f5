"""The shape of a space, and its neighbours as pictures in the report."""

import base64
import io
import json

import chz
import numpy as np
import pytest
from PIL import Image as Picture

from data.errors import UserError
from data.features import Dense, Features, Image, Label, Text
from data.sources import InMemory, SourceConfig
from tests.train.test_report import CONFIG, Page
from train.contact_sheet import ContactSheet
from train.evaluators import save_curves
from train.metrics.geometry import alignment, centre_gap, uniformity
from train.metrics.ranking import Recall
from train.report import write_report
from train.space import Space


def test_alignment_uniformity_and_gap_are_their_definitions(rng):
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 9, 3)))
    assert alignment(x, y) == pytest.approx(np.mean([np.linalg.norm(a - b) ** 2 for a, b in zip(x, y, strict=True)]))
    pairs = [np.exp(-2 * np.linalg.norm(a - b) ** 2) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    assert uniformity(x) == pytest.approx(np.log(np.mean(pairs)))
    assert centre_gap(x, y) == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)))
    assert uniformity(np.repeat(x[:1], 5, axis=0)) == pytest.approx(0, abs=1e-9) and np.isnan(uniformity(x[:1]))


@chz.chz
class Things(SourceConfig):
    """Six products, one with two listings; pictures of one colour each."""

    shift: float = 0.0

    def make(self):
        spu = np.array([0, 1, 2, 3, 4, 5, 5])
        x = np.random.default_rng(2).normal(size=(6, 8))[spu] + self.shift
        image = np.zeros((7, 4, 4, 3), np.uint8) + (40 * spu).astype(np.uint8)[:, None, None, None]
        columns = {
            "x": x,
            "image": image,
            "title": np.stack([spu, spu * 0 + 9], 1),
            "title/length": spu * 0 + 2,
            "spu": spu,
        }
        declared = (
            Dense(name="x", dim=8), Image(name="image", height=4, width=4), Text(name="title", tokens=10, length=2),
            Label(name="spu", type="class"),
        )  # fmt: skip
        return Spelt(columns, features=Features(all=declared))


class Spelt(InMemory):
    def spell(self, tokens):
        return " ".join(f"<w{t}>" for t in tokens)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def apart(batch):
    """Two domains that agree, each with an offset of its own, so that pages lie nearer to pages than to any video."""
    x = unit(batch["x"])
    offset = 0 * x[:, :1] + 1.5
    known = (batch["spu"] != 3)[:, None]
    return {"page": unit(np.hstack([x, offset])), "video": unit(np.hstack([x, -offset])) * known}


def test_a_gap_between_domains_costs_what_a_mixed_corpus_shows():
    space = Space(
        source=Things(), seen=Things(), target="spu", key="spu", metrics=(Recall(ks=(1,)),), domains=("page", "video")
    )
    values = space.run(apart).values
    assert values["page-video/recall@1"] == pytest.approx(6 / 7)  # all but product 3, which has no video
    assert values["mixed/page-video/recall@1"] == 0 and values["mixed/page-video/targets_missing"] == pytest.approx(
        1 / 7
    )
    assert values["gap/page-video/recall@1"] == pytest.approx(6 / 7)
    assert values["seen_gap/page-video/recall@1"] == 0 and values["seen/video-page/recall@1"] == 1
    assert values["page-video/centre_gap"] > 1 > values["page/uniformity"] > -4
    assert "gap/page-video/targets_missing" not in values
    together = space.run(lambda b: {"page": unit(b["x"]), "video": unit(b["x"] + 1e-3)}).values
    assert together["mixed/page-video/recall@1"] == together["page-video/recall@1"] == 1
    assert together["page-video/alignment"] < 1e-4 < values["page-video/alignment"]
    with pytest.raises(UserError, match="nothing to"):
        space.run(lambda b: {"page": unit(b["x"]), "video": 0 * b["x"]})


def test_neighbours_stand_in_the_report_as_pictures(tmp_path):
    sheet = ContactSheet(source=Things(), key="spu", count=3, nearest=2, batch_size=4, asked="image")
    found = sheet.run(lambda b: {"query": b["x"], "item": b["x"] * (b["spu"] != 0)[:, None]})
    rows = found.curves["nearest"]["rows"]
    assert [row["text"] for row in rows] == ["<w0> <w9>", "<w3> <w9>", "<w5> <w9>"]
    assert [[one["right"] for one in row["found"]] for row in rows] == [[False, False], [True, False], [True, True]]
    assert found.values == {"right": pytest.approx(0.5)}
    pixels = np.asarray(Picture.open(io.BytesIO(base64.b64decode(rows[1]["found"][0]["image"]))))
    assert pixels.shape == (4, 4, 3) and (pixels == 120).all()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_curves(tmp_path, name="sheet", curves=found.curves)
    text = write_report(tmp_path).read_text()
    page = Page(text.replace("<img ", "<br "))
    assert "Nearest neighbours" in page.text and "<w3> <w9>" in page.text and "&lt;w3&gt;" in text
    assert text.count("data:image/png;base64,") == 9 and text.count('class="right"') == 3
    assert "img-src data:" in text and all(link.startswith("data:") for link in page.links)


def test_one_prediction_on_both_sides_does_not_find_its_own_row():
    sheet = ContactSheet(source=Things(), key="spu", query="item", words=None, count=7, nearest=1)
    found = sheet.run(lambda b: {"item": b["x"]})
    right = [row["found"][0]["right"] for row in found.curves["nearest"]["rows"]]
    assert right == [False] * 5 + [True] * 2 and found.curves["nearest"]["rows"][0]["image"] is None
    with pytest.raises(UserError, match="no row has a vector of 'query'"):
        ContactSheet(source=Things(), key="spu").run(lambda b: {"query": 0 * b["x"], "item": b["x"]})
