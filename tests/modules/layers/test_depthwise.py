"""The sum of shifted pictures is the convolution, in values and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.layers.depthwise import Depthwise, convolved, shifted


@pytest.mark.parametrize("sides", [(8, 6), (7, 5), (1, 2)])
@pytest.mark.parametrize("places", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_shifted_is_the_convolution(sides, places, stride):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *sides, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(places, places, 1, 3)), jnp.float32)
    theirs, pull = jax.vjp(lambda *at: convolved(*at, stride), x, kernel)
    ours, pull_ours = jax.vjp(lambda *at: shifted(*at, stride), x, kernel)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    slope = jnp.asarray(rng.normal(size=theirs.shape), jnp.float32)
    for found, wanted in zip(pull_ours(slope), pull(slope), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_layer_reads_each_channel_by_its_own_filter():
    layer = Depthwise(2, kernel=3, rngs=nnx.Rngs(0))
    identity, left = np.zeros((3, 3)), np.zeros((3, 3))
    identity[1, 1], left[1, 0] = 1, 1
    layer.kernel[...] = jnp.asarray(np.stack([identity, left], -1)[:, :, None], jnp.float32)
    picture = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    found = np.asarray(layer(jnp.asarray(np.concatenate([picture, picture], -1))))
    np.testing.assert_array_equal(found[..., 0], picture[..., 0])
    np.testing.assert_array_equal(found[0, :, :, 1], [[0, 0, 1], [0, 3, 4]])


def test_half_precision_is_summed_in_single():
    x = jnp.full((1, 5, 5, 1), 1.0, jnp.bfloat16)
    kernel = jnp.full((5, 5, 1, 1), 1 + 2**-7, jnp.bfloat16)
    found = shifted(x, kernel, 1)
    assert found.dtype == jnp.bfloat16
    assert float(found[0, 2, 2, 0]) == float(jnp.bfloat16(25 * (1 + 2**-7)))


@pytest.mark.parametrize(("platform", "convolves"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_devices_other_than_cpus_keep_their_convolution(platform, convolves):
    layer = Depthwise(2, kernel=3, rngs=nnx.Rngs(0))
    lowered = jax.jit(lambda x: layer(x)).trace(jnp.zeros((1, 4, 4, 2))).lower(lowering_platforms=(platform,))
    assert ("stablehlo.convolution" in lowered.as_text()) == convolves
