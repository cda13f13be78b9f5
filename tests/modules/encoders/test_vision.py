"""What a vision transformer can be told beside its sizes."""

import jax
import numpy as np
import pytest
from flax import nnx

from modules.encoders.vision import ViT
from modules.layers.patches import resize_grid
from modules.layers.tokens import keep_some
from train.graph import split, values_of, with_values

SMALL = {"patch": 4, "dim": 8, "depth": 1, "heads": 2}


def filled(config, *, shape=(12, 12, 3)):
    """An encoder with normal weights, without the cost of its own initialisation."""
    graph, params, rest = split(nnx.eval_shape(lambda: config.make(shape, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(1)
    values = {n: rng.normal(size=a.shape).astype(np.float32) / 2 for n, a in sorted(values_of(params).items())}
    return nnx.merge(graph, with_values(params, values), rest)


def encode(model, images, **more):
    graph, state = nnx.split(model)
    return jax.jit(lambda images: nnx.merge(graph, state)(images, **more))(images)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)


def test_registers_stand_between_the_class_token_and_the_patches(images):
    model = filled(ViT(**SMALL, pool="cls", registers=2))
    states = jax.jit(lambda x: model.states(x))(images)
    assert states.shape == (3, 1 + 2 + 9, 8)
    np.testing.assert_allclose(encode(model, images), states[:, 0], atol=1e-5)
    before = np.asarray(encode(model, images))
    model.registers.set_value(-model.registers.get_value())
    assert np.abs(encode(model, images) - before).max() > 1e-3  # they are attended to


def test_the_mean_is_of_the_patches_alone(images):
    model = filled(ViT(**SMALL, registers=2))
    states = jax.jit(lambda x: model.states(x))(images)
    np.testing.assert_allclose(encode(model, images), states[:, 2:].mean(1), atol=1e-5)


def test_positions_are_interpolated_to_other_sizes(images, rng):
    learned = filled(ViT(**SMALL, learned_at=(12, 12)))
    plain = filled(ViT(**SMALL))
    np.testing.assert_array_equal(encode(learned, images), encode(plain, images))
    wide = rng.integers(0, 256, (2, 12, 24, 3)).astype(np.uint8)
    model = filled(ViT(**SMALL, learned_at=(12, 12)), shape=(12, 24, 3))
    assert model.patches.positions.shape == (9, 8)
    model.patches.positions.set_value(np.ones((9, 8), np.float32))
    found = encode(model, wide)
    model.patches.grid = (3, 6)
    model.patches.positions.set_value(np.ones((18, 8), np.float32))
    np.testing.assert_allclose(encode(model, wide), found, atol=1e-5)  # a constant stays one
    with pytest.raises(ValueError, match="13x12 do not divide"):
        model(np.zeros((1, 13, 12, 3), np.uint8))


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_a_grid_of_the_same_size_is_the_same_array(rng, method):
    grid = rng.normal(size=(6, 4)).astype(np.float32)
    assert resize_grid(grid, old=(2, 3), new=(2, 3), method=method) is grid
    up = np.asarray(resize_grid(grid, old=(2, 3), new=(2, 6), method=method)).reshape(2, 6, 4)
    assert not np.allclose(up[:, ::2], grid.reshape(2, 3, 4))
    if method == "bilinear":  # new centres lie a quarter of a step beside the old ones
        old = grid.reshape(2, 3, 4)
        np.testing.assert_allclose(up[:, 1], 0.75 * old[:, 0] + 0.25 * old[:, 1], atol=1e-5)
        np.testing.assert_allclose(up[:, 2], 0.25 * old[:, 0] + 0.75 * old[:, 1], atol=1e-5)


def test_dropped_patches_are_others_in_each_row_and_in_training_alone(images, rng):
    x = np.arange(40.0).reshape(2, 20, 1)
    kept = np.asarray(keep_some(x, count=5, rngs=nnx.Rngs(0)))[..., 0]
    assert kept.shape == (2, 5) and (np.diff(kept) > 0).all()
    assert set(kept[0]) <= set(range(20)) and set(kept[0] + 20) != set(kept[1])
    model = filled(ViT(**SMALL, drop_patches=0.5, pool="cls"))
    plain = filled(ViT(**SMALL, pool="cls"))
    np.testing.assert_array_equal(encode(model, images), encode(plain, images))
    states = nnx.eval_shape(lambda: model.states(images, rngs=nnx.Rngs(0)))
    assert states.shape == (3, 1 + 4, 8)
    with pytest.raises(ValueError, match=r"drop_patches is 1\.0"):
        ViT(drop_patches=1.0)
