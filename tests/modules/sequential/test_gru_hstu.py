"""GRU4Rec and HSTU against their equations, and what both owe: no look ahead, nothing in padding."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features, Numeric, Sequence
from modules.sequential.gru import GRU4Rec
from modules.sequential.hstu import BUCKETS, HSTU, gap_buckets

V, T, D = 15, 5, 8
HISTORY = Sequence(name="history", of=Categorical(name="item", rows=V), length=T)
TIMES = Sequence(name="times", of=Numeric(name="time"), length=T)
FEATURES = Features(all=(HISTORY, TIMES))
CASES = {
    "gru": GRU4Rec(dim=D, width=6, depth=2),
    "hstu": HSTU(dim=D, heads=2, depth=2, times="times"),
    "hstu_softmax": HSTU(dim=D, depth=1, weighing="softmax", bias=False),
}


def randomised(config, rng):
    """With biases and norms that are not at their start, so that each can be seen."""
    model = config.make(FEATURES, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    drawn = jax.tree.map(lambda a: a + 0.3 * rng.normal(size=a.shape).astype(np.float32), params)
    return nnx.merge(graph, drawn, rest)


@pytest.fixture(scope="module", params=CASES)
def called(request):
    model = randomised(CASES[request.param], np.random.default_rng(1))
    graph, state = nnx.split(model)
    return model, jax.jit(lambda batch: nnx.merge(graph, state)(batch))


def batch_of(rng, lengths=(5, 2, 0)):
    lengths = np.array(lengths, np.int32)
    keep = np.arange(T) < lengths[:, None]
    ids = rng.integers(2, V, keep.shape).astype(np.int32)
    times = np.cumsum(rng.exponential(30, keep.shape), axis=1).astype(np.float32)
    return {"history": np.where(keep, ids, 0), "history/length": lengths, "times": times, "times/length": lengths}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return unit * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def dense(x, layer):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def hstu_by_hand(model, ids, times, *, heads, silu, factor):
    """One row without padding, loops over positions."""
    n = len(ids)
    x = factor * (np.asarray(model.item.table[...])[ids] * np.sqrt(D) + np.asarray(model.positions.vectors[...])[:n])
    for block in model.blocks:
        z = dense(norm(x, block.norm), block.uvqk)
        u, v, q, k = np.split(z * sigmoid(z), 4, axis=-1)
        mixed = np.zeros_like(x)
        for h in range(heads):
            part = slice(h * D // heads, (h + 1) * D // heads)
            for i in range(n):
                logits = []
                for j in range(i + 1):
                    logit = q[i, part] @ k[j, part]
                    if block.by_position is not None:
                        logit += float(block.by_position[i - j])
                    if block.by_time is not None:
                        gap = max(abs(float(times[i] - times[j])), 1.0)
                        logit += float(block.by_time[min(int(4 * np.log2(gap)), BUCKETS - 1)])
                    logits.append(logit)
                logits = np.array(logits)
                weight = logits * sigmoid(logits) / T if silu else np.exp(logits) / np.exp(logits).sum()
                mixed[i, part] = sum(w * v[j, part] for j, w in enumerate(weight))
        x = x + factor * dense(norm(mixed, block.norm_mixed) * u, block.out)
    return norm(x, model.last)


class Doubled:
    """In place of dropout: shows where in training it acts."""

    def __init__(self, rate):
        pass

    def __call__(self, x, *, rngs=None):
        return x if rngs is None else 2 * x


@pytest.mark.parametrize(("name", "training"), [("hstu", False), ("hstu", True), ("hstu_softmax", False)])
def test_hstu_is_its_equations(rng, name, training, monkeypatch):
    monkeypatch.setattr("modules.sequential.hstu.Dropout", Doubled)
    config, rngs = CASES[name], nnx.Rngs(0) if training else None
    model = randomised(config, rng)
    batch = batch_of(rng)
    graph, state = nnx.split(model)
    hidden = np.asarray(jax.jit(lambda b: nnx.merge(graph, state)(b, rngs=rngs)["hidden"])(batch))
    for row, length in ((0, 5), (1, 2)):
        expected = hstu_by_hand(
            model,
            batch["history"][row, :length],
            batch["times"][row, :length],
            heads=config.heads,
            silu=config.weighing == "silu",
            factor=2 if training else 1,
        )
        np.testing.assert_allclose(hidden[row, :length], expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("training", [False, True])
def test_gru_is_its_equations(rng, training, monkeypatch):
    monkeypatch.setattr("modules.sequential.gru.Dropout", Doubled)
    factor = 2 if training else 1
    model = randomised(GRU4Rec(dim=D, width=6), rng)
    batch = batch_of(rng)
    out = model(batch, rngs=nnx.Rngs(0) if training else None)
    layer = model.layers[0]
    state = np.zeros(6)
    recurrent = np.split(np.asarray(layer.recurrent[...]), 3, axis=1)
    for t, item in enumerate(batch["history"][0]):
        z_x, r_x, n_x = np.split(dense(factor * np.asarray(model.item.table[...])[item], layer.inputs), 3)
        z, r = sigmoid(z_x + state @ recurrent[0]), sigmoid(r_x + state @ recurrent[1])
        state = (1 - z) * state + z * np.tanh(n_x + r * (state @ recurrent[2]))
        np.testing.assert_allclose(out["hidden"][0, t], dense(factor * state, model.out), rtol=1e-4, atol=1e-5)


def test_a_later_item_does_not_move_an_earlier_state(rng, called):
    _, forward = called
    batch = batch_of(rng)
    changed = {**batch, "history": batch["history"].copy()}
    changed["history"][0, 3] = 2 + (batch["history"][0, 3] - 1) % (V - 2)
    a, b = forward(batch)["hidden"], forward(changed)["hidden"]
    np.testing.assert_array_equal(a[0, :3], b[0, :3])
    assert np.abs(a[0, 3:] - b[0, 3:]).max(-1).min() > 1e-5


def test_padding_holds_nothing(rng, called):
    model, forward = called
    batch = batch_of(rng)
    spoilt = {**batch, "history": np.where(batch["history"] == 0, 7, batch["history"])}
    a, b = forward(batch), forward(spoilt)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    np.testing.assert_array_equal(a["hidden"][1, 2:], 0)
    np.testing.assert_array_equal(a["last"], [a["hidden"][0, 4], a["hidden"][1, 1], np.zeros(D)])
    cut = {name: array[1:2, :3] if array.ndim == 2 else array[1:2] for name, array in batch.items()}
    np.testing.assert_allclose(model(cut)["last"], a["last"][1:2], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="dim 8 does not divide into 3 heads"):
        HSTU(dim=D, heads=3)
    short = Sequence(name="times", of=Numeric(name="time"), length=T - 1)
    with pytest.raises(ValueError, match="'times' has 4 places, the history others"):
        HSTU(dim=D, times="times").make(Features(all=(HISTORY, short)), rngs=nnx.Rngs(0))


def test_gaps_fall_into_quarters_of_their_logarithm():
    found = np.asarray(gap_buckets(np.array([[0.0, 0.5, 2.0, 1024.0, 1e9]])))[0]
    assert found[0].tolist() == [0, 0, 4, 40, BUCKETS - 1]
    assert (found == found.T).all()
