"""WordPairs: its scores by hand, items renumbered, and that nothing of an item is learned."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features, Sequence
from data.word_pairs import FACTS
from modules.losses.items import HIDDEN
from modules.sequential.word_pairs import WordPairs

V, T, LISTED = 11, 6, 3
FEATURES = Features(all=(Sequence(name="history", of=Categorical(name="item", rows=V), length=T),))
HISTORY = np.array([[2, 3, 4, 5, 0, 0], [6, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
BATCH = {"history": HISTORY, "history/length": np.array([4, 1, 0], np.int32)}


@pytest.fixture
def model(rng):
    made = WordPairs(listed=LISTED, newest=3).make(FEATURES, rngs=nnx.Rngs(0))
    lists = rng.permuted(np.tile(np.arange(2, V), (V, 1)), axis=1)[:, :LISTED]
    lists[5, 2] = 0  # a list that ends
    made.items[...] = lists.astype(np.int32)
    made.facts[...] = rng.random((V, LISTED, len(FACTS))).astype(np.float16)
    return made


def scores(model, batch=BATCH):
    graph, state = nnx.split(model)
    return np.asarray(jax.jit(lambda b: nnx.merge(graph, state)(b)["scores"])(batch))


def test_scores_add_up_what_the_newest_items_say(model):
    items, facts = np.asarray(model.items[...]), np.asarray(model.facts[...], np.float32)
    pair, age = np.asarray(model.mlp(facts))[..., 0], np.asarray(model.age[...])
    expected = np.full((3, V), np.exp(float(model.floor[...])))
    for row, newest in enumerate([[5, 4, 3], [6], []]):
        for a, i in enumerate(newest):
            for j, g in zip(items[i], pair[i], strict=True):
                expected[row, j] += np.exp(g + age[a]) if j else 0
    got = scores(model)
    np.testing.assert_allclose(got[:, 2:], np.log(expected[:, 2:]), rtol=1e-4)
    assert (got[:, :2] == HIDDEN).all()
    assert (got[2, 2:] == got[2, 2]).all()  # nothing is known of a person without a history


def test_items_are_only_given_and_the_same_weights_serve_another_catalogue(model):
    _, params, rest = nnx.split(model, nnx.Param, ...)
    assert all(V not in leaf.shape for leaf in jax.tree.leaves(params))
    larger = Features(all=(Sequence(name="history", of=Categorical(name="item", rows=3 * V), length=T),))
    _, others, _ = nnx.split(WordPairs(listed=LISTED, newest=3).make(larger, rngs=nnx.Rngs(0)), nnx.Param, ...)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, others)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(rest)} == {V}


def test_an_item_s_number_means_nothing(model, rng):
    new = np.concatenate([[0, 1], 2 + rng.permutation(V - 2)])  # old id -> new id
    before = scores(model)
    items, facts = np.asarray(model.items[...]), np.asarray(model.facts[...])
    renumbered = np.empty_like(items)
    renumbered[new] = np.where(items > 0, new[items], 0)
    moved = np.empty_like(facts)
    moved[new] = facts
    model.items[...], model.facts[...] = renumbered, moved
    after = scores(model, {**BATCH, "history": np.where(HISTORY > 0, new[HISTORY], 0).astype(np.int32)})
    np.testing.assert_allclose(after[:, new], before, rtol=1e-6)
