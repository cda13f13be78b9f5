"""MOON: the guided mixture against numpy, what its tokens may touch, missing parts, and its further negatives."""

import functools

import chz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Features, Image, Text
from modules.content.moon import MOON
from modules.encoders.vision import ViT
from modules.layers.experts import Experts
from modules.layers.guided_experts import GuidedExperts
from tests.modules.content.batches import filled

B, SIDE, D, TITLE = 4, 8, 8, 3
TEXTS = {"title": TITLE, "path": 2, "stated": 2}
FEATURES = Features(
    all=tuple(
        feature
        for side in ("query_", "", "other_")
        for feature in (
            Image(name=f"{side}image", height=SIDE, width=SIDE),
            *(
                Text(name=f"{side}{name}", tokens=20, length=n)
                for name, n in TEXTS.items()
                if side != "query_" or name == "title"
            ),
        )
    )
)
MOON_SMALL = MOON(
    dim=D,
    depth=1,
    heads=2,
    hidden=8,
    vision=ViT(patch=4, dim=8, depth=1, heads=2),
    experts=GuidedExperts(general=Experts(count=3, active=2)),
    bank=6,
)


@pytest.fixture(scope="module")
def model():
    return MOON_SMALL.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    made = filled(FEATURES, rows=B, words=2)
    made["query_image"][:2] = 0  # by words
    made["query_title/length"][2:] = 0  # by picture
    made["title/length"][1] = made["path/length"][1] = made["stated/length"][1] = 0  # a picture alone
    made["image"][2] = 0  # words alone
    made["image"][3] = made["title/length"][3] = made["path/length"][3] = made["stated/length"][3] = 0  # nothing
    made["other_image"][0] = made["other_title/length"][0] = made["other_path/length"][0] = 0
    made["other_stated/length"][0] = 0
    return {n: jnp.asarray(a) for n, a in made.items()}


@nnx.jit
def served(model, batch):
    return model(batch)


@nnx.jit
def trained(model, batch):
    return model(batch, rngs=nnx.Rngs(0))


@functools.partial(nnx.jit, static_argnames="kinds")
def mixed(layer, x, *, kinds):
    return layer(x, kinds=kinds, where=jnp.ones(x.shape[:2], bool), training=False)


@nnx.jit
def states(model, batch):
    """The last layer's tokens, and which are there."""
    x, where, kinds = model.sequence(batch, rngs=None)
    for layer in model.layers:
        x = layer(x, where=where, kinds=kinds, rngs=None)
    return model.last(x), where


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_the_mixture_is_guided_at_categories_and_attributes_and_routed_elsewhere(rng):
    kinds = (0, 0, 1, 2, 0, 2)
    layer = GuidedExperts(general=Experts(count=3, active=2)).make(D, own=2, hidden=5, rngs=nnx.Rngs(1))
    x = rng.normal(size=(2, len(kinds), D)).astype(np.float32)
    got = np.asarray(mixed(layer, jnp.asarray(x), kinds=kinds))
    general = layer.general
    for b, t in np.ndindex(2, 6):
        if kinds[t]:
            own = layer.own[kinds[t] - 1]
            hidden = gelu(x[b, t] @ np.asarray(own.up.kernel[...]) + np.asarray(own.up.bias[...]))
            wanted = hidden @ np.asarray(own.down.kernel[...]) + np.asarray(own.down.bias[...])
        else:
            gate = np.exp(x[b, t] @ np.asarray(general.gate.kernel[...]))
            gate /= gate.sum()
            wanted = np.zeros(D)
            for e in np.argsort(-gate)[:2]:
                hidden = gelu(x[b, t] @ np.asarray(general.up.kernel[...])[e])
                wanted += gate[e] * (hidden @ np.asarray(general.down.kernel[...])[e])
        np.testing.assert_allclose(got[b, t], wanted, rtol=1e-4, atol=1e-5)


def test_category_tokens_touch_their_expert_alone():
    """Of what a category token gives, no general expert and no expert of attributes has a part."""
    layer = GuidedExperts(general=Experts(count=2)).make(D, own=2, hidden=5, rngs=nnx.Rngs(1))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, D)).astype(np.float32))

    @nnx.jit
    def slopes(layer):
        return nnx.grad(lambda layer: jnp.square(mixed(layer, x, kinds=(0, 1, 2))[:, 1]).sum())(layer)

    grads = nnx.to_pure_dict(slopes(layer))
    norm = {"general": largest(grads["general"]), 1: largest(grads["own"][0]), 2: largest(grads["own"][1])}
    assert norm[1] > 0 and norm["general"] == 0 and norm[2] == 0


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_unguided_everything_is_routed(rng):
    layer = GuidedExperts(general=Experts(count=2), guided=False).make(D, own=2, hidden=5, rngs=nnx.Rngs(1))
    x = jnp.asarray(rng.normal(size=(1, 3, D)).astype(np.float32))
    assert not layer.own
    routed = nnx.jit(lambda general, x: general(x))(layer.general, x)
    np.testing.assert_allclose(mixed(layer, x, kinds=(0, 1, 2)), routed, rtol=1e-5, atol=1e-6)


def test_pictures_alone_words_alone_and_nothing(model, batch):
    found = {n: np.asarray(a) for n, a in served(model, batch).items()}
    assert set(found) == {"query", "item"}
    np.testing.assert_allclose(np.linalg.norm(found["query"], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found["item"], axis=1), [1, 1, 1, 0], atol=1e-5)
    spoilt = {**batch, "query_title": batch["query_title"].at[2:].set(7)}
    np.testing.assert_array_equal(served(model, spoilt)["query"], found["query"])


def test_the_embedding_is_the_mean_of_what_is_there(model, batch):
    parts = {n: a for n, a in batch.items() if not n.startswith(("query_", "other_"))}
    x, where = map(np.asarray, states(model, parts))
    assert x.shape[1] == where.shape[1] == 2 * 4 + sum(TEXTS.values())
    assert where.sum(axis=1).tolist() == [14, 8, 6, 0]
    wanted = np.stack([row[seen].mean(axis=0) for row, seen in zip(x[:3], where[:3], strict=True)])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(served(model, batch)["item"][:3], wanted, rtol=1e-4, atol=1e-5)


def test_a_token_sees_what_stands_before_it_alone(model, batch):
    parts = {n: a for n, a in batch.items() if not n.startswith(("query_", "other_"))}
    before, after = (
        np.asarray(states(model, {**parts, "path": path})[0]) for path in (parts["path"], parts["path"] + 1)
    )
    words = 2 * 4 + TITLE
    np.testing.assert_array_equal(before[:2, :words], after[:2, :words])
    assert np.abs(before[0, words:] - after[0, words:]).max(axis=1).min() > 1e-6


def test_negatives_are_of_past_batches_and_of_the_leaf_and_teach_only_what_is_new(batch):
    model = MOON_SMALL.make(FEATURES, rngs=nnx.Rngs(0))
    first, second = trained(model, batch), trained(model, batch)
    assert (
        not first["bank/known"].any() and second["bank/known"].tolist() == [True] * 3 + [False] * 3
    )  # one showed nothing
    np.testing.assert_array_equal(second["bank"][:4], first["item"])
    assert first["negatives"].shape == (B, 1, D)
    assert first["negatives/known"][:, 0].tolist() == [False, True, True, True]
    assert "aux_loss/balance" in first
    told = {**batch, "spu": np.arange(B, dtype=np.int32) + 7}
    assert [trained(model, told), trained(model, told)][1]["bank/label"][:B].tolist() == told["spu"].tolist()
    none = chz.replace(MOON_SMALL, bank=0).make(FEATURES, rngs=nnx.Rngs(0))
    assert "bank" not in trained(none, batch)
    # A checkpoint cannot hold an array of no size.
    assert all(a.size for a in jax.tree.leaves(nnx.state(none)))


def test_a_last_token_may_speak_for_the_whole(batch):
    model = chz.replace(MOON_SMALL, pool="last", core=False).make(FEATURES, rngs=nnx.Rngs(0))
    items = np.asarray(served(model, {n: a for n, a in batch.items() if not n.startswith("query_")})["item"])
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), [1, 1, 1, 0], atol=1e-5)


def test_texts_of_two_vocabularies_are_refused():
    other = Text(name="path", tokens=21, length=2)
    features = Features(all=tuple(other if f.name == "path" else f for f in FEATURES.all))
    with pytest.raises(ValueError, match="one vocabulary"):
        MOON_SMALL.make(features, rngs=nnx.Rngs(0))
