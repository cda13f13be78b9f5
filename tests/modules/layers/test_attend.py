"""Dot-product attention over a history, in numpy one row and one behaviour at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.layers.attend import attend, attention_weights

LENGTHS = (0, 1, 5, 3)
MASK = np.arange(5)[None, :] < np.array(LENGTHS)[:, None]


def arrays(users: int = 4):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return draw(4, 3), draw(users, 5, 3), draw(users, 5, 2)


def plain(query, keys, values, *, length, normalise, scale):
    scores = [scale * sum(q * k for q, k in zip(query, key, strict=True)) for key in keys[:length]]
    if normalise == "relu":
        weights = [max(s, 0.0) for s in scores]
    else:
        weights = [np.exp(s) / sum(np.exp(scores)) for s in scores]
    return sum((w * v for w, v in zip(weights, values[:length], strict=True)), np.zeros(values.shape[1]))


@pytest.mark.parametrize("normalise", ["softmax", "relu"])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_it_equals_numpy(normalise, scale):
    query, keys, values = arrays()
    found = attend(query, keys=keys, values=values, mask=jnp.asarray(MASK), normalise=normalise, scale=scale)
    expected = [
        plain(q, k, v, length=n, normalise=normalise, scale=1 / np.sqrt(3) if scale is None else scale)
        for q, k, v, n in zip(query, keys, values, LENGTHS, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not np.any(found[0])


@pytest.mark.parametrize("normalise", ["softmax", "relu"])
def test_a_shared_history_is_a_tiled_one(normalise):
    query, keys, values = arrays(users=1)
    mask = jnp.asarray(MASK[3:])
    shared = attend(query, keys=keys, values=values, mask=mask, normalise=normalise)
    tiled = attend(
        query, keys=np.tile(keys, (4, 1, 1)), values=np.tile(values, (4, 1, 1)), mask=np.tile(mask, (4, 1)),
        normalise=normalise,
    )  # fmt: skip
    np.testing.assert_allclose(shared, tiled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalise", ["softmax", "relu"])
def test_padding_has_no_weight_and_no_gradient(normalise):
    query, keys, values = arrays()
    mask = jnp.asarray(MASK)
    weights = attention_weights(query, keys=keys, mask=mask, normalise=normalise)
    assert not np.any(np.asarray(weights)[~MASK])
    if normalise == "softmax":
        np.testing.assert_allclose(weights.sum(1), [0, 1, 1, 1], rtol=1e-6)

    def loss(query, keys, values):
        return jnp.square(attend(query, keys=keys, values=values, mask=mask, normalise=normalise)).sum()

    for gradient in jax.grad(loss, argnums=(0, 1, 2))(*map(jnp.asarray, (query, keys, values))):
        gradient = np.asarray(gradient)
        assert np.isfinite(gradient).all()
        if gradient.ndim == 3:
            assert not np.any(gradient[~MASK])


def test_half_precision_scores_are_summed_in_full():
    query, keys, values = (x.astype(jnp.bfloat16) for x in arrays())
    assert attention_weights(query, keys=keys, mask=jnp.asarray(MASK)).dtype == jnp.float32
    assert attend(query, keys=keys, values=values, mask=jnp.asarray(MASK)).dtype == jnp.bfloat16
