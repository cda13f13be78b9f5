"""S3-Rec's two losses in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.mutual import attribute_bce, pairwise

B, T, A, D = 2, 3, 4, 5


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def test_attributes_are_told_apart_one_by_one_at_the_chosen_places(rng):
    x, attributes = rng.normal(size=(B, T, D)), rng.normal(size=(A, D))
    held, where = (rng.random((B, T, A)) < 0.4).astype(float), np.array([[True, False, True], [False, True, False]])
    total = 0.0
    for b, t in zip(*np.nonzero(where), strict=True):
        for a in range(A):
            score = x[b, t] @ attributes[a]
            total -= log_sigmoid(score) if held[b, t, a] else log_sigmoid(-score)
    given = (jnp.asarray(v) for v in (x, attributes))
    loss = attribute_bce(*given, held=jnp.asarray(held), where=jnp.asarray(where))
    assert float(loss) == pytest.approx(total / B, rel=1e-5)


def test_pairs_are_compared_as_they_are_or_squashed(rng):
    right, wrong, where = rng.normal(size=(B, T)), rng.normal(size=(B, T)), rng.random((B, T)) < 0.7
    given = jnp.asarray(right), jnp.asarray(wrong)
    plain = -log_sigmoid(right - wrong)[where].sum() / B
    assert float(pairwise(*given, where=jnp.asarray(where))) == pytest.approx(plain, rel=1e-5)
    twice = -log_sigmoid(np.exp(log_sigmoid(right)) - np.exp(log_sigmoid(wrong)))[where].sum() / B
    assert float(pairwise(*given, where=jnp.asarray(where), squashed=True)) == pytest.approx(twice, rel=1e-5)
