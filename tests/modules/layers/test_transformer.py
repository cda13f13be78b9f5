"""The transformer block against numpy; masks; patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.layers.attention import BLOCK, attend, visible
from modules.layers.patches import patchify
from modules.layers.transformer import Transformer

B, T, D, H = 2, 5, 8, 2


def layer_norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def attention(x, p, mask):
    def split(y):
        return y.reshape(B, T, H, D // H).transpose(0, 2, 1, 3)

    q, k, v = (split(linear(x, p[name])) for name in ("query", "key", "value"))
    logits = np.where(mask[:, None], q @ k.transpose(0, 1, 3, 2) / np.sqrt(D // H), -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ v
    return linear(mixed.transpose(0, 2, 1, 3).reshape(B, T, D), p["out"])


def mlp(x, p):
    up = linear(x, p["up"])
    gelu = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    return linear(gelu, p["down"])


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_block_equals_numpy(rng, norm):
    model = Transformer(D, depth=1, heads=H, norm=norm, rngs=nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), params)
    nnx.replace_by_pure_dict(state := nnx.state(model, nnx.Param), params)
    nnx.update(model, state)
    x = rng.normal(size=(B, T, D)).astype(np.float32)
    mask = np.asarray(visible(jnp.ones((B, T), bool), causal=True))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    block = p["blocks"][0]
    if norm == "pre":
        y = x + attention(layer_norm(x, block["norm_attention"]), block["attention"], mask)
        expected = layer_norm(y + mlp(layer_norm(y, block["norm_mlp"]), block), p["last"])
    else:
        y = layer_norm(x + attention(x, block["attention"], mask), block["norm_attention"])
        expected = layer_norm(y + mlp(y, block), block["norm_mlp"])
    np.testing.assert_allclose(model(x, mask=mask), expected, rtol=1e-4, atol=1e-4)


def test_who_sees_whom():
    mask = visible(jnp.array([[True, True, False]]), causal=True)[0]
    np.testing.assert_array_equal(mask, [[1, 0, 0], [1, 1, 0], [1, 1, 0]])
    mask = visible(jnp.array([[True, True, False]]))[0]
    np.testing.assert_array_equal(mask, [[1, 1, 0]] * 3)


def test_a_query_that_sees_nothing_gets_zeros(rng):
    x = rng.normal(size=(1, 3, 1, 4)).astype(np.float32)

    def loss(x):
        return attend(x, x, x, mask=jnp.zeros((1, 3, 3), bool)).sum()

    np.testing.assert_array_equal(attend(x, x, x, mask=jnp.zeros((1, 3, 3), bool)), 0)
    np.testing.assert_array_equal(jax.grad(loss)(x), 0)


@pytest.mark.parametrize("length", [BLOCK, BLOCK + 1, 3 * BLOCK - 1, 6 * BLOCK + 5])
def test_blocks_of_queries_see_what_a_mask_of_all_pairs_shows(rng, length):
    query, key, value = (rng.normal(size=(2, length, 2, 4)).astype(np.float32) for _ in range(3))
    valid = np.arange(length) >= np.array([[0], [length // 2]])  # the second row's first half is padding

    def of(attended):
        return jax.value_and_grad(lambda *x: (attended(*x) ** 2).sum(), argnums=(0, 1, 2))(query, key, value)

    some = rng.random((2, length, length)) < 0.7
    whole = of(lambda *x: attend(*x, mask=visible(valid, causal=True) & some))
    blocks = of(lambda *x: attend(*x, mask=visible(valid) & some, causal=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), blocks, whole)


def test_blocks_leave_out_products_with_newer_keys():
    x = jnp.zeros((1, 4 * BLOCK, 1, 8))

    def products(causal):
        return jax.jit(lambda x: attend(x, x, x, causal=causal)).lower(x).cost_analysis()["flops"]

    assert products(True) < 0.66 * products(False)


def test_causal_attention_needs_as_many_keys_as_queries(rng):
    x = jnp.zeros((1, 4, 1, 2))
    with pytest.raises(ValueError, match="3 queries over 4 keys"):
        attend(x[:, :3], x, x, causal=True)


def test_patches_are_squares_of_the_picture(rng):
    image = rng.normal(size=(1, 8, 12, 3)).astype(np.float32)
    patches = patchify(image, size=4)
    assert patches.shape == (1, 6, 48)
    np.testing.assert_array_equal(patches[0, 4].reshape(4, 4, 3), image[0, 4:8, 4:8])
