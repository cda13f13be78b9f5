"""SASRec: no look ahead, no meaning in padding or in the numbers of ids, a score for users without history."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features, Numeric, Sequence
from modules.sequential.sasrec import SASRec
from train.tasks.next_item import NextItem

V, T, D = 21, 6, 8
FEATURES = Features(all=(Sequence(name="history", of=Categorical(name="item", rows=V), length=T),))


def make(**options):
    return SASRec(dim=D, **options).make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def forward(model):
    graph, state = nnx.split(model)
    return jax.jit(lambda batch: nnx.merge(graph, state)(batch))


def batch_of(rng, lengths=(6, 3, 1, 0)):
    lengths = np.array(lengths, np.int32)
    ids = rng.integers(2, V, (len(lengths), T)).astype(np.int32)
    return {"history": np.where(np.arange(T) < lengths[:, None], ids, 0), "history/length": lengths}


def test_a_later_item_does_not_move_an_earlier_state(rng, forward):
    batch = batch_of(rng)
    changed = {**batch, "history": batch["history"].copy()}
    changed["history"][0, 4] = 2 + (batch["history"][0, 4] - 1) % (V - 2)
    a, b = forward(batch)["hidden"], forward(changed)["hidden"]
    np.testing.assert_array_equal(a[0, :4], b[0, :4])
    assert np.abs(a[0, 4:] - b[0, 4:]).max(-1).min() > 1e-4


def test_padding_holds_nothing_and_the_newest_state_is_last(rng, forward):
    batch = batch_of(rng)
    spoilt = {**batch, "history": np.where(batch["history"] == 0, 7, batch["history"])}
    a, b = forward(batch), forward(spoilt)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    np.testing.assert_array_equal(a["last"], [a["hidden"][0, 5], a["hidden"][1, 2], a["hidden"][2, 0], np.zeros(D)])
    np.testing.assert_array_equal(a["hidden"][1, 3:], 0)


def test_shorter_padding_gives_the_same_states(rng, model):
    batch = batch_of(rng, lengths=(3, 1))
    cut = {**batch, "history": batch["history"][:, :4]}
    np.testing.assert_allclose(model(batch)["last"], model(cut)["last"], atol=1e-6)


def test_a_row_alone_is_the_row_of_the_batch(rng, forward, model):
    batch = batch_of(rng)
    alone = model({name: value[1:2] for name, value in batch.items()})
    np.testing.assert_allclose(forward(batch)["last"][1:2], alone["last"], atol=1e-5)


def test_renumbering_items_renumbers_scores(rng):
    model, batch = make(), batch_of(rng)
    before = NextItem().predict(model(batch), batch)["scores"]
    order = np.concatenate([[0, 1], 2 + rng.permutation(V - 2)])  # old id -> new id
    table = model.item.table.get_value()
    model.item.table.set_value(table.at[order].set(table[:V]))
    renumbered = {**batch, "history": order[batch["history"]].astype(np.int32)}
    after = NextItem().predict(model(renumbered), renumbered)["scores"]
    np.testing.assert_allclose(after[:, order], before, atol=1e-5)


def test_no_history_still_scores(rng, forward):
    batch = batch_of(rng)
    scores = NextItem().predict(forward(batch), batch)["scores"]
    assert np.isfinite(scores).all()
    assert scores.shape == (4, V)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_dropout_needs_rngs_and_both_norms_learn(rng, norm):
    model, batch = make(norm=norm, dropout=0.5), batch_of(rng)
    graph, state = nnx.split(model)

    def loss(state):
        return NextItem().predict(nnx.merge(graph, state)(batch), batch)["scores"][:, 2:].std()

    grads = jax.jit(jax.grad(loss))(state)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    dropped = model(batch, rngs=nnx.Rngs(1))["hidden"]
    assert not np.allclose(dropped, model(batch)["hidden"])
    np.testing.assert_array_equal(model(batch)["hidden"], model(batch)["hidden"])


def test_it_refuses_what_is_no_sequence_of_ids():
    features = Features(all=(Sequence(name="history", of=Numeric(name="price"), length=T),))
    with pytest.raises(ValueError, match="'history' is one of numbers"):
        SASRec().make(features, rngs=nnx.Rngs(0))
    with pytest.raises(KeyError, match="did you mean 'history'"):
        SASRec(history="histori").make(FEATURES, rngs=nnx.Rngs(0))
