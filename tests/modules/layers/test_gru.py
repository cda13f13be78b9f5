"""GRU and AUGRU in numpy, one step at a time, and AUGRU's two limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.layers.gru import GRU
from tests.modules import click_rows as rows

MASK = np.arange(4)[None, :] < np.asarray([0, 2, 4])[:, None]


def inputs(users: int = 3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(users, 4, 5)).astype(np.float32), rng.random((3, 4)).astype(np.float32)


def make() -> GRU:
    gru = GRU(5, width=3, rngs=nnx.Rngs(0))
    gru.inputs.bias[...] = jnp.linspace(-1, 1, 9)
    return gru


def run(gru, x, **options):
    graph, state = nnx.split(gru)
    return jax.jit(lambda s, x, o: nnx.merge(graph, s)(x, **o))(state, x, options)


def plain(gru, x, *, a):
    """States of one row."""
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    u = rows.float64(gru.recurrent)
    s, states = np.zeros(3), []
    for x_t, a_t in zip(x, a, strict=True):
        w = rows.dense(x_t, gru.inputs)
        z, r = sigmoid(w[:3] + s @ u[:, :3]), sigmoid(w[3:6] + s @ u[:, 3:6])
        n = np.tanh(w[6:] + r * (s @ u[:, 6:]))
        s = (1 - a_t * z) * s + a_t * z * n
        states.append(s)
    return np.asarray(states).reshape(-1, 3)


@pytest.mark.parametrize("attended", [False, True])
def test_the_states_equal_numpy(attended):
    gru = make()
    x, a = inputs()
    states, last = run(gru, x, mask=MASK, **({"attention": a} if attended else {}))
    for row, there in enumerate(MASK.sum(1)):
        expected = plain(gru, x[row, :there], a=a[row, :there] if attended else np.ones(there))
        np.testing.assert_allclose(states[row, :there], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last[row], expected[-1] if there else np.zeros(3), rtol=1e-4, atol=1e-5)


def test_attention_of_one_is_a_gru_and_of_none_keeps_the_state():
    gru = make()
    x, a = inputs()
    plain_states, _ = run(gru, x, mask=MASK)
    states, _ = run(gru, x, mask=MASK, attention=np.ones_like(a))
    np.testing.assert_array_equal(states, plain_states)
    closed = a * (np.arange(4) < 2)
    states, last = run(gru, x, mask=np.ones_like(MASK), attention=closed)
    np.testing.assert_array_equal(states[:, 2:], np.repeat(states[:, 1:2], 2, axis=1))
    np.testing.assert_array_equal(last, states[:, 1])
    _, last = run(gru, x, mask=np.ones_like(MASK), attention=np.zeros_like(a))
    assert not np.any(last)


def test_padding_freezes_the_state_and_has_no_gradient():
    gru = make()
    x, a = inputs()
    states, _ = run(gru, x, mask=MASK, attention=a)
    np.testing.assert_array_equal(states[1, 2:], np.repeat(states[1, 1:2], 2, axis=0))
    graph, state = nnx.split(gru)
    loss = lambda x: jnp.square(nnx.merge(graph, state)(x, mask=MASK, attention=a)[1]).sum()  # noqa: E731
    gradient = np.asarray(jax.jit(jax.grad(loss))(x))
    assert not np.any(gradient[~MASK]) and np.all(np.any(gradient[MASK], axis=-1))


def test_one_list_of_behaviours_serves_every_candidate():
    gru = make()
    x, a = inputs(users=1)
    mask = MASK[1:2]
    states, last = run(gru, x, mask=mask, attention=a)
    tiled, tiled_last = run(gru, np.tile(x, (3, 1, 1)), mask=np.tile(mask, (3, 1)), attention=a)
    np.testing.assert_allclose(states, tiled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, tiled_last, rtol=1e-5, atol=1e-6)
