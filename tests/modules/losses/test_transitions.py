"""The transition teacher, which is never held as a row of the catalogue, against one that is."""

import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.transitions import transition_distillation

N, V, D, FIRST = 3, 9, 4, 2


def test_it_is_the_cross_entropy_of_whole_teacher_rows(rng):
    student, items = rng.normal(size=(N, D)).astype(np.float32), rng.normal(size=(V, D)).astype(np.float32)
    counts = np.zeros((N, V))
    counts[0, [4, 7]], counts[1, 3] = (4, 1), 2  # the last row saw nothing follow
    strength = counts / np.maximum(counts.max(axis=1, keepdims=True), 1)
    tau = 0.3
    teacher = np.exp(strength[:, FIRST:] / tau)
    teacher /= teacher.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(teacher.sum(axis=1), 1)
    logits = student @ items[FIRST:].T / tau
    logq = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(teacher * logq).sum(axis=1)

    listed = {
        "successors": jnp.array([[7, 4, 0], [3, 0, 0], [0, 0, 0]]),
        "strengths": jnp.array([[0.25, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    }
    for where in ([True, False, False], [True, True, False], [True, True, True]):
        loss = transition_distillation(
            jnp.asarray(student),
            jnp.asarray(items),
            **listed,
            where=jnp.array(where),
            temperature=tau,
            first=FIRST,
        )
        assert float(loss) == pytest.approx(expected[where].mean(), rel=1e-5)
