"""Attention across fields and its norm: their written-out derivatives against those of the plain sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.layers.field_attention import EPSILON, layer_norm, meet, mix


def plain_norm(x, scale, bias):
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + EPSILON)
    return normal * scale[None] + bias[None]


CASES = {
    "meet": (meet, lambda q, k: q @ k.swapaxes(2, 3), ((2, 3, 5, 4), (2, 3, 5, 4))),
    "mix": (mix, lambda w, v: w @ v, ((2, 3, 5, 5), (2, 3, 5, 4))),
    "layer_norm": (layer_norm, plain_norm, ((7, 6), (6,), (6,))),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_derivative_are_those_of_the_plain_form(name, rng):
    ours, plain, shapes = CASES[name]
    inputs = [jnp.asarray(rng.normal(size=s)) for s in shapes]
    (found, back), (wanted, back_plain) = jax.vjp(ours, *inputs), jax.vjp(plain, *inputs)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-5)
    g = jnp.asarray(rng.normal(size=found.shape))
    for a, b in zip(back(g), back_plain(g), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
