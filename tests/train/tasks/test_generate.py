"""The loss of generators, in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from train.tasks.generate import Generate


def logsumexp(x):
    return np.log(np.exp(x).sum(axis=-1))


def test_every_token_and_the_end_count_once(rng):
    logits = rng.normal(size=(3, 4, 6)).astype(np.float32)  # three tokens and the end
    ids, length = np.array([[2, 3, 0], [4, 5, 1], [0, 0, 0]]), np.array([2, 3, 0])
    vector, gone = rng.normal(size=(2, 3, 4)).astype(np.float32)
    batch = {"title": jnp.asarray(ids), "title/length": jnp.asarray(length), "gone": jnp.asarray(gone)}
    outputs = {"next": jnp.asarray(logits), "vector": jnp.asarray(vector)}
    total, logs = Generate(vector=0.5).loss(outputs, batch)
    told = [(0, 0, 2), (0, 1, 3), (0, 2, 0), (1, 0, 4), (1, 1, 5), (1, 2, 1), (1, 3, 0), (2, 0, 0)]
    expected = np.mean([logsumexp(logits[row, at]) - logits[row, at, token] for row, at, token in told])
    cosine = 1 - (vector * gone).sum(axis=1).mean()
    assert float(logs["content"]) == pytest.approx(expected, rel=1e-5)
    assert float(total) == pytest.approx(expected + 0.5 * cosine, rel=1e-5)


def test_colours_count_squared_and_something_must_be_made(rng):
    painted, patches = rng.random((2, 3, 5)).astype(np.float32)
    vector = np.eye(3, dtype=np.float32)
    batch = {"patches": jnp.asarray(patches), "gone": jnp.asarray(vector)}
    total, logs = Generate().loss({"painted": jnp.asarray(painted), "vector": jnp.asarray(vector)}, batch)
    assert float(total) == pytest.approx(float(np.square(painted - patches).mean()), rel=1e-4)
    assert float(logs["vector"]) == pytest.approx(0, abs=1e-6)
    with pytest.raises(UserError, match="needs a Captioner or a Painter"):
        Generate().loss({"vector": jnp.asarray(vector)}, batch)
    with pytest.raises(UserError, match="reads 'gone', which the batch lacks"):
        Generate().loss({"vector": jnp.asarray(vector)}, {})
