"""A linear layer on rows: flax's numbers, by products of two matrices."""

import jax
import numpy as np
import pytest
from flax import nnx

from modules.layers.linear import Linear


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (2, 1, 4, 3)])
def test_equals_flax(rng, shape):
    x = rng.normal(size=shape).astype(np.float32)
    ours, theirs = (kind(3, 5, rngs=nnx.Rngs(0)) for kind in (Linear, nnx.Linear))
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-6, atol=1e-6)


def test_the_derivative_is_a_product_of_two_matrices():
    graph, state = nnx.split(Linear(3, 5, rngs=nnx.Rngs(0)))
    text = str(
        jax.make_jaxpr(jax.grad(lambda s, x: nnx.merge(graph, s)(x).sum()))(state, np.zeros((2, 4, 3), np.float32))
    )
    assert "dot_general" in text and "([0, 1], [0, 1])" not in text and "f32[8,3]" in text


def test_a_function_of_the_inputs_may_stand_in_for_the_layer_below(monkeypatch):
    monkeypatch.setattr(nnx.Linear, "__call__", lambda self, x: x)
    assert Linear(3, 5, rngs=nnx.Rngs(0))(np.zeros((2, 4, 3))).shape == (2, 4, 3)
