"""Recommending by content: people from histories, popularity beside it, and the stage that completes listings."""

import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import FIRST
from data.mall.build import build
from data.mall.config import DAY, Mall
from data.mall.halves import MallHalves, lacking
from data.mall.shoppers import MallShoppers
from data.mall.sources import MallProducts
from data.pipeline import Loader
from modules.content.generator import Captioner, Painter
from train.complete import Complete, f1, patches, words
from train.experiment import Experiment
from train.loop import train
from train.metrics.ranking import MRR, Recall
from train.optim import Optimizer
from train.recommend import RecommendVideos
from train.tasks.generate import Generate

MALL = Mall(size="tiny")


def test_a_shoppers_past_ends_where_the_split_begins():
    source = MallShoppers(mall=MALL, history=5, most=40).make()
    rows, log = source.columns, build(MALL).log.actions
    start = MALL.period("test")[0]
    assert len(source) == 40 and (rows["history_days"] >= 0).all()
    for user, past, days, clicks, length in zip(
        rows["user"], rows["history"], rows["history_days"], rows["history_click"], rows["history/length"], strict=True
    ):
        mine = np.flatnonzero((log["user"] == user) & (log["time"] < start))[-5:]
        assert length == len(mine)
        np.testing.assert_array_equal(past[:length], FIRST + log["item"][mine])
        np.testing.assert_allclose(days[:length], (start - log["time"][mine]) / DAY, rtol=1e-5)
        np.testing.assert_array_equal(clicks[:length], log["click"][mine])


def random_vectors(batch):
    """A video is its product, and so near to whoever saw it."""
    table = np.random.default_rng(0).normal(size=(FIRST + MALL.n_items, 12))
    return {"item": table[batch["item"]], "video": table[batch["item"]]}


def test_videos_of_what_people_saw_are_found_and_popularity_counts_training_clicks():
    products = MallProducts(mall=MALL, views=())
    shoppers = MallShoppers(mall=MALL, history=8, most=60)
    every = MallShoppers(mall=MALL, split="train", history=1, most=None)
    evaluator = RecommendVideos(
        source=shoppers,
        items=products,
        videos=products,
        clicks=every,
        metrics=(Recall(ks=(20,)), MRR()),
        batch_size=100,
    )
    values = evaluator.run(random_vectors).values
    rows = shoppers.make().columns
    table = np.random.default_rng(0).normal(size=(FIRST + MALL.n_items, 12))
    weight = np.where(rows["history_click"] > 0, 2.0, 1.0) * 0.5 ** (rows["history_days"] / 14)
    weight = weight * (np.arange(8) < rows["history/length"][:, None])
    people = np.einsum("bt,btd->bd", weight, table[rows["history"]])
    score = people @ table[FIRST:].T
    own = np.take_along_axis(score, rows["item"][:, None] - FIRST, axis=1)
    known = rows["history/length"] > 0
    hits = ((score > own).sum(1) < 20) & known
    assert values["recall@20"] == pytest.approx(hits.mean(), abs=0.02)
    log = build(MALL).log.impressions
    clicks = np.bincount(log["item"][log["click"] & (log["time"] < MALL.period("train")[1])], minlength=MALL.n_items)
    rank = (clicks[None] >= clicks[rows["item"] - FIRST][:, None]).sum(1)
    assert values["popular/recall@20"] == pytest.approx((rank <= 20).mean())
    forever = chz.replace(evaluator, half_life=None, clicks=None).run(random_vectors).values
    assert "popular/recall@20" not in forever and forever["mrr"] != values["mrr"]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Vectors in which picture and title of a product agree, and products of one leaf are near."""
    shop = build(MALL).shop
    rng = np.random.default_rng(1)
    picture = rng.normal(size=(12, 8))[shop.leaf] + 0.3 * rng.normal(size=(len(shop.spu_leaf), 8))[shop.spu]
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    np.savez(path, id=FIRST + np.arange(MALL.n_items), vector=np.concatenate([picture, -picture], axis=1))
    return path


def test_retrieval_completes_better_than_the_mean_and_the_mean_than_nothing(vectors, tmp_path):
    found = {
        method: Complete(of=str(vectors), mall=MALL, method=method).run(out=tmp_path, say=lambda line: None)
        for method in ("zero", "mean", "retrieval", "truth")
    }
    f1s, errors, cosines = ([found[m][name] for m in found] for name in ("title/f1", "image/mse", "title/cosine"))
    assert f1s[0] == 0 < f1s[1] < f1s[2] < f1s[3] <= 1 and errors[0] > errors[1] > errors[2] > errors[3] == 0
    assert cosines[2] > 0.9 > cosines[1] and cosines[3] == pytest.approx(1)
    for name in ("title/f1", "recall@20", "no_image/recall@20"):
        low, mean, high = (found["retrieval"][name + end] for end in ("/low", "", "/high"))
        assert low <= mean <= high and low < high
    with pytest.raises(ValueError, match="missing lies between"):
        Complete(of=str(vectors), missing=0.0)
    odd = tmp_path / "odd.npz"
    np.savez(odd, id=FIRST + np.arange(MALL.n_items), vector=np.ones((MALL.n_items, 3)))
    with pytest.raises(UserError, match="3 numbers a row"):
        Complete(of=str(odd), mall=MALL).run(out=tmp_path, say=lambda line: None)


@pytest.fixture(scope="module")
def generators(vectors, tmp_path_factory):
    """A captioner and a painter, briefly trained on the listings that lack nothing."""
    folder = tmp_path_factory.mktemp("generators")
    models = {"title": Captioner(dim=16, depth=1, heads=2, dropout=0.0, hidden=(32,)), "image": Painter(hidden=(32,))}
    for part, model in models.items():
        experiment = Experiment(
            model=model,
            task=Generate(),
            source=MallHalves(of=str(vectors), mall=MALL, lacks=part),
            loader=Loader(batch_size=64, prefetch=0),
            optimizer=Optimizer(lr=1e-2),
            steps=240,
        )
        train(experiment, workdir=folder / part, say=lambda line: None)
    return {"captioner": str(folder / "title"), "painter": str(folder / "image")}


def test_generators_fill_what_is_hidden_from_what_is_there(vectors, generators, tmp_path):
    def fill(method, **more):
        return Complete(of=str(vectors), mall=MALL, method=method, **more).run(out=tmp_path, say=lambda line: None)

    found, mean, nothing = fill("generated", **generators), fill("mean"), fill("zero")
    assert found["title/f1"] > mean["title/f1"] and found["title/cosine"] > mean["title/cosine"] + 0.1
    assert found["image/mse"] < mean["image/mse"] < nothing["image/mse"]
    with pytest.raises(ValueError, match="needs a captioner and a painter"):
        Complete(of=str(vectors), method="generated")


def test_generators_learn_from_listings_that_lack_nothing(vectors):
    products = MallProducts(mall=MALL).make()
    hidden = lacking(len(products), missing=0.3, seed=0)
    whole = np.flatnonzero(~hidden["image"] & ~hidden["title"])
    assert not (hidden["image"] & hidden["title"]).any() and len(whole) == pytest.approx(0.7 * len(products), rel=0.1)
    told, painted = (MallHalves(of=str(vectors), mall=MALL, lacks=part).make().columns for part in ("title", "image"))
    rows = products.take(whole)
    np.testing.assert_array_equal(told["title"], rows["title"])
    np.testing.assert_allclose(painted["patches"], patches(rows["image"]), rtol=1e-5)
    # In this fixture a title's vector is the picture's, turned round.
    np.testing.assert_allclose(told["present"], -told["gone"], atol=1e-6)
    np.testing.assert_array_equal(told["present"], painted["gone"])
    assert np.allclose(np.linalg.norm(told["present"], axis=1), 1, atol=1e-5)


def test_measures_of_a_filling(rng):
    truth = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]])
    guess = np.array([[0.1, 0.9, 0.0, 0.8, 0.7], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert f1(guess, truth, count=3).tolist() == [pytest.approx(2 * 2 / (3 + 3)), 0]
    images = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    np.testing.assert_allclose(patches(images)[1, 3:6], images[1, :8, 8:].mean(axis=(0, 1)) / 255)
    rows = MallProducts(mall=MALL, views=("title",)).make().take(np.arange(20))
    bags = words(MALL, rows["title"])
    assert bags[:, 0].sum() == 0 and (bags.sum(1) <= rows["title/length"]).all() and bags.sum(1).min() >= 2
