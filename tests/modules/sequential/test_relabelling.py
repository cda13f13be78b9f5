"""An item's number means nothing: with other numbers a trained model gives each item the score that it had."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from data.features import Categorical, Features, Sequence
from modules.sequential.bert4rec import BERT4Rec
from modules.sequential.gru import GRU4Rec
from modules.sequential.hstu import HSTU
from modules.sequential.icsrec import ICSRec
from modules.sequential.idnp import IDNP
from modules.sequential.mqsa_ted import MQSATED
from modules.sequential.s3rec import S3Rec
from modules.sequential.sasrec import SASRec
from train.tasks.next_item import NextItem

V, T, D = 51, 7, 8
SPECIAL = 2
"""Rows that are no items: of padding and of what is not known."""
LENGTH = np.array([7, 4, 1, 0], np.int32)
CONFIGS = {
    "sasrec": SASRec(dim=D, depth=1, dropout=0.0),
    "bert4rec": BERT4Rec(dim=D, depth=1, expand=2, dropout=0.0),
    "mqsa_ted": MQSATED(dim=D),
    "gru": GRU4Rec(dim=D, width=6),
    "hstu": HSTU(dim=D, depth=1),
    "idnp": IDNP(dim=D, window=3, scales=2, dropout=0.0),
    "icsrec": ICSRec(encoder=SASRec(dim=D, depth=1, dropout=0.0), intents=3),
    "s3rec": S3Rec(dim=D, depth=1, dropout=0.0, attributes=("history_colour",)),
}


def made(name):
    rows = V + (name == "bert4rec")  # of the mask
    sequences = {"history": rows} | {"icsrec": {"other_history": rows}, "s3rec": {"history_colour": 5}}.get(name, {})
    features = Features(
        all=tuple(Sequence(name=n, of=Categorical(name=f"of_{n}", rows=r), length=T) for n, r in sequences.items())
    )
    return nnx.split(CONFIGS[name].make(features, rngs=nnx.Rngs(0)), nnx.Param, ...)


def batch_of(rng):
    keep = np.arange(T) < LENGTH[:, None]
    found = {"target": rng.integers(SPECIAL, V, len(LENGTH)).astype(np.int32)}
    for name, rows in (("history", V), ("history_colour", 5)):
        found[name] = np.where(keep, rng.integers(SPECIAL, rows, keep.shape), 0).astype(np.int32)
        found[f"{name}/length"] = LENGTH
    return found


def renumbered(params, *, order):
    """Whatever has a row for each item gets its rows in the other order; a table may have a few to spare."""
    return jax.tree.map(lambda a: a.at[order].set(a[:V]) if a.ndim and V <= a.shape[0] <= 56 else a, params)


@pytest.mark.parametrize("name", CONFIGS)
def test_other_numbers_give_each_item_the_score_that_it_had(name, rng):
    graph, params, rest = made(name)
    batch = batch_of(rng)
    order = np.concatenate([np.arange(SPECIAL), SPECIAL + rng.permutation(V - SPECIAL)])  # old id -> new id
    other = {**batch, "history": order[batch["history"]].astype(np.int32), "target": order[batch["target"]]}

    def scores(params, batch):
        return NextItem().predict(nnx.merge(graph, params, rest)(batch), batch)["scores"][:, :V]

    @jax.jit
    def trained(params, batch):
        """Ten steps on the item that comes next, then the scores."""

        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(scores(params, batch), batch["target"]).mean()

        def step(params, _):
            value, grads = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda a, g: a - 0.5 * g, params, grads), value

        params, losses = jax.lax.scan(step, params, None, length=10)
        return losses, scores(params, batch)

    losses, before = trained(params, batch)
    again, after = trained(renumbered(params, order=jnp.asarray(order)), other)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(again, losses, atol=1e-5)
    np.testing.assert_allclose(after[:, order], before, atol=2e-4)
    assert np.abs(after - before).max() > 0.01
