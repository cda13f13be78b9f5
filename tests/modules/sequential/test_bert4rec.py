"""BERT4Rec: both sides of a mask count, a mask is put where none is, and the head is eq. 7 with its biases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features, Numeric, Sequence
from modules.sequential.bert4rec import BERT4Rec
from modules.sequential.sasrec import SASRec
from train.tasks.next_item import NextItem

ITEMS, T, D = 21, 6, 8
MASK = ITEMS  # the row after the last item
FEATURES = Features(all=(Sequence(name="history", of=Categorical(name="item", rows=ITEMS + 1), length=T),))


def make(config=None):
    return (config or BERT4Rec(dim=D, expand=2)).make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def model():
    model = make()
    model.bias.set_value(jnp.linspace(-1.0, 1.0, ITEMS)[:, None])
    return model


@pytest.fixture(scope="module")
def forward(model):
    graph, state = nnx.split(model)
    return jax.jit(lambda batch: nnx.merge(graph, state)(batch))


def batch_of(*rows):
    history = np.zeros((len(rows), T), np.int32)
    for i, row in enumerate(rows):
        history[i, : len(row)] = row
    return {"history": history, "history/length": np.array([len(r) for r in rows], np.int32)}


def test_a_mask_reacts_to_what_comes_after_it_and_sasrec_does_not(forward):
    a, b = batch_of([3, 4, MASK, 6, 7]), batch_of([3, 4, MASK, 6, 9])
    assert np.abs(forward(a)["hidden"][0, 2] - forward(b)["hidden"][0, 2]).max() > 1e-4
    causal = make(SASRec(dim=D))
    np.testing.assert_allclose(causal(a)["hidden"][0, :4], causal(b)["hidden"][0, :4], atol=1e-6)


def test_a_history_without_a_mask_is_asked_what_comes_next(forward):
    """Short, full (its oldest goes), empty; and one that has a mask already, which stays as it is."""
    plain = batch_of([3, 4, 5], [2, 3, 4, 5, 6, 7], [], [3, MASK, 5])
    asked = batch_of([3, 4, 5, MASK], [3, 4, 5, 6, 7, MASK], [MASK], [3, MASK, 5])
    a, b = forward(plain), forward(asked)
    for name in ("hidden", "last"):
        np.testing.assert_allclose(a[name], b[name], atol=1e-6)
    np.testing.assert_array_equal(a["last"][0], a["hidden"][0, 3])
    np.testing.assert_array_equal(a["hidden"][0, 4:], 0)


def test_scores_are_those_of_equation_7(model, forward):
    batch = batch_of([3, 4, 5, MASK], [7, MASK])
    outputs = forward(batch)
    predictions = NextItem().predict(outputs, batch)
    scores = np.asarray(predictions["scores"])
    np.testing.assert_allclose((predictions["user"] @ outputs["items"].T)[:, 2:], scores[:, 2:], atol=1e-6)
    graph, state = nnx.split(model)
    bare = nnx.merge(graph, state)
    bare.project = None
    states = np.asarray(bare(batch)["last"], np.float64)  # h at the mask
    kernel, bias = (np.asarray(w.get_value(), np.float64) for w in (model.project.kernel, model.project.bias))
    inner = states @ kernel + bias
    told = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    table = np.asarray(model.item.table.get_value(), np.float64)[:ITEMS]
    expected = told @ table.T + np.asarray(model.bias.get_value(), np.float64)[:, 0]
    np.testing.assert_allclose(scores[:, 2:], expected[:, 2:], atol=1e-5)
    assert scores.shape == (2, ITEMS) and (scores[:, :2] < -1e8).all()  # the mask is nothing to recommend


def test_a_mask_in_padding_is_no_mask(forward):
    batch = batch_of([3, 4])
    spoilt = {**batch, "history": np.where(np.arange(T) < 2, batch["history"], MASK).astype(np.int32)}
    np.testing.assert_allclose(forward(batch)["last"], forward(spoilt)["last"], atol=1e-6)


def test_renumbering_items_renumbers_scores(rng):
    model, batch = make(), batch_of([3, 4, 5], [7])
    before = NextItem().predict(model(batch), batch)["scores"]
    order = np.concatenate([[0, 1], 2 + rng.permutation(ITEMS - 2), [MASK]])  # old id -> new id
    table = model.item.table.get_value()
    model.item.table.set_value(table.at[order].set(table[: ITEMS + 1]))
    renumbered = {**batch, "history": order[batch["history"]].astype(np.int32)}
    after = NextItem().predict(model(renumbered), renumbered)["scores"]
    np.testing.assert_allclose(after[:, order[:ITEMS]], before, atol=1e-5)


def test_the_plain_head_scores_by_the_state_itself():
    outputs = make(BERT4Rec(dim=D, expand=2, projection=False))(batch_of([3, 4]))
    assert outputs["last"].shape == (1, D) and outputs["items"].shape == (ITEMS, D)


def test_it_refuses_what_is_no_sequence_of_ids():
    features = Features(all=(Sequence(name="history", of=Numeric(name="price"), length=T),))
    with pytest.raises(ValueError, match="'history' is one of numbers"):
        BERT4Rec().make(features, rngs=nnx.Rngs(0))
