"""DIEN in numpy: extractor, evolution, the auxiliary loss, and where its negatives come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.behavior.dien import DIEN, negatives
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from tests.modules.behavior import checks
from tests.modules.layers.test_gru import plain as gru_states

FEATURES = rows.features(rows.USER, rows.ITEM, rows.HISTORY)


def make(features=FEATURES, **options):
    config = DIEN(**{"dim": 3, "embedding": Embedding(std=0.5), "mlp": MLP(widths=(6,)), **options})
    return config.make(features, rngs=nnx.Rngs(0))


def training_outputs(model, batch):
    graph, state = nnx.split(model)
    return jax.jit(lambda s, b: nnx.merge(graph, s)(b, rngs=nnx.Rngs(0)))(state, rows.on_device(batch))


@pytest.mark.parametrize("options", [{}, {"evolution": "attention"}, {"pooled": False}], ids=str)
def test_the_logit_equals_numpy(options):
    model, batch = make(**options), rows.batch_of(FEATURES)
    vectors = rows.plain_vectors(model.embed, batch, FEATURES)
    interest, parts = model.interests[0], []
    for row, length in enumerate(batch["history/length"]):
        e, v = vectors["history"][row, :length], vectors["item"][row]
        h = gru_states(interest.extractor, e, a=np.ones(length))
        powers = np.exp([h_t @ rows.dense(v, interest.query) for h_t in h])
        a = powers / powers.sum()
        if interest.evolution is None:
            s = sum((a_t * h_t for a_t, h_t in zip(a, h, strict=True)), np.zeros(3))
        else:
            s = gru_states(interest.evolution, h, a=a)[-1] if length else np.zeros(3)
        pooled = [e.sum(0), e.sum(0) * v] if model.pooled else []
        parts.append(np.concatenate([vectors["user"][row], v, s, *pooled]))
    expected = rows.tower(np.stack(parts), model.mlp)[:, 0]
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)
    assert set(training_outputs(model, batch)) == {"logit"}


@pytest.mark.parametrize("discriminator", [None, MLP(widths=(4,))])
def test_the_auxiliary_loss_equals_numpy(discriminator):
    model = make(next_item=0.5, discriminator=discriminator)
    batch = rows.batch_of(FEATURES)
    found = training_outputs(model, batch)["aux_loss/next_item"]
    e = rows.plain_vectors(model.embed, batch, FEATURES)["history"]
    mask = np.arange(rows.LENGTH)[None, :] < batch["history/length"][:, None]
    drawn, known = negatives(jnp.asarray(e, jnp.float32), mask=jnp.asarray(mask), rngs=nnx.Rngs(0))
    interest, terms = model.interests[0], []

    def sigma(h, x):
        logit = h @ x if discriminator is None else rows.tower(np.concatenate([h, x]), interest.discriminator)[0]
        return 1 / (1 + np.exp(-logit))

    for row, length in enumerate(batch["history/length"]):
        h = gru_states(interest.extractor, e[row, :length], a=np.ones(length))
        for t in range(length - 1):
            terms.append(-np.log(sigma(h[t], e[row, t + 1])))
            if known[row, t + 1] and not np.allclose(drawn[row, t + 1], e[row, t + 1]):
                terms[-1] -= np.log(1 - sigma(h[t], np.asarray(drawn[row, t + 1], np.float64)))
    np.testing.assert_allclose(found, 0.5 * np.mean(terms), rtol=1e-4)


def test_negatives_are_behaviours_of_other_users():
    lengths = np.asarray([0, 1, 3, 4, 2])
    mask = np.arange(4)[None, :] < lengths[:, None]
    history = np.where(mask, 10 * np.arange(5)[:, None] + np.arange(4)[None, :] + 1, 0).astype(np.float32)
    seen = set()
    for seed in range(20):
        drawn, known = negatives(jnp.asarray(history)[..., None], mask=jnp.asarray(mask), rngs=nnx.Rngs(seed))
        drawn, known = np.asarray(drawn)[..., 0], np.asarray(known)
        assert known.any(1).sum() == 4  # one row is offset to the user who has no behaviour
        for row in range(5):
            assert not set(drawn[row][known[row]]) & {0, *history[row]}
        seen |= set(drawn[known])
    assert seen == set(history[mask])
    _, known = negatives(jnp.ones((1, 4, 2)), mask=jnp.ones((1, 4), bool), rngs=nnx.Rngs(0))
    assert not np.any(known)


def test_a_batch_of_padding_has_no_auxiliary_loss():
    batch = rows.batch_of(FEATURES)
    batch["history/length"][:] = 0
    assert training_outputs(make(next_item=1.0), batch)["aux_loss/next_item"] == 0


def test_only_the_row_itself_matters():
    checks.assert_only_the_row_matters(make, FEATURES)


@pytest.mark.parametrize("options", [{}, {"evolution": "attention"}], ids=str)
def test_a_request_scores_as_its_tiled_batch(options):
    features = rows.features()
    checks.assert_requests_agree(make(features, **options), features)


def test_order_matters():
    model, batch = make(), rows.batch_of(FEATURES)
    other = rows.logit(model, checks.reversed_histories(batch, FEATURES))
    assert np.abs(other - rows.logit(model, batch)).max() > 1e-4


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        DIEN(next_item=-1.0)
