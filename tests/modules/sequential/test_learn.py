"""LEARN: both towers are one, states look back alone, nothing is learnt of the language model."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Dense, Features, Label, Sequence
from data.transforms.all_actions import AllActions
from modules.sequential.learn import LEARN
from train.tasks.all_actions import AllActionsLoss

V, T, C, D = 30, 6, 5, 8
ITEM = Categorical(name="item", role="user", rows=V)
FEATURES = Features(
    all=(
        Sequence(name="history", role="user", of=ITEM, length=T),
        Sequence(name="history_content", role="user", of=Dense(name="content", dim=C), length=T),
        Label(name="listing", type="class"),
    )
)


def make(**options):
    return LEARN(dim=D, out=D, heads=2, **options).make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture
def batch(rng):
    length = np.array([6, 3, 1, 0], np.int32)
    ids = np.where(np.arange(T) < length[:, None], rng.integers(2, V, (4, T)), 0).astype(np.int32)
    table = rng.normal(size=(V, C)).astype(np.float32)
    return {"history": ids, "history/length": length, "history_content": table[ids], "history_content/length": length}


def test_an_item_is_a_history_of_length_one(rng, batch):
    model = make()
    one = batch["history_content"][:, :1]
    as_item = model({"content": one[:, 0]})["item"]
    as_history = model({"history_content": one, "history_content/length": np.ones(4, np.int32)})["query"]
    np.testing.assert_allclose(as_item, as_history, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(as_item, axis=1), 1, atol=1e-5)


def test_states_know_what_was_before_them_alone_and_the_newest_is_the_person(batch):
    model = make()
    out = model(batch)
    changed = {**batch, "history_content": batch["history_content"].copy()}
    changed["history_content"][0, 4] += 1
    changed["history_content"][1, 3:] += 1  # padding
    other = model(changed)
    np.testing.assert_allclose(out["hidden"][0, :4], other["hidden"][0, :4], atol=1e-6)
    assert np.abs(out["hidden"][0, 4:] - other["hidden"][0, 4:]).max(-1).min() > 1e-4
    np.testing.assert_allclose(out["hidden"][1], other["hidden"][1], atol=1e-6)
    expected = [out["hidden"][0, 5], out["hidden"][1, 2], out["hidden"][2, 0], np.zeros(D)]
    np.testing.assert_allclose(out["query"], expected, atol=1e-6)


def test_no_position_is_encoded(batch):
    """A history of one text over and over is that text at each place."""
    same = np.repeat(batch["history_content"][:, :1], T, axis=1)
    hidden = make()({"history_content": same, "history_content/length": np.full(4, T, np.int32)})["hidden"]
    np.testing.assert_allclose(hidden, np.repeat(hidden[:, :1], T, axis=1), atol=1e-5)


@pytest.mark.parametrize("item", ["shared", "across", "raw"])
def test_targets_are_items_one_by_one_or_seen_together_or_as_they_came(batch, item):
    model = make(item=item)
    batch = AllActions(targets=2, positions=2, window=3)(batch, rng=np.random.default_rng(0))
    targets = model(batch)["targets"]
    alone = np.stack([model({"content": batch["targets_content"][:, k]})["item"] for k in range(2)], axis=1)
    known = batch["targets"] > 0
    if item == "across":
        np.testing.assert_allclose(targets[:, 0][known[:, 0]], alone[:, 0][known[:, 0]], atol=1e-5)
        assert np.abs(targets - alone)[known[:, 1], 1].max() > 1e-3
    else:
        np.testing.assert_allclose(targets, alone, atol=1e-5)
    if item == "raw":
        cosine = np.einsum("btc,btc->bt", targets, batch["targets_content"])
        np.testing.assert_allclose(cosine, np.linalg.norm(batch["targets_content"], axis=-1), atol=1e-4)


def test_the_task_takes_the_states_it_is_told(batch):
    model, task = make(dropout=0.0), AllActionsLoss(scale=5.0, same=False)
    batch = AllActions(targets=1, positions=1, window=1, newest=True)(batch, rng=np.random.default_rng(0))
    out = model(batch)
    rows = np.flatnonzero((batch["targets"][:, 0] > 0) & (batch["positions"][:, 0] >= 0))
    states = np.stack([out["hidden"][i, batch["positions"][i, 0]] for i in rows])
    taken = np.flatnonzero(batch["targets"][:, 0] > 0)  # also by whom nothing is known of before
    logits = 5.0 * states @ np.asarray(out["targets"])[taken, 0].T
    assert len(taken) > len(rows)
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(rows)), np.searchsorted(taken, rows)])
    np.testing.assert_allclose(task.loss(out, batch)[0], expected, rtol=1e-4)
    assert set(task.predict(out, batch)) == {"query"}


def test_ids_and_texts_are_read_from_their_own_columns(batch):
    model = make(reads="ids")
    query = model(batch)["query"]
    changed = {**batch, "history_content": batch["history_content"] + 1}
    np.testing.assert_array_equal(query, model(changed)["query"])
    assert jax.tree.leaves(nnx.state(model, nnx.Param))
    with pytest.raises(ValueError, match="sequence of text"):
        LEARN(vectors="history").make(FEATURES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="raw"):
        make(reads="ids", item="raw")
