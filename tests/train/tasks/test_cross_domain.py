"""COPE's losses by name: which pairs, which rows, which weights; and its evaluation in six directions."""

import chz
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.features import Features, Group, Numeric
from data.sources import InMemory, SourceConfig
from modules.losses.contrastive import softmax_contrastive
from modules.losses.margin import large_margin
from train.metrics.ranking import MedianRank, Recall
from train.retrieve_across import RetrieveAcross
from train.tasks.cross_domain import CROSS, CrossDomain

N, D = 8, 16
PLAIN = ("page_v", "page_t", "page_f", "video_v", "live_v", "page", "video", "live")
SPEECH = ("video_t", "video_f", "live_t", "live_f")


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def outputs(rng):
    found = {name: jnp.asarray(unit(rng.normal(size=(N, D)))) for name in (*PLAIN, *SPEECH)}
    return {**found, **{f"{name}/known": jnp.ones(N, bool) for name in found}}


def without_speech(outputs):
    return {n: a for n, a in outputs.items() if n.split("/")[0] not in SPEECH}


LABELS = {"spu": jnp.arange(N)}


def test_the_seven_losses_are_named_and_summed(outputs):
    loss, logs = CrossDomain(within=0).loss(without_speech(outputs), LABELS)
    assert set(logs) == {"loss", *(f"{a}-{b}" for a, b in CROSS)} and len(CROSS) == 7
    expected = [float(softmax_contrastive(outputs[a], outputs[b], scale=20.0, smoothing=0.1)) for a, b in CROSS]
    assert float(loss) == pytest.approx(sum(expected), rel=1e-6)
    assert float(logs["page_f-live_v"]) == pytest.approx(expected[4], rel=1e-6)


def test_a_pair_at_random_loses_the_log_of_the_batch(rng):
    """Vectors of an untrained model are close to each other or, as here, nearly orthogonal in a wide space."""
    wide = {name: jnp.asarray(unit(rng.normal(size=(64, 16_384)))) for name in PLAIN}
    wide |= {f"{name}/known": jnp.ones(64, bool) for name in PLAIN}
    _, logs = CrossDomain(temperature=0.5).loss(wide, {"spu": jnp.arange(64)})
    assert all(float(value) == pytest.approx(np.log(64), rel=0.05) for name, value in logs.items() if name != "loss")


def test_speech_adds_its_pairs_where_something_is_said(outputs):
    known = jnp.arange(N) % 2 == 0
    _, logs = CrossDomain(spoken=0.5).loss({**outputs, "video_t/known": known}, LABELS)
    assert {"video_t-page_t", "live_t-page_t", "video_f-page_f", "live_f-page_f", "video_t-video_v"} <= set(logs)
    few = softmax_contrastive(outputs["video_t"][::2], outputs["page_t"][::2], scale=20.0, smoothing=0.1)
    assert float(logs["video_t-page_t"]) == pytest.approx(float(few), rel=1e-5)


def test_weights_turn_losses_off(outputs):
    _, logs = CrossDomain(cross=0, spoken=0, within=1).loss(outputs, LABELS)
    assert set(logs) == {"loss", "page_t-page_v", "video_t-video_v", "live_t-live_v"}


def test_the_classifier_is_the_mean_over_domains(outputs, rng):
    classes = jnp.asarray(rng.normal(size=(16, D)), jnp.float32)
    task = CrossDomain(cross=0, spoken=0, within=0, classify=0.5)
    loss, logs = task.loss({**outputs, "classes": classes, "live/known": jnp.arange(N) > 2}, LABELS)
    losses = [large_margin(outputs[d], classes, labels=LABELS["spu"]) for d in ("page", "video")]
    losses.append(large_margin(outputs["live"][3:], classes, labels=LABELS["spu"][3:]))
    assert float(logs["class/live"]) == pytest.approx(float(losses[2]), rel=1e-5)
    assert float(loss) == pytest.approx(0.5 * float(sum(losses)) / 3, rel=1e-5)
    with pytest.raises(UserError, match=r"set model\.classes"):
        task.loss(outputs, LABELS)


def test_a_missing_side_is_named(outputs):
    with pytest.raises(UserError, match="compares 'live_v'"):
        CrossDomain().loss({n: a for n, a in outputs.items() if n != "live_v"}, LABELS)
    with pytest.raises(UserError, match="reads 'spu'"):
        CrossDomain().loss(outputs, {})


@chz.chz
class Places(SourceConfig):
    """Rows on a line, two of one product."""

    def make(self):
        columns = {"x": np.array([0.0, 1.0, 2.0, 3.0, 3.2]), "spu": np.array([0, 1, 2, 3, 3])}
        return InMemory(columns, features=Features(all=(Numeric(name="x"), Group(name="spu"))))


def test_retrieval_goes_all_six_ways():
    evaluator = RetrieveAcross(source=Places(), target="spu", key="spu", metrics=(Recall(ks=(1,)), MedianRank()))

    def predict(batch):
        x = batch["x"]
        page = np.stack([np.cos(x), np.sin(x)], axis=1)
        # The live stream of product 1 looks like product 2; product 0 has none.
        live = np.where((batch["spu"] == 1)[:, None], np.array([[np.cos(2.05), np.sin(2.05)]]), page)
        return {"page": page, "video": page, "live": live * (batch["spu"] > 0)[:, None]}

    values = evaluator.run(predict).values
    assert values["page-video/recall@1"] == values["video-page/recall@1"] == 1
    assert values["live-page/recall@1"] == pytest.approx(3 / 4)  # product 0 does not ask
    assert values["page-live/recall@1"] == pytest.approx(3 / 5)  # product 0 cannot be found, product 1 not as first
    assert values["page-live/targets_missing"] == pytest.approx(1 / 5)
    assert len([n for n in values if n.endswith("recall@1")]) == 6
    with pytest.raises(ValueError, match="goes both ways"):
        chz.replace(evaluator, reverse=True)
