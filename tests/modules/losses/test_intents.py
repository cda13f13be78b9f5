"""ICSRec's losses on a batch of four, with the masked logits written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.intents import coarse_intents, fine_intents

B, D, TAU = 4, 3, 0.7
TARGETS = np.array([5, 6, 5, 9])  # rows 0 and 2 share one


@pytest.fixture
def views(rng):
    return rng.normal(size=(B, D)), rng.normal(size=(B, D))


def coarse(a, b, targets, *, masked):
    """Column 0 the pair, then every other history but for itself and, masked, those of the same target."""
    z, t = np.concatenate([a, b]), np.concatenate([targets, targets])
    losses = []
    for i in range(2 * B):
        pair = (i + B) % (2 * B)
        others = [j for j in range(2 * B) if j not in (i, pair) and not (masked and t[j] == t[i])]
        logits = np.array([z[i] @ z[pair], *(z[i] @ z[j] for j in others)]) / TAU
        assert len(logits) == 1 + (6 if not masked else 4 if t[i] == 5 else 6)
        losses.append(np.log(np.exp(logits).sum()) - logits[0])
    return np.mean(losses)


@pytest.mark.parametrize("masked", [True, False])
def test_coarse_logits_of_a_batch_of_four(views, masked):
    a, b = views
    loss = coarse_intents(*map(jnp.asarray, views), jnp.asarray(TARGETS), temperature=TAU, masked=masked)
    assert float(loss) == pytest.approx(coarse(a, b, TARGETS, masked=masked), rel=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_fine_logits_of_a_batch_of_four(rng, masked):
    centres = np.eye(3)
    x = np.array([[2, 0.1, 0], [0, 3, 0.2], [1, 0, 0.3], [0.1, 0, 1.5]])  # clusters 0, 1, 0, 2
    cluster = np.array([0, 1, 0, 2])
    losses = []
    for i in range(B):
        others = [j for j in range(B) if j != i and not (masked and cluster[j] == cluster[i])]
        logits = np.array([x[i] @ centres[cluster[i]], *(x[i] @ centres[cluster[j]] for j in others)]) / TAU
        losses.append(np.log(np.exp(logits).sum()) - logits[0])

    def loss(x, centres):
        return fine_intents(x, centres, temperature=TAU, masked=masked)

    found, (to_x, to_centres) = jax.value_and_grad(loss, argnums=(0, 1))(jnp.asarray(x), jnp.asarray(centres))
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)
    assert np.abs(to_x).max() > 0 and not np.abs(to_centres).any()


def test_rows_without_a_target_are_no_part_of_it(views):
    a, b = (jnp.asarray(v) for v in views)
    where = jnp.array([True, True, True, False])
    kept = slice(0, 3)
    some = coarse_intents(a, b, jnp.asarray(TARGETS), where=where)
    assert float(some) == pytest.approx(float(coarse_intents(a[kept], b[kept], jnp.asarray(TARGETS[kept]))), rel=1e-5)
