"""DIN: equation 3 in numpy, and what the local activation unit must not do."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Sequence
from modules.behavior.din import DIN
from modules.layers.behaviours import group_pairs
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from modules.layers.target_attention import TargetAttention
from tests.modules import click_rows as rows
from tests.modules.behavior import checks

FEATURES = rows.features()
CONFIG = DIN(dim=3, embedding=Embedding(std=0.5), attention=MLP(widths=(5,)), mlp=MLP(widths=(6,)), softmax=False)


def make(config: DIN = CONFIG, features=FEATURES):
    return config.make(features, rngs=nnx.Rngs(0))


def interest(model, history, target, *, length, softmax):
    """Equation 3 for one row, one behaviour at a time."""
    scores = []
    for e in history[:length]:
        unit = np.concatenate([e, target, e - target, e * target])
        scores.append(rows.tower(unit, model.attention[0].mlp)[0])
    if softmax and scores:
        powers = np.exp(np.asarray(scores) / np.sqrt(len(target)))
        scores = powers / powers.sum()
    return sum((a * e for a, e in zip(scores, history[:length], strict=True)), np.zeros_like(target))


@pytest.mark.parametrize(("softmax", "product", "bias"), [(False, False, False), (True, True, True)])
def test_the_logit_equals_numpy(softmax, product, bias):
    model = make(DIN(
        dim=3, embedding=Embedding(std=0.5), attention=MLP(widths=(5,)), mlp=MLP(widths=(6,)),
        softmax=softmax, product=product, target_bias=bias,
    ))  # fmt: skip
    batch = rows.batch_of(FEATURES)
    vectors = rows.plain_vectors(model.embed, batch, FEATURES)
    pooled = rows.plain_fields(model.embed, batch, FEATURES)
    history = np.concatenate([vectors[n] for n in ("history", "history_category", "history_content")], axis=-1)
    target = np.concatenate([vectors[n] for n in ("item", "category", "content")], axis=-1)
    u = np.stack(
        [
            interest(model, h, v, length=n, softmax=softmax)
            for h, v, n in zip(history, target, batch["history/length"], strict=True)
        ]
    )
    others = [pooled[n] for n in ("user", "item", "category", "content", "price", "tags", "ages", "title")]
    x = np.concatenate([*others, u, *([u * target] if product else [])], axis=-1)
    expected = rows.tower(x, model.mlp)[:, 0]
    if bias:
        expected += rows.float64(model.bias.table_1)[batch["item"], 0]
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "dice"])
def test_order_and_padding_of_the_history_do_not_matter(activation):
    features = rows.features(rows.USER, rows.ITEM, rows.HISTORY)
    config = DIN(dim=3, embedding=Embedding(std=0.5), attention=MLP(widths=(5,), activation=activation))
    batch = rows.batch_of(features)
    shuffled = dict(batch, history=batch["history"].copy())
    for row, length in enumerate(batch["history/length"]):
        shuffled["history"][row, :length] = batch["history"][row, :length][::-1]
    for train in (False, True):
        logit, other, repadded = (
            rows.logit(make(config, features), b, train=train)
            for b in (batch, shuffled, rows.repadded(batch, features))
        )
        np.testing.assert_allclose(other, logit, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(repadded, logit)
    model = make(config, features)
    one = rows.logit(model, {n: x[2:3] for n, x in batch.items()})
    np.testing.assert_allclose(one, rows.logit(model, batch)[2:3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("softmax", [False, True])
def test_masked_positions_have_no_gradient_and_an_empty_history_gives_zero(softmax):
    attention = TargetAttention(3, mlp=MLP(widths=(5,), activation="dice"), softmax=softmax, rngs=nnx.Rngs(0))
    graph, state = nnx.split(attention)
    rng = np.random.default_rng(0)
    history = jnp.asarray(rng.normal(size=(3, 4, 3)), jnp.float32)
    target = jnp.asarray(rng.normal(size=(3, 3)), jnp.float32)
    mask = jnp.asarray([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], bool)

    def pool(history, rngs=None):
        # Fresh variables, since those of an outer trace may not take new running statistics.
        fresh = jax.tree.map(lambda x: x, state)
        return nnx.merge(graph, fresh)(history, target=target, mask=mask, rngs=rngs)

    assert not np.any(pool(history)[0])
    gradient = np.asarray(jax.grad(lambda h: jnp.square(pool(h, nnx.Rngs(0))).sum())(history))
    assert np.isfinite(gradient).all()
    assert not np.any(gradient[~np.asarray(mask)]) and np.all(np.any(gradient[np.asarray(mask)], axis=-1))
    weights = nnx.merge(graph, state).weights(history, target=target, mask=mask)
    if softmax:
        np.testing.assert_allclose(weights.sum(1), [0, 1, 1], rtol=1e-6)


def test_two_histories_of_one_target_are_two_behaviours():
    bought = Sequence(name="bought", role="user", of=Categorical(name="b", rows=11, share="item"), length=rows.LENGTH)
    features = rows.features(rows.USER, rows.ITEM, rows.CATEGORY, rows.HISTORY, rows.HISTORY_CATEGORY, bought)
    pairs = (("history", "item"), ("history_category", "category"), ("bought", "item"))
    assert group_pairs(pairs, features=features) == (pairs[:2], pairs[2:])
    assert len(make(CONFIG, features).behaviours.groups) == 2
    separate = make(DIN(dim=3, joint=False, pairs=pairs), features)
    assert len(separate.behaviours.groups) == 3 and rows.logit(separate, rows.batch_of(features)).shape == (6,)


@pytest.mark.parametrize("softmax", [False, True])
def test_a_request_scores_as_its_tiled_batch(softmax):
    config = chz.replace(CONFIG, softmax=softmax, product=True, target_bias=True)
    checks.assert_requests_agree(make(config), FEATURES)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"no history shares its table.*histories: history"):
        make(features=rows.features(rows.USER, rows.HISTORY))
    with pytest.raises(KeyError, match="did you mean 'history'"):
        make(DIN(pairs=(("histry", "item"),)))
    with pytest.raises(KeyError, match="did you mean 'item'"):
        make(DIN(pairs=(("history", "itm"),)))
    with pytest.raises(ValueError, match="not a sequence"):
        make(DIN(pairs=(("user", "item"),)))
    with pytest.raises(ValueError, match="one value of the history's table 'item'"):
        make(DIN(pairs=(("history", "category"),)))
