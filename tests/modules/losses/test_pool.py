"""A softmax over chosen negatives against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.pool import pool_contrastive


def test_only_the_pool_competes(rng):
    q, i = rng.normal(size=(2, 4, 3)).astype(np.float32)
    pool = rng.random((4, 4)) < 0.5
    where = np.array([True, True, False, True])
    total = 0.0
    for r in np.flatnonzero(where):
        logits = q[r] @ i.T / 0.5
        others = [c for c in range(4) if c != r and pool[r, c]]
        total += np.log(np.exp(logits[[r, *others]]).sum()) - logits[r]

    def loss(i):
        return pool_contrastive(
            jnp.asarray(q),
            i,
            positive=jnp.eye(4, dtype=bool),
            pool=jnp.asarray(pool),
            temperature=0.5,
            where=jnp.asarray(where),
        )

    value, grad = jax.value_and_grad(loss)(jnp.asarray(i))
    assert float(value) == pytest.approx(total / 3, rel=1e-5)
    unused = [c for c in range(4) if not any(where[r] and (r == c or pool[r, c]) for r in range(4))]
    assert not np.asarray(grad)[unused].any()
