"""The pointwise task against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from train.tasks.pointwise import Pointwise

LOGIT = np.asarray([-3.0, 0.5, 2.0, 80.0], np.float32)
LABEL = np.asarray([0.0, 1.0, 0.0, 1.0], np.float32)


def entropy() -> np.ndarray:
    x, y = LOGIT.astype(np.float64), LABEL
    return np.logaddexp(0, x) - y * x


def test_the_loss_is_the_mean_cross_entropy():
    loss, logs = Pointwise().loss({"logit": jnp.asarray(LOGIT)}, {"click": jnp.asarray(LABEL)})
    np.testing.assert_allclose(loss, entropy().mean(), rtol=1e-6)
    assert set(logs) == {"loss"}


def test_weights_and_the_models_own_losses_count():
    weight = np.asarray([1.0, 0.0, 3.0, 1.0], np.float32)
    batch = {"buy": jnp.asarray(LABEL), "w": jnp.asarray(weight)}
    outputs = {"logit": jnp.asarray(LOGIT), "aux_loss/balance": jnp.asarray(0.5)}
    loss, logs = Pointwise(label="buy", weight="w").loss(outputs, batch)
    expected = (entropy() * weight).sum() / weight.sum()
    np.testing.assert_allclose(loss, expected + 0.5, rtol=1e-6)
    np.testing.assert_allclose(logs["task_loss"], expected, rtol=1e-6)
    zero, _ = Pointwise(label="buy", weight="w").loss({"logit": jnp.asarray(LOGIT)}, {**batch, "w": jnp.zeros(4)})
    assert zero == 0


def test_predictions_are_probabilities_and_need_no_label():
    score = Pointwise().predict({"logit": jnp.asarray(LOGIT, jnp.bfloat16)}, {})["score"]
    assert score.dtype == jnp.float32
    np.testing.assert_allclose(score, 1 / (1 + np.exp(-LOGIT.astype(np.float64))), rtol=1e-2)


def test_a_missing_label_is_named():
    with pytest.raises(KeyError, match="click"):
        Pointwise().loss({"logit": jnp.zeros(2)}, {"buy": jnp.zeros(2)})


def test_a_models_further_heads_learn_the_same_label():
    weight = np.asarray([1.0, 0.0, 3.0, 1.0], np.float32)
    batch = {"click": jnp.asarray(LABEL), "w": jnp.asarray(weight)}
    outputs = {"logit": jnp.zeros(4), "aux_logit/whole": jnp.asarray(LOGIT)}
    loss, logs = Pointwise(weight="w").loss(outputs, batch)
    further = (entropy() * weight).sum() / weight.sum()
    np.testing.assert_allclose(logs["aux_loss/whole"], further, rtol=1e-6)
    np.testing.assert_allclose(loss, np.log(2) + further, rtol=1e-6)
