"""Layer normalisation against flax's, with its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.layers.layer_norm import LayerNorm


@pytest.mark.parametrize("shape", [(6, 8), (2, 3, 5, 8)])
def test_equals_flax_and_so_do_its_gradients(rng, shape):
    x, weigh = (rng.normal(2.0, 3.0, size=shape).astype(np.float32) for _ in range(2))
    ours, theirs = LayerNorm(8), nnx.LayerNorm(8, use_fast_variance=False, rngs=nnx.Rngs(0))
    for name in ("scale", "bias"):
        values = rng.normal(size=8).astype(np.float32)
        for layer in (ours, theirs):
            getattr(layer, name)[...] = values

    def of(layer):
        graph, state = nnx.split(layer)
        return jax.value_and_grad(lambda s, x: (weigh * nnx.merge(graph, s)(x)).sum(), argnums=(0, 1))(state, x)

    for a, b in zip(*(jax.tree.leaves(nnx.to_pure_dict(nnx.state(v))) for v in (ours, theirs)), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(of(ours)), jax.tree.leaves(of(theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_normalised_in_float32(rng):
    x = jnp.asarray(1000 + rng.normal(size=(4, 256)), jnp.bfloat16)
    out = LayerNorm(256)(x)
    assert out.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True)
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, atol=0.02)


def test_a_constant_row_has_the_bias_and_a_finite_gradient():
    layer = LayerNorm(4)
    layer.bias[...] = jnp.arange(4.0)
    x = jnp.full((2, 4), 7.0)
    np.testing.assert_array_equal(layer(x), [[0, 1, 2, 3]] * 2)
    np.testing.assert_array_equal(jax.grad(lambda x: layer(x).sum())(x), 0)
