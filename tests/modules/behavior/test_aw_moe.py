"""AW-MoE: gate, experts and contrastive loss in numpy, and gates that stay finite and single."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.behavior.aw_moe import AWMoE, contrastive
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from tests.modules.behavior import checks

FEATURES = rows.features()
SMALL = {
    **{"dim": 3, "embedding": Embedding(std=0.5), "experts": 3, "gate": 4},
    **{"attention": MLP(widths=(5,)), "mlp": MLP(widths=(6,))},
}
HISTORIES = ("history", "history_category", "history_content")
TARGETS = ("item", "category", "content")


def make(features=FEATURES, **options):
    return AWMoE(**SMALL, **options).make(features, rngs=nnx.Rngs(0))


def votes(gate, e, q):
    """One behaviour: a weight for each expert, by layers that read [e, q] and [e, q, e ⊙ q] as one array."""
    own, asked = rows.dense(e, gate.behaviour), rows.dense(q, gate.other)
    unit, activation = np.split(own + asked, 2)
    activation = np.maximum(activation + rows.dense(e * q, gate.product), 0)
    share = 1 / (1 + np.exp(-rows.dense(activation, gate.activation)))
    return share * rows.dense(np.maximum(unit, 0), gate.vote)


@pytest.mark.parametrize("query", [None, "user"])
def test_the_logit_equals_numpy(query):
    model, batch = make(query=query), rows.batch_of(FEATURES)
    vectors = rows.plain_vectors(model.embed, batch, FEATURES)
    pooled = rows.plain_fields(model.embed, batch, FEATURES)
    expected = []
    for row, length in enumerate(batch["history/length"]):
        e = np.concatenate([vectors[n][row, :length] for n in HISTORIES], axis=-1)
        v = np.concatenate([vectors[n][row] for n in TARGETS])
        units = [rows.tower(np.concatenate([x, v, x - v, x * v]), model.attention[0].mlp)[0] for x in e]
        interest = sum((a * x for a, x in zip(units, e, strict=True)), np.zeros_like(v))
        own = [pooled[n][row] for n in ("user", *TARGETS, "price", "tags", "ages", "title")]
        x = np.concatenate([*own, interest])
        gate = model.gates[0]
        q = v if query is None else rows.dense(pooled[query][row], gate.ask)
        g = np.full(3, 1 / 3) + (np.mean([votes(gate, x, q) for x in e], axis=0) if length else 0)
        expected.append(sum(g[k] * rows.tower(x, model.experts[k])[0] for k in range(3)))
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)


def test_the_contrastive_loss_equals_numpy():
    rng = np.random.default_rng(0)
    gate, other = rng.normal(size=(2, 5, 3))
    valid = np.array([1, 1, 0, 1, 1], bool)
    losses = []
    for u in np.flatnonzero(valid):
        cosines = {}
        for w in np.flatnonzero(valid):
            cosines[w] = gate[u] @ other[w] / np.sqrt((gate[u] @ gate[u]) * (other[w] @ other[w]))
        losses.append(-np.log(np.exp(cosines[u] / 0.2) / sum(np.exp(c / 0.2) for c in cosines.values())))
    arrays = (jnp.asarray(x, jnp.float32) for x in (gate, other))
    found = contrastive(next(arrays), other=next(arrays), rows=jnp.asarray(valid), temperature=0.2)
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-4)


def test_the_model_hides_behaviours_and_adds_the_loss_in_training_alone():
    batch = rows.on_device(rows.batch_of(FEATURES))

    def run(hide=0.5, contrast=0.02, train=True):
        graph, state = nnx.split(make(hide=hide, contrast=contrast))
        rngs = (lambda: nnx.Rngs(0)) if train else (lambda: None)
        return jax.jit(lambda s: nnx.merge(graph, s)(batch, rngs=rngs()))(state)

    name = "aux_loss/gate"
    assert name not in run(train=False) and name not in run(contrast=0.0)
    # Nothing hidden: the second gate is the first, and no other is as near.
    assert 0 < float(run(hide=0.0)[name]) < float(run(hide=0.5)[name])
    np.testing.assert_allclose(run(contrast=0.04)[name], 2 * run()[name], rtol=1e-5)
    np.testing.assert_allclose(run()["logit"], run(contrast=0.0)["logit"], rtol=1e-5)


def test_hidden_and_empty_histories_give_finite_gradients():
    empty = rows.batch_of(FEATURES)
    for name in [n for n in empty if n.endswith("/length")]:
        empty[name][:4] = 0
    for hide in (0.3, 0.99):
        graph, state = nnx.split(make(hide=hide, contrast=1.0))

        def loss(state, batch=rows.on_device(empty), graph=graph):
            outputs = nnx.merge(graph, state)(batch, rngs=nnx.Rngs(0))
            return outputs["logit"].sum() + outputs["aux_loss/gate"]

        grads = jax.tree.leaves(jax.jit(jax.grad(loss))(state))
        assert all(np.isfinite(g).all() for g in grads) and any(np.any(g) for g in grads)
    zero = jnp.zeros((2, 3))
    grad = jax.grad(lambda g: contrastive(g, other=zero, rows=jnp.asarray([True, True]), temperature=0.1))(zero)
    assert np.isfinite(grad).all()


def test_what_every_tower_with_a_history_owes():
    for query in (None, "user"):
        checks.assert_requests_agree(make(query=query), FEATURES)
        checks.assert_only_the_row_matters(lambda query=query: make(query=query), FEATURES)


def test_a_query_of_the_user_makes_one_gate_for_all_candidates():
    model = make(query="user")
    shapes = []
    original = type(model.gates[0]).__call__

    def watched(self, history, *, query):
        out = original(self, history, query=query)
        shapes.append(out.shape)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.gates[0]), "__call__", watched)
        rows.logit(model, checks.request_of(FEATURES, tiled=False))
    assert shapes == [(1, rows.LENGTH, 3)]


def test_one_expert_is_one_tower_and_wrong_words_are_named():
    single = AWMoE(dim=3, experts=1, attention=MLP(widths=(5,)), mlp=MLP(widths=(6,)))
    model = single.make(FEATURES, rngs=nnx.Rngs(0))
    assert not model.gates and rows.logit(model, rows.batch_of(FEATURES), train=True).shape == (6,)
    with pytest.raises(ValueError, match="'history' is no field beside the histories"):
        make(query="history")
    with pytest.raises(ValueError, match=r"hide=1.0 in \[0, 1\)"):
        AWMoE(hide=1.0)
