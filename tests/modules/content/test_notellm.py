"""NoteLLM: where [EMB] stands, what the vector may know, and that hashtags are told one after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.co_views import CoViews, co_views
from data.features import Features, Label, Text
from data.mall.config import Mall
from data.mall.notes import MallNotePairs, MallNotes
from data.transforms.history import Ids
from modules.content.notellm import NoteLLM
from train.metrics.told import Told
from train.tasks.notes import Notes

V, T, K = 14, 5, 3
FEATURES = Features(
    all=(
        *(f for p in ("", "other_") for f in (
            Text(name=f"{p}title", role="item", tokens=V, length=T), Ids(name=f"{p}topics", width=K),
        )),
        Label(name="sought", type="class"),
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    config = NoteLLM(dim=8, out=6, heads=2, depth=1, dropout=0.0)
    return config.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture
def batch(rng):
    out = {}
    for p, length in (("", [5, 2, 0]), ("other_", [3, 5, 1])):
        out[f"{p}title"] = rng.integers(2, V, (3, T)).astype(np.int32)
        out[f"{p}title/length"] = np.array(length, np.int32)
        out[f"{p}topics"] = rng.integers(2, V, (3, K)).astype(np.int32)
    return {**out, "sought": np.array([7, 8, 7], np.int32)}


def plain(model, words):
    """States of a prompt without any padding."""
    x = model.positions(model.tokens(jnp.asarray([words])))
    mask = np.tril(np.ones((1, len(words), len(words)), bool))
    return np.asarray(model.transformer(x, mask=jnp.asarray(mask)))[0]


def test_the_prompt_is_the_note_then_emb_then_the_hashtags(model, batch):
    out = model(batch, rngs=nnx.Rngs(0))
    for row, n in enumerate((5, 2, 0)):
        words = [*batch["title"][row, :n].tolist(), model.emb, *batch["topics"][row, : K - 1].tolist()]
        states = plain(model, words)[n:]
        logits = states @ np.asarray(model.tell.kernel[...]) + np.asarray(model.tell.bias[...])
        np.testing.assert_allclose(out["next"][row], logits, atol=1e-4)
        vector = states[0] @ np.asarray(model.project.kernel[...]) + np.asarray(model.project.bias[...])
        np.testing.assert_allclose(out["query"][row], vector / np.linalg.norm(vector), atol=1e-4)
    assert out["next"].shape == (6, K, V) and out["item"].shape == (3, 6)


def test_the_vector_knows_no_hashtag_and_no_padding_and_is_the_same_alone(model, batch):
    out = model(batch)
    spoilt = {**batch, "topics": batch["topics"] * 0 + 3, "title": batch["title"].copy()}
    spoilt["title"][1, 2:] = 9
    np.testing.assert_allclose(out["query"], model(spoilt, rngs=nnx.Rngs(1))["query"], atol=1e-5)
    alone = model({n: batch[f"other_{n}"] for n in ("title", "title/length")})
    np.testing.assert_allclose(alone["query"], out["item"], atol=1e-5)
    np.testing.assert_array_equal(alone["query"], alone["item"])


def test_each_hashtag_is_told_after_those_before_it(model, batch):
    told = np.asarray(model(batch)["told"])
    again = model({**batch, "topics": told}, rngs=nnx.Rngs(0))["next"][:3]
    np.testing.assert_array_equal(told, np.argmax(again, axis=-1))


def test_the_loss_weighs_both_parts_and_a_note_twice_is_no_negative_of_itself(model, batch):
    out = model(batch, rngs=nnx.Rngs(0))
    total, logs = Notes(telling=0.25).loss(out, batch)
    np.testing.assert_allclose(total, (logs["contrast"] + 0.25 * logs["telling"]) / 1.25, rtol=1e-5)
    topics = np.concatenate([batch["topics"], batch["other_topics"]])
    z = np.asarray(jax.nn.log_softmax(out["next"]))
    np.testing.assert_allclose(logs["telling"], -np.take_along_axis(z, topics[..., None], -1).mean(), rtol=1e-4)
    s = np.exp(3.0) * np.asarray(out["query"]) @ np.asarray(out["item"]).T
    s[0, 2] = s[2, 0] = -np.inf
    both = [np.log(np.exp(m).sum(1)) - np.diag(m) for m in (s, s.T)]
    np.testing.assert_allclose(logs["contrast"], np.mean(both), rtol=1e-4)


def test_pairs_are_scored_by_who_clicked_little():
    user = np.array([1, 1, 1, 2, 2, 3, 3, 3])
    item = np.array([5, 6, 7, 5, 6, 5, 5, 6])
    click = np.array([0, 1, 1, 0, 1, 0, 0, 0], bool)
    found = co_views(user=user, item=item, click=click, rule=CoViews(least=0.0, within=2))
    pairs = dict(zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.score, strict=True))
    # 1 clicked two items and 2 one; nobody's own repeat and no row of another person makes a pair
    assert pairs == {(5, 6): 1.5, (5, 7): 0.5, (6, 7): 0.5}
    cut = co_views(user=user, item=item, click=click, rule=CoViews(least=0.6, most=2.0))
    assert cut.first.tolist() == [5] and cut.second.tolist() == [6]
    best = co_views(user=user, item=item, click=click, rule=CoViews(least=0.0, partners=1))
    assert list(zip(best.first.tolist(), best.second.tolist(), strict=True)) == [(5, 6), (6, 7)]


@pytest.mark.parametrize("popular", [6, 7])
def test_of_equal_partners_the_popular_one_stays_whatever_its_number(popular):
    user = np.array([1, 1, 2, 2, 3])
    item = np.array([5, 6, 5, 7, popular])
    click = np.array([0, 1, 0, 1, 0], bool)
    best = co_views(user=user, item=item, click=click, rule=CoViews(least=0.0, partners=1))
    assert (best.first.tolist(), best.second.tolist()) == ([5], [popular])


def test_evaluation_has_pairs_that_training_had_not_and_notes_have_canonical_hashtags():
    mall = Mall(size="tiny")
    train, test = (MallNotePairs(mall=mall, split=s).make().columns for s in ("train", "test"))
    pairs = [set(zip(c["seen"].tolist(), c["sought"].tolist(), strict=True)) for c in (train, test)]
    assert pairs[0] and pairs[1] and not pairs[0] & pairs[1]
    notes = MallNotes(mall=mall).make().columns
    np.testing.assert_array_equal(notes["title"][test["sought"] - 2], test["other_title"])
    assert len(np.unique(notes["topics"][:, 0])) <= mall.leaves


def test_told_counts_places():
    metric = Told().make()
    metric.update({"told": np.array([[1, 2], [3, 4]])}, {"topics": np.array([[1, 3], [3, 4]])})
    assert metric.compute() == {"told": 0.75}
    assert Told().make().reasons() == {"told": "no row was seen"}
