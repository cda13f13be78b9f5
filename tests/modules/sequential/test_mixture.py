"""Mixtures of models and relations, SASRec that knows words, and what fills what they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.features import Categorical, Features, Sequence
from modules.layers.given import Given, Related
from modules.sequential.mixture import Mixture, Relation
from modules.sequential.sasrec import SASRec
from modules.sequential.sasrec_content import SASRecContent
from modules.sequential.word_pairs import WordPairs
from train.tasks.rank_next import RankNext

V, T = 13, 5
FEATURES = Features(all=(Sequence(name="history", of=Categorical(name="item", rows=V), length=T),))
HISTORY = np.array([[2, 3, 4, 0, 0], [5, 6, 7, 8, 9], [0, 0, 0, 0, 0]], np.int32)
BATCH = {"history": HISTORY, "history/length": np.array([3, 5, 0], np.int32)}


@pytest.fixture
def related(rng):
    found = Related(V, listed=3, newest=2)
    found.items[...] = rng.integers(2, V, (V, 3)).astype(np.int32)
    found.weights[...] = rng.random((V, 3)).astype(np.float32)
    return found


def test_related_adds_up_the_lists_of_the_newest_items(related):
    items, weights = np.asarray(related.items[...]), np.asarray(related.weights[...])
    expected = np.zeros((3, V))
    for row, newest in enumerate([[4, 3], [9, 8], []]):
        for age, item in enumerate(newest):
            for j, w in zip(items[item], weights[item], strict=True):
                expected[row, j] += 0.5**age * w
    np.testing.assert_allclose(related(HISTORY, length=BATCH["history/length"], decay=0.5), expected, rtol=1e-6)


def called(model, *, training=False):
    graph, state = nnx.split(model)
    return jax.jit(lambda batch: nnx.merge(graph, state)(batch, rngs=nnx.Rngs(0) if training else None))(BATCH)


def mixture():
    config = Mixture(models=(SASRec(dim=8, depth=1), SASRec(dim=4, depth=1)), relations={"words": Relation(listed=3)})
    return config.make(FEATURES, rngs=nnx.Rngs(0))


def test_a_mixture_is_the_weighted_sum_of_log_likelihoods(rng, related):
    model = mixture()
    model.related["words"].items[...] = related.items[...]
    model.related["words"].weights[...] = related.weights[...]
    model.of_models[...] = np.array([0.7, 0.2], np.float32)
    model.of_relations[...] = np.array([0.4], np.float32)
    model.decay_logit[...] = np.array([0.0], np.float32)
    model.log_scale[...] = np.log(np.array([3.0], np.float32))
    scores = np.asarray(called(model)["scores"])[:, 2:]
    found = model.related["words"](HISTORY, length=BATCH["history/length"], decay=0.5)
    expected = 0.4 * np.log1p(3 * np.asarray(found)[:, 2:])
    for weight, part in zip((0.7, 0.2), model.models, strict=True):
        out = called(part)
        logits = np.asarray(out["last"] @ out["items"].T)[:, 2:].astype(np.float64)
        expected = expected + weight * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_a_part_that_scores_the_catalogue_itself_enters_by_its_scores(rng):
    model = Mixture(models=(SASRec(dim=8, depth=1), WordPairs(listed=3))).make(FEATURES, rngs=nnx.Rngs(0))
    pairs = model.models[1]
    pairs.items[...] = rng.integers(2, V, (V, 3)).astype(np.int32)
    pairs.facts[...] = rng.random((V, 3, 16)).astype(np.float16)
    model.of_models[...] = np.array([0.0, 0.6], np.float32)
    alone = np.asarray(called(pairs)["scores"])[:, 2:].astype(np.float64)
    expected = 0.6 * (alone - np.log(np.exp(alone).sum(1, keepdims=True)))
    assert np.ptp(expected[:2], axis=1).min() > 0.1
    np.testing.assert_allclose(np.asarray(called(model)["scores"])[:, 2:], expected, rtol=1e-4, atol=1e-5)


def test_what_is_given_is_saved_but_no_parameter():
    _, params, rest = nnx.split(mixture(), nnx.Param, ...)
    names = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(rest)}
    assert names == {"related/words/items", "related/words/weights"}
    assert all(issubclass(v.type, Given) for _, v in nnx.to_flat_state(rest))
    assert {path[0] for path, _ in nnx.to_flat_state(params)} == {
        "models",
        "of_models",
        "of_relations",
        "log_scale",
        "decay_logit",
    }


def test_what_is_fitted_starts_where_each_relation_says():
    relations = {"words": Relation(scale=3.0, decay=0.25), "counts": Relation(scale=5.0, decay=0.5)}
    made = Mixture(relations=relations).make(FEATURES, rngs=nnx.Rngs(0))
    model = nnx.merge(*nnx.split(made))
    for index, name in enumerate(model.related):
        assert float(jnp.exp(model.log_scale[index])) == pytest.approx(relations[name].scale)
        assert float(jax.nn.sigmoid(model.decay_logit[index])) == pytest.approx(relations[name].decay)


def test_parts_are_as_they_serve_while_the_mixture_is_fitted():
    model = mixture()
    np.testing.assert_array_equal(called(model, training=True)["scores"], called(model)["scores"])


def test_ids_that_are_no_items_come_last_though_a_relation_knows_nothing():
    model = Mixture(relations={"words": Relation(listed=3)}).make(FEATURES, rngs=nnx.Rngs(0))
    scores = called(model)["scores"]
    assert scores[:, :2].max() < scores[:, 2:].min()


def test_what_does_not_mix_is_refused():
    with pytest.raises(ValueError, match="needs a model or a relation"):
        Mixture()
    with pytest.raises(ValueError, match="the decay of 'words' lies between 0 and 1"):
        Mixture(relations={"words": Relation(decay=1.0)})


def test_the_loss_is_that_of_the_list_that_is_served(rng):
    """The history is no candidate, an item bought again still is the target."""
    scores = rng.normal(size=(3, V)).astype(np.float32)
    scores[:, :2] = -1e9
    targets = np.array([6, 5, 0], np.int32)
    loss, _ = RankNext().loss({"scores": scores}, {**BATCH, "target": targets})
    nll = []
    for row, (seen, target) in enumerate([([2, 3, 4], 6), ([6, 7, 8, 9], 5)]):
        kept = np.delete(np.arange(V), seen)
        nll.append(np.log(np.exp(scores[row, kept].astype(np.float64)).sum()) - scores[row, target])
    assert float(loss) == pytest.approx(np.mean(nll), rel=1e-5)
    with pytest.raises(UserError, match="such as valid"):
        RankNext().loss({"scores": scores}, BATCH)


def test_items_are_the_sum_of_id_and_words(rng):
    model = SASRecContent(dim=8, depth=1, width=4).make(FEATURES, rngs=nnx.Rngs(0))
    vectors = rng.normal(size=(V, 4)).astype(np.float32)
    model.content.vectors[...] = vectors
    out = called(model)
    expected = np.asarray(model.item.table[:V]) + vectors @ np.asarray(model.content.map.kernel[...])
    np.testing.assert_allclose(out["items"], expected, rtol=1e-5, atol=1e-6)
    plain = SASRec(dim=8, depth=1).make(FEATURES, rngs=nnx.Rngs(0))
    graph, _ = nnx.split(plain)
    shared = nnx.to_flat_state(nnx.state(model, nnx.Param))
    kept = nnx.from_flat_state([(path, v) for path, v in shared if path[0] != "content"])
    same = nnx.merge(graph, kept)
    same.item.table[...] = np.concatenate([expected, np.zeros((len(same.item.table[...]) - V, 8))])
    np.testing.assert_allclose(out["last"], called(same)["last"], rtol=1e-4, atol=1e-5)


def test_without_ids_equal_words_are_equal_items(rng):
    model = SASRecContent(dim=8, depth=1, width=4, ids=False).make(FEATURES, rngs=nnx.Rngs(0))
    vectors = rng.normal(size=(V, 4)).astype(np.float32)
    vectors[11] = vectors[6]
    model.content.vectors[...] = vectors
    other = {**BATCH, "history": np.where(HISTORY == 6, 11, HISTORY)}
    a, b = jax.tree.map(np.asarray, (model(BATCH), model(other)))
    np.testing.assert_array_equal(a["last"], b["last"])
    np.testing.assert_array_equal(a["items"][6], a["items"][11])
    assert all(path[0] != "item" for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)))
