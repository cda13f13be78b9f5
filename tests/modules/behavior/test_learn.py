"""LEARN's online tower: what it reads, what it hands to DIN, and its own loss."""

import numpy as np
import pytest
from flax import nnx

from data.features import Dense
from modules.behavior.din import DIN
from modules.behavior.learn import LEARNRanker
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from tests.modules.behavior import checks

PERSON = Dense(name="person", role="user", dim=3)
FEATURES = rows.features(*rows.EVERY_KIND[:5], rows.CONTENT, PERSON)
CONFIG = LEARNRanker(tower=DIN(dim=3, mlp=MLP(widths=(6,)), attention=MLP(widths=(5,))), adaptation=MLP(widths=(4,)))


def make(**options):
    config = LEARNRanker(tower=CONFIG.tower, adaptation=CONFIG.adaptation, **options)
    return config.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("product", [False, True])
def test_the_hidden_layer_goes_to_din_beside_its_fields(product):
    model, batch = make(product=product), rows.batch_of(FEATURES)
    u, v = (batch[n] / np.linalg.norm(batch[n], axis=1, keepdims=True) for n in ("person", "content"))
    hidden = rows.tower(np.concatenate([u, v, *([u * v] if product else [])], axis=1), model.adaptation)
    logit = model.tower.rank(rows.on_device(batch), more=(hidden.astype(np.float32),))
    np.testing.assert_allclose(rows.logit(model, batch), logit, rtol=1e-4, atol=1e-5)
    assert {"person", "content"} <= set(model.tower.embed.names)
    own = model(rows.on_device(batch), rngs=nnx.Rngs(0))["aux_logit/adaptation"]
    np.testing.assert_allclose(own, rows.dense(hidden, model.judge)[:, 0], rtol=1e-4, atol=1e-5)
    assert set(model(rows.on_device(batch))) == {"logit"}
    assert set(make(auxiliary=False)(rows.on_device(batch), rngs=nnx.Rngs(0))) == {"logit"}


def test_one_person_with_many_candidates_is_as_the_same_rows_written_out():
    checks.assert_requests_agree(make(), FEATURES)


def test_only_the_row_matters():
    checks.assert_only_the_row_matters(make, FEATURES, train=False)


def test_vectors_of_two_widths_are_refused():
    odd = rows.features(*rows.EVERY_KIND[:5], rows.CONTENT, Dense(name="person", role="user", dim=4))
    with pytest.raises(ValueError, match="one width"):
        CONFIG.make(odd, rngs=nnx.Rngs(0))
