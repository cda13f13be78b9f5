"""How far a user goes: the likelihood of nested steps, and each step as if independent."""

import jax.numpy as jnp
import numpy as np
import pytest

from train.tasks.ordinal import Ordinal

STEPS = ("click", "buy")
LOGITS = np.array([[0.5, -1.0], [1.0, 0.2], [-0.3, -2.0], [0.1, -0.5]])
LABELS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])  # the last is not nested: nobody buys without a click


def given():
    outputs = {f"logit/{s}": jnp.asarray(LOGITS[:, k]) for k, s in enumerate(STEPS)}
    return outputs, {s: jnp.asarray(LABELS[:, k], jnp.float32) for k, s in enumerate(STEPS)}


def test_steps_taken_have_the_probability_of_their_boundaries():
    outputs, batch = given()
    p = 1 / (1 + np.exp(-LOGITS))
    wanted = -np.log([1 - p[0, 0], p[1, 0] - p[1, 1], p[2, 1], 1 - p[3, 0]]).mean()
    loss, _ = Ordinal(steps=STEPS).loss(outputs, batch)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_unlinked_steps_each_have_their_cross_entropy():
    outputs, batch = given()
    p = 1 / (1 + np.exp(-LOGITS))
    wanted = -(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p)).mean(0).sum()
    loss, _ = Ordinal(steps=STEPS, linked=False).loss(outputs, batch)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    found = Ordinal(steps=STEPS).predict(outputs, {})
    np.testing.assert_allclose(found["score/buy"], p[:, 1], rtol=1e-5)


def test_a_step_that_the_model_lacks_is_named():
    with pytest.raises(KeyError, match="no logit of step 'cart'"):
        Ordinal(steps=("click", "cart")).loss(given()[0], given()[1])
