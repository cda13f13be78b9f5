"""KAR: the hybrid-expert adaptor in numpy, and what it hands to the tower."""

import numpy as np
import pytest
from flax import nnx

from data.features import Dense
from modules.behavior.din import DIN
from modules.behavior.kar import KAR
from modules.layers.hybrid_experts import HybridExperts
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from tests.modules.behavior import checks

KNOWLEDGE = (Dense(name="reasoning", role="user", dim=5), Dense(name="facts", role="item", dim=5))
FEATURES = rows.features(*rows.EVERY_KIND[:5], *KNOWLEDGE)
TOWER = DIN(dim=3, mlp=MLP(widths=(6,)), attention=MLP(widths=(5,)))
ADAPTOR = HybridExperts(shared=2, own=3, hidden=4, out=2)


def make(adaptor=ADAPTOR, **options):
    return KAR(tower=TOWER, adaptor=adaptor, **options).make(FEATURES, rngs=nnx.Rngs(0))


def experts(x, stacked):
    up, down = rows.float64(stacked.up), rows.float64(stacked.down)
    out = []
    for e in range(len(up)):
        h = np.maximum(x @ up[e] + rows.float64(stacked.up_bias)[e], 0)
        out.append(np.maximum(h @ down[e] + rows.float64(stacked.down_bias)[e], 0))
    return out


def adapted(x, layer, origin):
    told = experts(x, layer.common) + experts(x, layer.own[origin])
    z = np.exp(rows.dense(x, layer.gates[origin]))
    z /= z.sum(axis=1, keepdims=True)
    return sum(z[:, e : e + 1] * told[e] for e in range(len(told)))


def test_each_origin_is_a_gated_sum_of_shared_and_own_experts_and_both_go_to_din():
    model, batch = make(), rows.batch_of(FEATURES)
    more = [adapted(batch[n], model.adaptor, i) for i, n in enumerate(("reasoning", "facts"))]
    logit = model.tower.rank(rows.on_device(batch), more=[m.astype(np.float32) for m in more])
    np.testing.assert_allclose(rows.logit(model, batch), logit, rtol=1e-4, atol=1e-5)
    assert {"reasoning", "facts"}.isdisjoint(model.tower.embed.names)


@pytest.mark.parametrize(("kind", "common", "own"), [("hybrid", 2, 3), ("shared", 8, 0), ("single", 0, 1)])
def test_the_kinds_to_compare_differ_in_who_owns_the_experts(kind, common, own):
    layer = make(HybridExperts(shared=2, own=3, hidden=4, out=2, kind=kind)).adaptor
    assert (0 if layer.common is None else len(layer.common.up[...])) == common
    assert ([] if layer.own is None else [len(o.up[...]) for o in layer.own]) == ([own, own] if own else [])
    if kind == "single":
        x = rows.batch_of(FEATURES)["facts"]
        np.testing.assert_allclose(layer(x, origin=1), experts(x, layer.own[1])[0], rtol=1e-4, atol=1e-5)


def test_without_knowledge_it_is_the_tower():
    model, batch = make(reads=()), rows.batch_of(FEATURES)
    other = {**batch, "facts": batch["facts"] + 1, "reasoning": batch["reasoning"] - 1}
    np.testing.assert_array_equal(rows.logit(model, batch), rows.logit(model, other))
    assert np.abs(rows.logit(make(), batch) - rows.logit(make(), other)).max() > 1e-4
    with pytest.raises(ValueError, match="said to have"):
        make(reads=("opinion",))


def test_one_person_with_many_candidates_and_no_row_but_its_own():
    checks.assert_requests_agree(make(), FEATURES)
    checks.assert_only_the_row_matters(make, FEATURES, train=False)
