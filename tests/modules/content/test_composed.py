"""Composed retrieval: each fusion against numpy, and what stands for a missing half."""

import chz
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Features, Image, Text
from modules.content.composed import Composed, Fuse
from modules.encoders.bert import BERT
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ConvNet

D, SIDE = 4, 8
FEATURES = Features(
    all=(
        Image(name="query_image", height=SIDE, width=SIDE),
        Image(name="image", height=SIDE, width=SIDE),
        Text(name="change", tokens=20, length=2),
    )
)
COMPOSED = Composed(dim=D, vision=ConvNet(widths=(6,)), language=TextTransformer(dim=8, heads=2), hidden=5)


def two_layers(mlp, x):
    hidden, out = mlp.hidden[0].linear, mlp.out
    h = np.maximum(x @ np.asarray(hidden.kernel[...]) + np.asarray(hidden.bias[...]), 0)
    return h @ np.asarray(out.kernel[...]) + np.asarray(out.bias[...])


def expected(fuse, i, w):
    if fuse.kind in ("image", "text", "sum"):
        return {"image": i, "text": w, "sum": i + w}[fuse.kind]
    pair = np.concatenate([i, w], axis=1)
    gate, residual = 1 / (1 + np.exp(-two_layers(fuse.gate, pair))), two_layers(fuse.residual, pair)
    if fuse.kind == "combiner":
        return gate * w + (1 - gate) * i + residual
    g = np.asarray(fuse.weights[...])
    return g[0] * gate * i + g[1] * residual


@pytest.mark.parametrize("kind", ["tirg", "combiner", "sum", "image", "text"])
def test_fusions(rng, kind):
    fuse = Fuse(kind, dim=D, hidden=5, rngs=nnx.Rngs(0))
    if kind == "tirg":
        fuse.weights[...] = jnp.asarray([0.7, -1.3])
    i, w = rng.normal(size=(2, 3, D)).astype(np.float32)
    np.testing.assert_allclose(fuse(jnp.asarray(i), jnp.asarray(w)), expected(fuse, i, w), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (2, 4, SIDE, SIDE, 3)).astype(np.uint8)
    images[0, 2:] = 0
    return {
        "query_image": jnp.asarray(images[0]),
        "image": jnp.asarray(images[1]),
        "change": jnp.asarray(rng.integers(2, 20, (4, 2))),
        "change/length": jnp.asarray([2, 0, 1, 0]),
    }


@nnx.jit
def called(model, batch):
    return model(batch)


def test_what_is_missing_leaves_the_other_and_no_change_is_the_picture_itself(batch):
    model = COMPOSED.make(FEATURES, rngs=nnx.Rngs(0))
    query = np.asarray(called(model, batch)["query"])
    alone = np.asarray(called(model, {"image": batch["query_image"]})["item"])
    np.testing.assert_allclose(query[1], alone[1], rtol=1e-5, atol=1e-6)
    words = model.text_out(model.language(batch["change"], where=jnp.arange(2)[None] < batch["change/length"][:, None]))
    words = np.asarray(words) / np.linalg.norm(words, axis=1, keepdims=True).clip(1e-9)
    np.testing.assert_allclose(query[2], words[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(query[3], 0)
    assert abs(np.linalg.norm(query[0]) - 1) < 1e-5 and np.abs(query[0] - alone[0]).max() > 0.05


def test_sides_stand_alone_and_shapes_must_agree(batch):
    model = COMPOSED.make(FEATURES, rngs=nnx.Rngs(0))
    assert set(called(model, {"image": batch["image"]})) == {"log_scale", "item"}
    wide = Image(name="image", height=SIDE, width=2 * SIDE)
    features = Features(all=tuple(wide if f.name == "image" else f for f in FEATURES.all))
    with pytest.raises(ValueError, match="one shape"):
        COMPOSED.make(features, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def inversion():
    return chz.replace(COMPOSED, fusion="inversion", length=5).make(FEATURES, rngs=nnx.Rngs(0))


def by_hand(model, vectors, ids, length):
    """f_T(S m) a row at a time, without padding."""
    out = []
    for vector, row, n in zip(vectors, ids, length, strict=True):
        h = np.asarray(vector)[None]
        for layer in model.fusion.word.hidden:
            h = np.maximum(h @ np.asarray(layer.linear.kernel[...]) + np.asarray(layer.linear.bias[...]), 0)
        word = h @ np.asarray(model.fusion.word.out.kernel[...]) + np.asarray(model.fusion.word.out.bias[...])
        x = jnp.asarray(np.concatenate([word, np.asarray(model.language.tokens.table[...])[row[:n]]]))[None]
        x = model.language.transformer(x + model.language.positions.vectors[...][None, : n + 1])
        y = np.asarray(x[0]).mean(axis=0) @ np.asarray(model.text_out.kernel[...])
        out.append(y / np.linalg.norm(y))
    return np.stack(out)


def test_a_picture_is_a_word_before_the_change(batch, inversion):
    seen = slice(0, 2)
    vectors = np.asarray(called(inversion, {"image": batch["query_image"]})["item"])[seen]
    query = np.asarray(called(inversion, batch)["query"])
    expected = by_hand(inversion, vectors, np.asarray(batch["change"])[seen], np.asarray(batch["change/length"])[seen])
    np.testing.assert_allclose(query[seen], expected, rtol=1e-4, atol=1e-5)
    # Without a picture the change alone is sought.
    where = np.arange(2)[None] < np.asarray(batch["change/length"])[:, None]
    words = np.asarray(inversion.text_out(inversion.language(batch["change"], where=where)))[2]
    np.testing.assert_allclose(query[2], words / np.linalg.norm(words), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(query[3], 0)


def test_training_for_words_sees_neither_references_nor_changes(batch, inversion):
    @nnx.jit
    def trained(model, batch):
        return model(batch, rngs=nnx.Rngs(0))

    outputs = trained(inversion, batch)
    vectors = np.asarray(outputs["item"])
    np.testing.assert_allclose(
        outputs["query"], by_hand(inversion, vectors, np.zeros((4, 2), int), np.zeros(4, int)), rtol=1e-4, atol=1e-5
    )
    other = {**batch, "query_image": batch["query_image"][::-1], "change": batch["change"][::-1]}
    np.testing.assert_array_equal(trained(inversion, other)["query"], outputs["query"])


def test_a_word_needs_a_place_and_a_tower_that_can_read_it():
    with pytest.raises(ValueError, match=r"needs model.length=3 or more"):
        chz.replace(COMPOSED, fusion="inversion").make(FEATURES, rngs=nnx.Rngs(0))
    tower = BERT(dim=8, depth=1, heads=2, vocabulary=20, positions=5)
    with pytest.raises(ValueError, match="BERTEncoder reads tokens alone"):
        chz.replace(COMPOSED, fusion="inversion", length=5, language=tower).make(FEATURES, rngs=nnx.Rngs(0))
