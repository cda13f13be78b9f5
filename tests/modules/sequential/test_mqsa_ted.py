"""MQSA-TED: SASRec's own block in numpy, the long query's mean, and how the two are mixed."""

import chz
import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features, Numeric, Sequence
from modules.sequential.mqsa_ted import MQSATED, newest_mean

V, T, D = 21, 6, 8
FEATURES = Features(all=(Sequence(name="history", of=Categorical(name="item", rows=V), length=T),))
BOTH = MQSATED(dim=D, alpha=0.3)


def make(config):
    return config.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def model():
    return make(BOTH)


@pytest.fixture
def batch(rng):
    length = np.array([6, 3, 1, 0], np.int32)
    ids = rng.integers(2, V, (4, T)).astype(np.int32)
    return {"history": np.where(np.arange(T) < length[:, None], ids, 0), "history/length": length}


def norm(x, layer):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * value(layer.scale) + value(layer.bias)


def value(parameter):
    return np.asarray(parameter.get_value(), np.float64)


def apply(layer, x):
    return x @ value(layer.kernel) + value(layer.bias)


def block(encoder, x, query):
    """One user without padding: Q = LN(query), K = V = x, causal, each residual on what was normalised."""
    query = norm(query, encoder.norm_query)
    q, k, v = (
        apply(layer, y)
        for layer, y in (
            (encoder.attention.query, query),
            (encoder.attention.key, x),
            (encoder.attention.value, x),
        )
    )
    logits = np.where(np.tril(np.ones((len(x), len(x)))) > 0, q @ k.T / np.sqrt(D), -np.inf)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    y = norm(query + apply(encoder.attention.out, weights @ v), encoder.norm_mlp)
    return norm(y + apply(encoder.down, np.maximum(apply(encoder.up, y), 0)), encoder.last)


def inputs(model, ids):
    return value(model.item.table)[ids] * np.sqrt(D) + value(model.positions.vectors)[: len(ids)]


def test_states_are_the_paper_s_for_any_mix(model, batch):
    for row, length in ((0, 6), (1, 3)):
        x = inputs(model, batch["history"][row, :length])
        means = np.stack([x[max(0, t - 2) : t + 1].mean(0) for t in range(length)])
        expected = 0.3 * block(model.short, x, x) + 0.7 * block(model.long, x, means)
        np.testing.assert_allclose(model(batch)["hidden"][row, :length], expected, atol=2e-5)


def test_at_alpha_1_it_is_sasrec_s_block_alone(batch):
    alone = make(chz.replace(BOTH, alpha=1.0))
    x = inputs(alone, batch["history"][0])
    np.testing.assert_allclose(alone(batch)["hidden"][0], block(alone.short, x, x), atol=2e-5)
    assert alone.long is None and make(chz.replace(BOTH, alpha=0.0)).short is None


def test_a_long_query_of_one_item_is_the_short_query(batch):
    model = make(chz.replace(BOTH, newest=1))
    model.long = nnx.clone(model.short)
    alone = nnx.clone(model)
    alone.long, alone.alpha = None, 1.0
    np.testing.assert_allclose(model(batch)["hidden"], alone(batch)["hidden"], atol=1e-5)


def test_means_are_of_what_there_is(rng):
    x = rng.normal(size=(2, 4, 3)).astype(np.float32)
    where = np.array([[True] * 4, [True, False, True, False]])
    found = newest_mean(x, where=where, count=3)
    np.testing.assert_allclose(found[0, 3], x[0, 1:].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[0, 0], x[0, 0], rtol=1e-5)
    np.testing.assert_allclose(found[1, 2], x[1, [0, 2]].mean(0), rtol=1e-5)
    np.testing.assert_allclose(newest_mean(x, where=where, count=9)[0, 3], x[0].mean(0), rtol=1e-5)


def test_a_later_item_moves_no_earlier_state_and_padding_none(model, batch):
    graph, state = nnx.split(model)
    forward = jax.jit(lambda batch: nnx.merge(graph, state)(batch))
    changed = {**batch, "history": batch["history"].copy()}
    changed["history"][0, 4] = 2 + (batch["history"][0, 4] - 1) % (V - 2)
    a, b = forward(batch), forward(changed)
    np.testing.assert_allclose(a["hidden"][0, :4], b["hidden"][0, :4], atol=1e-6)
    assert np.abs(a["last"][0] - b["last"][0]).max() > 1e-4
    spoilt = {**batch, "history": np.where(batch["history"] == 0, 7, batch["history"])}
    np.testing.assert_allclose(a["last"], forward(spoilt)["last"], atol=1e-6)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="at least one item"):
        MQSATED(newest=0)
    features = Features(all=(Sequence(name="history", of=Numeric(name="price"), length=T),))
    with pytest.raises(ValueError, match="'history' is one of numbers"):
        MQSATED().make(features, rngs=nnx.Rngs(0))
