"""Image-text pairs: sides, encoders, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Dense, Features, Image, Text
from modules.content.image_text import ImageText
from modules.content.picture import Picture
from modules.content.sentence import Sentence
from modules.encoders.efficientnet import EfficientNetLite, means_of_parts, relu6
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ConvNet, ViT, to_unit
from modules.layers.mlp import MLP

FEATURES = Features(all=(Image(name="image", height=16, width=16), Text(name="title", tokens=30, length=6)))
SMALL = {"language": TextTransformer(dim=8, heads=2), "dim": 4}
ENCODERS = {
    "mean": ViT(patch=8, dim=8, depth=1, heads=2),
    "map": ViT(patch=8, dim=8, depth=1, heads=2, pool="map"),
    "conv": ConvNet(widths=(4, 8)),
}


@pytest.fixture
def batch(rng):
    length = np.array([6, 3, 0])
    return {
        "image": rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8),
        "title": np.where(np.arange(6) < length[:, None], rng.integers(1, 30, (3, 6)), 0),
        "title/length": length,
    }


def forward(model, *inputs):
    graph, state = nnx.split(model)
    return jax.jit(lambda *inputs: nnx.merge(graph, state)(*inputs))(*inputs)


@pytest.mark.parametrize("name", ENCODERS)
def test_sides_are_unit_vectors_and_stand_alone(batch, name):
    model = ImageText(vision=ENCODERS[name], bias=-10.0, **SMALL).make(FEATURES, rngs=nnx.Rngs(0))
    outputs = forward(model, batch)
    np.testing.assert_allclose(np.linalg.norm(outputs["item"], axis=-1), 1, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(outputs["query"], axis=-1), [1, 1, 0], atol=1e-4)
    assert float(outputs["bias"]) == -10
    image = forward(model, {"image": batch["image"][1:2]})
    assert set(image) == {"item", "log_scale", "bias"}
    np.testing.assert_allclose(image["item"], outputs["item"][1:2], atol=1e-5)


def test_what_stands_in_padding_changes_nothing(batch):
    model = ImageText(vision=ENCODERS["mean"], **SMALL).make(FEATURES, rngs=nnx.Rngs(0))
    spoilt = {**batch, "title": np.where(batch["title"] == 0, 9, batch["title"])}
    np.testing.assert_array_equal(forward(model, batch)["query"], forward(model, spoilt)["query"])


def test_where_a_patch_stands_matters(batch):
    encoder = ViT(patch=8, dim=8, depth=1, heads=2).make((16, 16, 3), rngs=nnx.Rngs(0))
    swapped = np.roll(batch["image"], 8, axis=1)
    assert np.abs(forward(encoder, batch["image"]) - forward(encoder, swapped)).max() > 1e-4
    encoder.patches.positions.set_value(0 * encoder.patches.positions.get_value())
    np.testing.assert_allclose(forward(encoder, batch["image"]), forward(encoder, swapped), atol=1e-5)


def test_wrong_sizes_and_features_are_refused():
    with pytest.raises(ValueError, match="16x16 do not divide into patches of 5x5"):
        ViT(patch=5).make((16, 16, 3), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="needs an image; 'title' is a feature of kind text"):
        ImageText(image="title").make(FEATURES, rngs=nnx.Rngs(0))


WITH_VECTOR = Features(all=(*FEATURES.all, Dense(name="told", dim=5)))


@pytest.mark.parametrize("language", [None, TextTransformer(dim=8, heads=2)])
def test_a_vector_made_beforehand_joins_the_title(batch, rng, language):
    told = {**batch, "told": rng.normal(size=(3, 5)).astype(np.float32)}
    config = ImageText(vision=ENCODERS["conv"], language=language, vector="told", dim=4)
    model = config.make(WITH_VECTOR, rngs=nnx.Rngs(0))
    direction = told["told"] / np.linalg.norm(told["told"], axis=1, keepdims=True)
    expected = 5**0.5 * direction @ np.asarray(model.vector.out.kernel[...])
    if language is not None:
        where = np.arange(6) < batch["title/length"][:, None]
        expected = expected + model.text_out(model.language(batch["title"], where=where))
    expected = np.asarray(expected) / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(forward(model, told)["query"], expected, atol=1e-5)
    # A longer vector says the same; without it nothing is said of the title.
    longer = {**told, "told": 3 * told["told"]}
    np.testing.assert_allclose(forward(model, longer)["query"], expected, atol=1e-5)
    assert "query" not in forward(model, batch)


def test_a_title_must_be_read_somehow_and_vectors_need_a_space():
    with pytest.raises(ValueError, match=r"give model.language, model.vector, or both"):
        ImageText(language=None).make(FEATURES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"give model.dim"):
        ImageText(vector="told", dim=None).make(WITH_VECTOR, rngs=nnx.Rngs(0))


def test_a_sentence_is_the_language_tower_alone(batch):
    model = Sentence(language=TextTransformer(dim=8, heads=2)).make(FEATURES, rngs=nnx.Rngs(0))
    where = np.arange(6) < batch["title/length"][:, None]
    plain = np.asarray(model.language(batch["title"], where=where))
    said = forward(model, {name: batch[name] for name in ("title", "title/length")})
    assert set(said) == {"query"}
    np.testing.assert_allclose(said["query"][:2], (plain[:2].T / np.linalg.norm(plain[:2], axis=1)).T, atol=1e-5)
    np.testing.assert_array_equal(said["query"][2], 0)
    with pytest.raises(ValueError, match="needs a text"):
        Sentence(text="image").make(FEATURES, rngs=nnx.Rngs(0))


SEEN = Features(all=(FEATURES["title"], Dense(name="seen", dim=5)))


def test_a_vector_made_beforehand_stands_for_the_picture(batch, rng):
    told = {**batch, "seen": (rng.normal(size=(3, 5)) * [1, 10, 1, 1, 1]).astype(np.float32)}
    config = ImageText(vision=None, image_vector="seen", **SMALL)
    model = config.make(SEEN, rngs=nnx.Rngs(0))
    spread = told["seen"] - told["seen"].mean(axis=0)
    spread = spread / np.sqrt((spread**2).mean(axis=0) + 1e-5)
    expected = spread @ np.asarray(model.image_vector.out.kernel[...])
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model(told, rngs=nnx.Rngs(0))["item"], expected, atol=1e-4)
    assert "item" not in forward(model, batch)
    deep = ImageText(vision=None, image_vector="seen", mlp=MLP(widths=(7,)), **SMALL).make(SEEN, rngs=nnx.Rngs(0))
    normal = deep.image_vector.norm(jnp.asarray(told["seen"]))
    plain = deep.image_vector.out(normal) + deep.image_vector.mlp(normal)
    np.testing.assert_allclose(deep.image_vector(told["seen"], rngs=None), plain, atol=1e-5)
    both = ImageText(vision=ENCODERS["conv"], image_vector="seen", **SMALL)
    model = both.make(Features(all=(*FEATURES.all, SEEN["seen"])), rngs=nnx.Rngs(0))
    assert "item" not in forward(model, batch) and "item" in forward(model, told)
    with pytest.raises(ValueError, match=r"give model.vision, model.image_vector, or both"):
        ImageText(vision=None).make(FEATURES, rngs=nnx.Rngs(0))


def test_a_picture_is_the_vision_tower_alone(batch):
    model = Picture(vision=ENCODERS["conv"]).make(FEATURES, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(forward(model, batch)["item"], model.vision(batch["image"]), atol=1e-5)
    with pytest.raises(ValueError, match="needs an image"):
        Picture(image="title").make(FEATURES, rngs=nnx.Rngs(0))


def test_finer_stages_follow_the_last_layer(batch):
    plain, finer = (
        EfficientNetLite(width=0.25, head=16, stages=stages).make((16, 16, 3), rngs=nnx.Rngs(0))
        for stages in ((), (2, 4))
    )
    last, all_of = forward(plain, batch["image"]), forward(finer, batch["image"])
    assert finer.width == all_of.shape[1] == 16 + sum(finer.stages[i][-1].project.norm.scale.shape[0] for i in (2, 4))
    np.testing.assert_allclose(all_of[:, :16], last, atol=1e-5)
    x, means = relu6(finer.stem(to_unit(jnp.asarray(batch["image"]), dtype=jnp.float32), rngs=None)), []
    for stage in finer.stages:
        for block in stage:
            x = block(x, rngs=None)
        means.append(x.mean(axis=(1, 2)))
    np.testing.assert_allclose(all_of[:, 16:], np.concatenate([means[2], means[4]], axis=1), atol=1e-5)
    alone = EfficientNetLite(width=0.25, head=None, stages=(2, 4), grid=(2, 1)).make((16, 16, 3), rngs=nnx.Rngs(0))
    assert forward(alone, batch["image"]).shape == (3, alone.width) and alone.width == 2 * (all_of.shape[1] - 16)
    with pytest.raises(ValueError, match="stages 0 to 6, no 7"):
        EfficientNetLite(stages=(7,))
    with pytest.raises(ValueError, match="set head, stages, or both"):
        EfficientNetLite(head=None)


def test_means_of_parts():
    x = jnp.arange(6.0).reshape(1, 3, 2, 1)
    np.testing.assert_array_equal(means_of_parts(x, grid=(1, 1)), [[2.5]])
    np.testing.assert_array_equal(means_of_parts(x, grid=(3, 2)), [[0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(means_of_parts(x, grid=(2, 1)), [[1.5, 3.5]])  # the middle row is in both
    two = jnp.concatenate([x, 10 * x], axis=-1)
    np.testing.assert_array_equal(means_of_parts(two, grid=(1, 2)), [[2, 20, 3, 30]])
    np.testing.assert_array_equal(means_of_parts(x[:, :1], grid=(3, 1)), [[0.5, 0.5, 0.5]])


def test_numbers_of_a_picture_s_vector_are_left_out_in_training_alone(batch, rng):
    told = {**batch, "seen": rng.normal(size=(3, 5)).astype(np.float32)}
    plain, dropped = (
        ImageText(vision=None, image_vector="seen", drop_image_vector=rate, **SMALL).make(SEEN, rngs=nnx.Rngs(0))
        for rate in (0.0, 0.5)
    )
    np.testing.assert_array_equal(forward(plain, told)["item"], forward(dropped, told)["item"])
    kept, left = (model(told, rngs=nnx.Rngs(1))["item"] for model in (plain, dropped))
    assert np.abs(np.asarray(kept - left)).max() > 1e-3
