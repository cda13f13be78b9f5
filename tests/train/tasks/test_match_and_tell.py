"""InterBERT's loss, and the mismatched texts it learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.features import Features, Image, Label, Text
from data.pipeline import Loader
from data.sources import InMemory
from data.transforms.mismatch import Mismatch
from train.tasks.match_and_tell import MatchAndTell


@pytest.fixture
def outputs(rng):
    known = {"match/known": [1, 1, 1, 0], "msm/known": [1, 0, 1, 1], "mrm/known": [1, 1, 1, 1]}
    values = {name: jnp.asarray(rng.random(4), jnp.float32) for name in ("match", "msm", "mrm")}
    return values | {name: jnp.asarray(flags, bool) for name, flags in known.items()}


def test_the_sum_of_three_losses(outputs):
    match = np.array([1.0, 0.0, 1.0, 1.0], np.float32)
    loss, logs = MatchAndTell(msm=0.5, mrm=2.0).loss(outputs, {"match": match})
    chance = 1 / (1 + np.exp(-np.asarray(outputs["match"], np.float64)))
    itm = -np.mean(np.log(np.where(match[:3] > 0, chance[:3], 1 - chance[:3])))
    msm, mrm = np.asarray(outputs["msm"])[[0, 2, 3]].mean(), np.asarray(outputs["mrm"])[[0, 2, 3]].mean()
    assert float(loss) == pytest.approx(itm + 0.5 * msm + 2.0 * mrm, rel=1e-5)
    assert float(logs["itm"]) == pytest.approx(itm, rel=1e-5)


def test_regions_of_mismatched_pairs_are_not_told(outputs):
    task, batch = MatchAndTell(), {"match": np.array([1.0, 0.0, 0.0, 1.0], np.float32)}
    grad = jax.grad(lambda mrm: task.loss({**outputs, "mrm": mrm}, batch)[0])(outputs["mrm"])
    assert grad.tolist() == [0.5, 0, 0, 0.5]
    nothing = task.loss(outputs, {"match": np.zeros(4, np.float32)})[1]
    assert float(nothing["mrm"]) == 0 and np.isfinite(float(nothing["loss"]))
    with pytest.raises(UserError, match="add Mismatch"):
        task.loss(outputs, {})
    with pytest.raises(UserError, match="a picture and a text"):
        task.loss({}, batch)


def listings(count=60):
    """Titles of two words out of 12: the product's own and one of six that products share."""
    spu = np.arange(count) // 2
    title = np.stack([2 + spu % 30, 40 + spu % 6, 0 * spu], axis=1)
    length = np.where(np.arange(count) == 7, 0, 2)
    declared = (
        Image(name="image", height=2, width=2),
        Text(name="title", tokens=50, length=3),
        Label(name="spu", type="class"),
    )
    columns = {"image": np.zeros((count, 2, 2, 3)), "title": title, "title/length": length, "spu": spu}
    return InMemory(columns, features=Features(all=declared))


def batches(transform, **more):
    iterator = Loader(batch_size=40, shuffle=False, prefetch=0, transforms=(transform,)).open(listings(), **more)
    return next(iterator), iterator.features


def test_mismatched_texts_are_of_other_products_and_alike():
    shares = {}
    for hard in (1, 16):
        batch, features = batches(Mismatch(hard=hard))
        own = listings().take(np.arange(40))
        swapped = batch["match"] == 0
        assert 0.3 < swapped.mean() < 0.7 and features["match"].kind == "label"
        np.testing.assert_array_equal(batch["title"][~swapped], own["title"][~swapped])
        assert (batch["title"][swapped, 0] != own["title"][swapped, 0]).all()  # the product's own word is another's
        assert batch["match"][7] == 1 and (batch["title/length"][swapped] > 0).all()
        shares[hard] = (batch["title"][swapped, 1] == own["title"][swapped, 1]).mean()
    assert shares[16] > 0.8 > 0.5 > shares[1]


def test_a_row_gets_the_same_text_whoever_reads_it():
    whole, _ = batches(Mismatch())
    for index in range(2):
        part, _ = batches(Mismatch(), process_index=index, process_count=2)
        for name in ("title", "match", "title/length"):
            np.testing.assert_array_equal(part[name], whole[name][20 * index : 20 * index + 20])


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="between 0 and 1"):
        Mismatch(share=1.0)
    with pytest.raises(UserError, match="'image' is image"):
        batches(Mismatch(text="image"))
