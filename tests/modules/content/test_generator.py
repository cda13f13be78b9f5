"""Captions and paintings: by hand, and the likeliest title is said word by word."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Dense, Features, Text
from modules.content.generator import Captioner, Painter, told

SIZE, TOKENS, LENGTH = 5, 7, 4
FEATURES = Features(
    all=(
        Dense(name="present", dim=SIZE),
        Dense(name="gone", dim=SIZE),
        Dense(name="patches", dim=6),
        Text(name="title", tokens=TOKENS, length=LENGTH),
    )
)


@nnx.jit
def called(model, batch):
    return model(batch)


@nnx.jit
def trained(model, batch):
    return model(batch, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def captioner():
    return Captioner(dim=8, depth=1, heads=2, dropout=0.0, hidden=(6,)).make(FEATURES, rngs=nnx.Rngs(3))


def greedy(model, present):
    """A place at a time, each time all anew."""
    ids = []
    while len(ids) < LENGTH and (not ids or ids[-1] != 0):
        known = jnp.asarray([[*ids, *[5] * (LENGTH - len(ids))]])
        logits = np.asarray(model.next(present[None], known))[0, len(ids)]
        ids.append(int(np.argmax(logits)))
    return ids + [0] * (LENGTH - len(ids))


def test_a_title_is_told_token_by_token_until_the_padding(captioner, rng):
    present = jnp.asarray(rng.normal(size=(6, SIZE)) * 9, jnp.float32)
    # Strong weights, so that what is said depends on what is there and on what was said.
    captioner.prefix.kernel[...] = captioner.prefix.kernel[...] * 6
    captioner.tokens.table[...] = captioner.tokens.table[...] * 60
    said = np.asarray(called(captioner, {"present": present})["said"])
    expected = np.array([greedy(captioner, row) for row in present])
    np.testing.assert_array_equal(said, expected)
    assert len({tuple(row) for row in said.tolist()}) > 1
    captioner.tell.bias[...] = captioner.tell.bias[...].at[0].add(100.0)
    assert not np.asarray(called(captioner, {"present": present})["said"]).any()
    captioner.tell.bias[...] = captioner.tell.bias[...].at[0].add(-100.0)


def test_a_place_sees_what_is_there_and_the_tokens_before_it(captioner, rng):
    present = jnp.asarray(rng.normal(size=(2, SIZE)), jnp.float32)
    ids = jnp.asarray(rng.integers(1, TOKENS, (2, LENGTH)))
    plain = np.asarray(captioner.next(present, ids))
    later = np.asarray(captioner.next(present, ids.at[:, 2].set(ids[:, 2] % (TOKENS - 1) + 1)))
    np.testing.assert_allclose(later[:, :3], plain[:, :3], atol=1e-5)
    assert np.abs(later[:, 3:] - plain[:, 3:]).max() > 1e-3
    other = np.asarray(captioner.next(present[::-1], ids))
    assert np.abs(other[:, 0] - plain[:, 0]).max() > 1e-3
    np.testing.assert_allclose(trained(captioner, {"present": present, "title": ids})["next"], plain, atol=1e-5)


def test_the_place_behind_the_last_token_counts_where_there_is_one():
    where = np.asarray(told(jnp.asarray([0, 2, 4]), places=LENGTH + 1))
    assert where.sum(axis=1).tolist() == [1, 3, 5] and where[1].tolist() == [True] * 3 + [False] * 2


def test_a_painting_and_its_vector_by_hand(rng):
    model = Painter(hidden=(16,)).make(FEATURES, rngs=nnx.Rngs(0))
    present = rng.normal(size=(3, SIZE)).astype(np.float32)

    def layers(mlp):
        hidden = mlp.hidden[0].linear
        h = np.maximum(present @ np.asarray(hidden.kernel[...]) + np.asarray(hidden.bias[...]), 0)
        return h @ np.asarray(mlp.out.kernel[...]) + np.asarray(mlp.out.bias[...])

    outputs = called(model, {"present": present})
    np.testing.assert_allclose(outputs["painted"], 1 / (1 + np.exp(-layers(model.paint))), atol=1e-5)
    vector = layers(model.vector)
    np.testing.assert_allclose(outputs["vector"], vector / np.linalg.norm(vector, axis=1, keepdims=True), atol=1e-5)
