"""The loss of several heads: weights, labels that are not known, predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.tasks.multi_task import Head, MultiTask

LOGITS = {"click": np.array([0.5, -1.0, 2.0, 0.0]), "purchase": np.array([-1.0, 0.3, 0.7, -0.2])}
BATCH = {"click": np.array([1.0, 0.0, 1.0, 1.0]), "bought": np.array([0.0, 0.0, 1.0, np.nan])}


def cost(logit, label):
    return np.log1p(np.exp(-logit)) if label else np.log1p(np.exp(logit))


def outputs(**more):
    return {f"logit/{n}": jnp.asarray(v) for n, v in LOGITS.items()} | more


def test_each_head_is_averaged_over_the_rows_that_it_knows():
    task = MultiTask(heads={"click": Head(label="click"), "purchase": Head(label="bought", weight=2.0, where="click")})
    batch = {n: jnp.asarray(v) for n, v in BATCH.items()}
    click = np.mean([cost(s, y) for s, y in zip(LOGITS["click"], BATCH["click"], strict=True)])
    purchase = (cost(-1.0, 0) + cost(0.7, 1)) / 2  # row 1 is not clicked, row 3 not known
    loss, logs = task.loss(outputs(**{"aux_loss/own": jnp.asarray(0.25)}), batch)
    assert float(loss) == pytest.approx(click + 2 * purchase + 0.25, rel=1e-6)
    assert float(logs["loss/purchase"]) == pytest.approx(purchase, rel=1e-6)
    grads = jax.grad(lambda out: task.loss(out, batch)[0])(outputs())
    assert np.isfinite(grads["logit/purchase"]).all() and grads["logit/purchase"][1] == grads["logit/purchase"][3] == 0


def test_no_known_label_teaches_nothing():
    task = MultiTask(heads={"purchase": Head(label="bought", where="click")})
    loss, _ = task.loss(outputs(), {"click": jnp.zeros(4), "bought": jnp.full(4, jnp.nan)})
    assert float(loss) == 0.0


def test_every_logit_is_predicted_and_no_label_is_read():
    task = MultiTask(heads={"click": Head(label="click")})
    found = task.predict(outputs(), {})
    assert found.keys() == {"score/click", "score/purchase"}
    np.testing.assert_allclose(found["score/click"], 1 / (1 + np.exp(-LOGITS["click"])), rtol=1e-6)


def test_wrong_heads_are_named():
    with pytest.raises(KeyError, match="no head 'cart', but click, purchase"):
        MultiTask(heads={"cart": Head(label="cart")}).loss(outputs(), {})
    with pytest.raises(ValueError, match="weight above 0"):
        MultiTask(heads={"click": Head(label="click", weight=0.0)})
