"""Hinges and locality on cosines against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.hinge import batch_hinge, locality

N, D, M = 5, 7, 0.2


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def sides(rng):
    return unit(rng.normal(size=(N, D))), unit(rng.normal(size=(N, D)))


def by_loops(a, b, *, known, negatives):
    total, count = 0.0, 0
    for r in range(N):
        for c in range(N):
            if not (known[r] and known[c]) or (r != c and not negatives[r, c]):
                continue
            count += 1
            total += max(0.0, a[r] @ b[c] - a[r] @ b[r] + M) if r != c else 0.0
    return total / max(count, 1)


def test_the_hinge_is_that_of_loops(sides, rng):
    a, b = sides
    known, negatives = np.ones(N, bool), np.ones((N, N), bool)
    assert float(batch_hinge(a, b, margin=M)) == pytest.approx(by_loops(a, b, known=known, negatives=negatives))
    known[2], negatives[0, 1] = False, False
    got = batch_hinge(a, b, margin=M, known=jnp.asarray(known), negatives=jnp.asarray(negatives))
    assert float(got) == pytest.approx(by_loops(a, b, known=known, negatives=negatives))
    assert float(batch_hinge(a, b, margin=M, known=jnp.zeros(N, bool))) == 0.0


def test_no_loss_once_every_negative_is_a_margin_away():
    x = np.eye(N, D, dtype=np.float32)
    assert float(batch_hinge(x, x, margin=0.99)) == 0.0
    assert float(batch_hinge(x, x, margin=1.5)) == pytest.approx(0.5 * (N - 1) / N)


def test_what_is_no_negative_gets_no_gradient(sides):
    a, b = (jnp.asarray(x) for x in sides)
    negatives = jnp.ones((N, N), bool).at[:, 3].set(False)
    grad = jax.grad(lambda b: batch_hinge(a, b, margin=2.0, negatives=negatives))(b)
    # Row 3 is met as its own positive alone: a pull along a_3, as strong as the N - 1 negatives it is set against.
    np.testing.assert_allclose(np.asarray(grad[3]), -np.asarray(a[3]) * (N - 1) / (N * (N - 1) + 1), rtol=1e-4)


def test_locality_compares_the_nearest_alone(rng):
    d, other = rng.uniform(-1, 1, (2, N, 6)).astype(np.float32)
    known = np.array([True, False, True, True, True])
    rows = []
    for r in range(N):
        top = np.argsort(-d[r])[:3]
        rows.append(np.mean([max(0.0, (d[r, c] - other[r, c]) ** 2 - 0.01) for c in top]))
    got = locality(jnp.asarray(d), jnp.asarray(other), top=3, slack=0.01)
    assert float(got) == pytest.approx(np.mean(rows), rel=1e-5)
    got = locality(jnp.asarray(d), jnp.asarray(other), top=3, slack=0.01, known=jnp.asarray(known))
    assert float(got) == pytest.approx(np.mean(np.array(rows)[known]), rel=1e-5)
    assert float(locality(jnp.asarray(d), jnp.asarray(d) + 0.1, top=99, slack=0.011)) == 0.0
