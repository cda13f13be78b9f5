"""Image-text pairs: sides, encoders, padding."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Dense, Features, Image, Text
from modules.content.image_text import ImageText
from modules.content.sentence import Sentence
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ConvNet, ViT

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
    with pytest.raises(ValueError, match="needs an image and a text; got text and text"):
        ImageText(image="title").make(FEATURES, rngs=nnx.Rngs(0))


WITH_VECTOR = Features(all=(*FEATURES.all, Dense(name="told", dim=5)))


@pytest.mark.parametrize("language", [None, TextTransformer(dim=8, heads=2)])
def test_a_vector_made_beforehand_joins_the_title(batch, rng, language):
    told = {**batch, "told": rng.normal(size=(3, 5)).astype(np.float32)}
    config = ImageText(vision=ENCODERS["conv"], language=language, vector="told", dim=4)
    model = config.make(WITH_VECTOR, rngs=nnx.Rngs(0))
    direction = told["told"] / np.linalg.norm(told["told"], axis=1, keepdims=True)
    expected = 5**0.5 * direction @ np.asarray(model.vector_out.kernel[...])
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
