"""TIN: section 3 in numpy, one behaviour at a time, and what may and what must not matter."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Numeric
from modules.behavior.tin import TIN
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from modules.layers.temporal import TimeGaps
from tests.modules import click_rows as rows
from tests.modules.behavior import checks

FEATURES = rows.features()
GAPS = TimeGaps(feature="ages", edges=(-0.5, 0.0, 0.5))


def config(**options) -> TIN:
    return TIN(dim=3, embedding=Embedding(std=0.5), mlp=MLP(widths=(6,)), unit=MLP(widths=(5,)), **options)


def make(features=FEATURES, **options):
    return config(**options).make(features, rngs=nnx.Rngs(0))


def placed(model, batch, row, *, gaps):
    """ẽ_1..ẽ_n and ṽ of one row."""
    vectors = rows.plain_vectors(model.embed, batch, list(FEATURES.without("ages") if gaps else FEATURES))
    history = np.concatenate([vectors[n][row] for n in ("history", "history_category", "history_content")], axis=-1)
    target = np.concatenate([vectors[n][row] for n in ("item", "category", "content")], axis=-1)
    length = batch["history/length"][row]
    if not model.times:
        return history[:length], target
    p = rows.float64(model.times[0].vectors)
    encoded = []
    for i in range(length):
        distance = length - i if not gaps else 1 + sum(batch["ages"][row, i] >= edge for edge in gaps.edges)
        encoded.append(history[i] + p[distance])
    return np.asarray(encoded).reshape(length, len(target)), target + p[0]


def interest(model, e, v):
    if not len(e):
        return np.zeros_like(v)
    if model.attention == "mean":
        return e.mean(0)
    if model.attention == "dot":
        scores = np.asarray([x @ v for x in e])
    else:
        scores = np.asarray([rows.tower(np.concatenate([x, v, x - v, x * v]), model.units[0].mlp)[0] for x in e])
    powers = np.exp(scores / np.sqrt(len(v)))
    return sum(a * x for a, x in zip(powers / powers.sum(), e, strict=True))


@pytest.mark.parametrize(
    "options",
    [{}, {"gaps": GAPS}, {"positions": False}, {"product": False}, {"attention": "mean"}, {"attention": "unit"}],
    ids=str,
)
def test_the_logit_equals_numpy(options):
    model, gaps = make(**options), options.get("gaps")
    batch = rows.batch_of(FEATURES)
    used = FEATURES.without("ages") if gaps else FEATURES
    pooled = rows.plain_fields(model.embed, batch, list(used))
    parts = [x for name, x in pooled.items() if name not in ("history", "history_category", "history_content")]
    met = []
    for row in range(6):
        e, v = placed(model, batch, row, gaps=gaps)
        u = interest(model, e, v)
        met.append(np.concatenate([u, u * v]) if model.product else u)
    expected = rows.tower(np.concatenate([*parts, np.stack(met)], axis=-1), model.mlp)[:, 0]
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("gaps", [None, GAPS])
def test_the_read_out_is_the_correlation_of_the_paper(gaps):
    model = make(gaps=gaps)
    batch = rows.batch_of(FEATURES)
    (found,) = model.correlations(rows.on_device(batch))
    for row in range(6):
        e, v = placed(model, batch, row, gaps=gaps)
        expected = [np.exp(x @ v) * np.linalg.norm(x * v) for x in e]
        np.testing.assert_allclose(found[row], np.pad(expected, (0, rows.LENGTH - len(e))), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"gaps": GAPS}, {"positions": False}, {"attention": "mean"}, {"attention": "unit"}], ids=str
)
def test_only_the_row_itself_matters(options):
    checks.assert_only_the_row_matters(lambda: make(**options), FEATURES)


@pytest.mark.parametrize("options", [{}, {"gaps": GAPS}, {"product": False}, {"attention": "mean"}], ids=str)
def test_a_request_scores_as_its_tiled_batch(options):
    checks.assert_requests_agree(make(**options), FEATURES)


def test_order_matters_through_the_positions_alone():
    batch = rows.batch_of(FEATURES)
    other = checks.reversed_histories(batch, FEATURES)
    same = make(positions=False)
    np.testing.assert_allclose(rows.logit(same, other), rows.logit(same, batch), rtol=1e-4, atol=1e-5)
    # Ages travel with the behaviours that they belong to.
    aged = make(gaps=GAPS)
    np.testing.assert_allclose(rows.logit(aged, other), rows.logit(aged, batch), rtol=1e-4, atol=1e-5)
    ranked = make()
    assert np.abs(rows.logit(ranked, other) - rows.logit(ranked, batch)).max() > 1e-3


def test_the_newest_is_first_whatever_the_length():
    time = make().times[0]
    mask = np.arange(rows.LENGTH)[None, :] < np.asarray([0, 1, 3])[:, None]
    distances = np.asarray(time.distances(jax.numpy.asarray(mask), batch={}))
    assert distances[1, 0] == 1 and distances[2, :3].tolist() == [3, 2, 1]
    assert distances.min() >= 1 and distances.max() < len(time.vectors[...])


def test_what_cannot_say_when_is_refused():
    with pytest.raises(ValueError, match="'history' is no sequence of numbers"):
        make(gaps=TimeGaps(feature="history", edges=(1.0,)))
    with pytest.raises(KeyError, match="did you mean 'ages'"):
        make(gaps=TimeGaps(feature="agess", edges=(1.0,)))
    with pytest.raises(ValueError, match="do not rise"):
        TimeGaps(feature="ages", edges=(2.0, 1.0))
    longer = rows.Sequence(name="ages", role="user", of=Numeric(name="age"), length=rows.LENGTH + 1)
    features = rows.features(rows.USER, rows.ITEM, rows.HISTORY, longer)
    with pytest.raises(ValueError, match="declare them of one length"):
        make(features, gaps=GAPS)
