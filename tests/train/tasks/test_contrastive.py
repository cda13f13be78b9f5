"""Pair tasks: what they read from outputs and batch; the losses have their own tests."""

import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from modules.losses.contrastive import Outside, sigmoid_contrastive, softmax_contrastive
from train.tasks.contrastive import Contrastive, DistinctContrastive, InBatchSoftmax

N, D = 6, 4


@pytest.fixture
def sides(rng):
    query, item = jnp.asarray(rng.normal(size=(2, N, D)), jnp.float32)
    return {"query": query, "item": item}


def test_temperature_is_the_models_or_the_tasks(sides):
    fixed, logs = Contrastive(temperature=0.5).loss(sides, {})
    learned, _ = Contrastive().loss({**sides, "log_scale": jnp.log(2.0)}, {})
    expected = softmax_contrastive(sides["query"], sides["item"], scale=2.0)
    assert float(fixed) == pytest.approx(float(expected), rel=1e-6)
    assert float(learned) == pytest.approx(float(expected), rel=1e-6)
    assert float(logs["scale"]) == 2


def test_sigmoid_reads_the_learned_bias(sides):
    loss, _ = Contrastive(objective="sigmoid").loss({**sides, "log_scale": jnp.log(2.0), "bias": jnp.array(-3.0)}, {})
    expected = sigmoid_contrastive(sides["query"], sides["item"], scale=2.0, bias=-3.0)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_in_batch_softmax_masks_equal_items_and_takes_off_logq(sides, rng):
    batch = {"item": jnp.array([2, 3, 2, 4, 5, 6]), "item_logq": jnp.asarray(rng.normal(size=N), jnp.float32)}
    loss, _ = InBatchSoftmax(temperature=0.5, logq="item_logq").loss(sides, batch)
    logits = 2 * np.asarray(sides["query"] @ sides["item"].T) - np.asarray(batch["item_logq"])[None]
    same = np.asarray(batch["item"])[:, None] == np.asarray(batch["item"])[None]
    mass = np.where(same & ~np.eye(N, dtype=bool), 0, np.exp(logits)).sum(1)
    assert float(loss) == pytest.approx((np.log(mass) - np.diag(logits)).mean(), rel=1e-5)


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_further_negatives_are_the_models_and_duplicates_the_tasks(sides, rng, objective):
    hard, bank = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((N, 2, D), (3, D)))
    filled, twice = jnp.arange(3) < 2, sides["item"].at[1].set(2 * sides["item"][0])
    outputs = {"query": sides["query"], "item": twice, "negatives": hard, "bank": bank, "bank/known": filled}
    loss, _ = DistinctContrastive(objective=objective, temperature=0.5).loss(outputs, {})
    beyond = {"negatives": Outside(hard), "bank": Outside(bank, filled), "duplicate": 0.99, "scale": 2.0}
    function = softmax_contrastive if objective == "softmax" else sigmoid_contrastive
    assert float(loss) == pytest.approx(float(function(sides["query"], twice, **beyond)), rel=1e-6)
    assert float(loss) != pytest.approx(float(function(sides["query"], twice, scale=2.0)), rel=1e-3)


def test_one_side_can_be_predicted_but_not_trained(sides):
    one = {"item": sides["item"], "log_scale": jnp.zeros(())}
    assert list(Contrastive().predict(one, {})) == ["item"]
    with pytest.raises(UserError, match="lacks the features of 'query'"):
        Contrastive().loss(one, {})


def test_a_missing_array_is_named(sides):
    with pytest.raises(UserError, match="reads 'spu', which the batch does not have; it has a, b"):
        Contrastive(label="spu").loss(sides, {"a": jnp.zeros(N), "b": jnp.zeros(N)})
