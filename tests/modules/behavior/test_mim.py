"""MIM's third stage in numpy: two attentions, the histogram of cosines, and vectors that no gradient reaches."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Dense, Sequence
from modules.behavior.mim import MIM, similarities
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows
from tests.modules.behavior import checks

FEATURES = rows.features()
FIELDS = FEATURES.without("content", "history_content")
CONFIG = MIM(dim=3, embedding=Embedding(std=0.5), width=5, attention=MLP(widths=(5,)), mlp=MLP(widths=(6,)))


def make(config: MIM = CONFIG, features=FEATURES):
    return config.make(features, rngs=nnx.Rngs(0))


def histogram(history, target, *, buckets=10):
    """Counts of cosines in ranges of equal width, their largest and their mean, one behaviour at a time."""
    counts, cosines = np.zeros(buckets), []
    for c in history:
        cosine = c @ target / np.sqrt((c @ c) * (target @ target) + 1e-30)
        counts[min(int((cosine + 1) / 2 * buckets), buckets - 1)] += 1
        cosines.append(cosine)
    summary = [max(cosines), np.mean(cosines)] if cosines else [0, 0]
    return np.concatenate([np.log1p(counts), summary])


def test_the_logit_equals_numpy():
    model, batch = make(), rows.batch_of(FEATURES)
    batch["history_content"][2, 0] = 0  # an item without a vector
    vectors = rows.plain_vectors(model.embed, batch, FIELDS)
    pooled = rows.plain_fields(model.embed, batch, FIELDS)
    found = []
    for row, length in enumerate(batch["history/length"]):
        e = np.concatenate([vectors[n][row, :length] for n in ("history", "history_category")], axis=-1)
        v = np.concatenate([vectors[n][row] for n in ("item", "category")])
        units = [rows.tower(np.concatenate([x, v, x - v, x * v]), model.attention[0].mlp)[0] for x in e]
        interest = sum((a * x for a, x in zip(units, e, strict=True)), np.zeros_like(v))
        past, candidate = batch["history_content"][row, :length].astype(np.float64), batch["content"][row]
        known = [i for i in range(length) if np.any(past[i])]
        keys, query = rows.dense(past, model.adapter)[known], rows.dense(candidate.astype(np.float64), model.adapter)
        powers = np.exp(keys @ query / np.sqrt(5))
        values = np.concatenate([keys, e[known]], axis=-1)
        content = powers @ values / powers.sum() if known else np.zeros(5 + len(v))
        own = [pooled[n][row] for n in ("user", "item", "category", "price", "tags", "ages", "title")]
        found.append(np.concatenate([*own, interest, query, content, histogram(past[known], candidate)]))
    np.testing.assert_allclose(
        rows.logit(model, batch), rows.tower(np.stack(found), model.mlp)[:, 0], rtol=2e-4, atol=1e-5
    )


def test_what_every_tower_with_a_history_owes():
    checks.assert_requests_agree(make(), FEATURES)
    checks.assert_only_the_row_matters(make, FEATURES)


def test_every_cosine_falls_into_its_bucket():
    angle = np.arccos([-1.0, -0.85, -0.1, 0.1, 0.5, 0.95, 1.0])
    history = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None].astype(np.float32)
    found = similarities(
        history, target=np.array([[1.0, 0.0]], np.float32), mask=np.ones((1, 7), bool), buckets=10
    )  # fmt: skip
    counts = np.expm1(np.asarray(found)[0, :10]).round().astype(int).tolist()
    assert counts == [2, 0, 0, 0, 1, 1, 0, 1, 0, 2]
    none = similarities(history, target=np.ones((1, 2), np.float32), mask=np.zeros((1, 7), bool), buckets=10)
    assert not np.any(none)


def test_no_gradient_reaches_the_vectors():
    model, batch = make(), rows.on_device(rows.batch_of(FEATURES))
    graph, state = nnx.split(model)

    def loss(vectors):
        return nnx.merge(graph, state)({**batch, **vectors})["logit"].sum()

    grads = jax.jit(jax.grad(loss))({n: batch[n] for n in ("content", "history_content")})
    assert not any(np.any(g) for g in grads.values())
    with_none = make(MIM(dim=3, buckets=0, attention=MLP(widths=(5,)), mlp=MLP(widths=(6,))))
    assert rows.logit(with_none, rows.batch_of(FEATURES)).shape == (6,)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no history_content; give it item vectors"):
        make(features=FEATURES.without("history_content"))
    with pytest.raises(ValueError, match="a sequence of vectors and one vector of the same width"):
        make(MIM(content=("history", "content")))
    longer = Sequence(name="history_content", role="user", of=Dense(name="content", dim=3), length=7)
    with pytest.raises(ValueError, match="'history_content' has 7 positions and 'history' has not"):
        make(features=FEATURES.without("history_content").plus(longer))
