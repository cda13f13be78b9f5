"""The mixture of experts against numpy: picks, all of them, none turned away, and the balance."""

import jax
import numpy as np
import pytest
from flax import nnx

from modules.layers.experts import Experts, balance_losses
from modules.layers.transformer import Transformer
from train.graph import split, values_of, with_values

D, H = 6, 8


def layer_of(rng, **fields):
    layer = Experts(count=3, balance=0.5, **fields).make(D, hidden=H, activation="quick", rngs=nnx.Rngs(0))
    state = nnx.state(layer, nnx.Param)
    nnx.update(layer, jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), state))
    return layer


def expected(layer, x):
    """Gate's shares, and what each expert says."""
    gate, up, down = (np.asarray(m.kernel[...], np.float64) for m in (layer.gate, layer.up, layer.down))
    logits = x @ gate
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    said = []
    for e in range(3):
        y = x @ up[e] + np.asarray(layer.up.bias[...])[e]
        said.append((y / (1 + np.exp(-1.702 * y))) @ down[e] + np.asarray(layer.down.bias[...])[e])
    return shares, np.stack(said, axis=-2)


@pytest.mark.parametrize("active", [1, 2, 3])
def test_sum_of_the_picks(rng, active):
    layer, x = layer_of(rng, active=active), rng.normal(size=(2, 5, D)).astype(np.float32)
    x[0] = x[0, :1]  # five positions want the same expert: none is turned away
    shares, said = expected(layer, x)
    picked = np.argsort(np.argsort(-shares, axis=-1), axis=-1) < active
    wanted = np.einsum("bte,bted->btd", shares * picked, said)
    np.testing.assert_allclose(jax.jit(lambda x: layer(x))(x), wanted, rtol=1e-4, atol=1e-4)


def test_all_experts_are_the_dense_sum(rng):
    layer, x = layer_of(rng, active=3), rng.normal(size=(2, 4, D)).astype(np.float32)
    shares, said = expected(layer, x)
    np.testing.assert_allclose(layer(x), (shares[..., None] * said).sum(-2), rtol=1e-4, atol=1e-4)


def test_balance_counts_what_is_there(rng):
    layer, x = layer_of(rng, active=2), rng.normal(size=(2, 4, D)).astype(np.float32)
    where = np.array([[True] * 4, [True, False, False, False]])
    shares, _ = expected(layer, x)
    f = (np.argsort(np.argsort(-shares, axis=-1), axis=-1) < 2)[where].mean(0) / 2
    layer(x, where=where)
    assert float(balance_losses(layer)["aux_loss/balance"]) == 0  # inference owes nothing
    layer(x, where=where, training=True)
    assert float(balance_losses(layer)["aux_loss/balance"]) == pytest.approx(
        0.5 * 3 * (f * shares[where].mean(0)).sum(), rel=1e-4
    )


def test_an_even_gate_owes_one_and_a_greedy_one_owes_more(rng):
    layer, x = layer_of(rng, active=3), rng.normal(size=(1, 4, D)).astype(np.float32)
    layer.gate.kernel.set_value(np.zeros((D, 3), np.float32))
    layer(x, training=True)
    assert float(layer.balance[...]) == pytest.approx(0.5, rel=1e-5)
    greedy = layer_of(rng, active=1)
    greedy.gate.kernel.set_value(np.eye(D, 3, dtype=np.float32) * 50)
    greedy((1 + np.abs(x)) * np.eye(D, dtype=np.float32)[0], training=True)
    assert float(greedy.balance[...]) == pytest.approx(1.5, rel=1e-3)


def test_gate_and_experts_learn_through_a_block(rng):
    model = Transformer(D, depth=1, heads=2, experts=Experts(count=3, active=1), rngs=nnx.Rngs(0))
    graph, params, rest = split(model)
    x, mask = rng.normal(size=(2, 5, D)).astype(np.float32), np.ones((2, 5, 5), bool)

    def loss(params):
        merged = nnx.merge(graph, params, with_values(rest, values_of(rest)))
        return (merged(x, mask=mask, rngs=nnx.Rngs(0)) * x).sum() + balance_losses(merged)["aux_loss/balance"]

    grads = jax.jit(jax.grad(loss))(params)["blocks"][0]["experts"]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("active", [0, 4])
def test_more_picks_than_experts_are_refused(active):
    with pytest.raises(ValueError, match=f"active is {active} of 3"):
        Experts(count=3, active=active)
