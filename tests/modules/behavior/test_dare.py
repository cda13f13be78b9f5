"""DARE: section 4 in numpy, one behaviour at a time; the search keeps the best and reads no more than it must."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Sequence
from modules.behavior.dare import DARE, pick
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from modules.layers.rows import RowTape, use_tape
from modules.layers.temporal import TimeGaps
from tests.modules import click_rows as rows
from tests.modules.behavior import checks

FEATURES = rows.features()
GAPS = TimeGaps(feature="ages", edges=(-0.5, 0.0, 0.5))
HISTORIES, TARGETS = ("history", "history_category", "history_content"), ("item", "category", "content")
STD = Embedding(std=0.5)


def make(features=FEATURES, **options):
    small = {"dim": 3, "attention_dim": 2, "keep": 2, "embedding": STD, "attention_embedding": STD}
    heads = {"mlp": MLP(widths=(6,)), "auxiliary_mlp": MLP(widths=(5,))}
    return DARE(**{**small, **heads, **options}).make(features, rngs=nnx.Rngs(0))


def described(embed, times, batch, row, *, gaps):
    """e_1..e_n and v of one row in one set of tables."""
    inputs = [f for f in FEATURES if f.name in embed.names]
    vectors = rows.plain_vectors(embed, batch, inputs)
    length = batch["history/length"][row]
    history = [np.concatenate([vectors[n][row, i] for n in HISTORIES]) for i in range(length)]
    target = np.concatenate([vectors[n][row] for n in TARGETS])
    if not times:
        return history, target
    p = rows.float64(times[0].vectors)
    at = lambda i: length - i if not gaps else 1 + sum(batch["ages"][row, i] >= edge for edge in gaps.edges)  # noqa: E731
    return [np.concatenate([e, p[at(i)]]) for i, e in enumerate(history)], np.concatenate([target, p[0]])


def scores_of(model, batch, row, *, gaps):
    search = model.search
    e, v = described(search.embed or model.embed, search.times or model.times, batch, row, gaps=gaps)
    if search.keys:
        e, v = [rows.dense(x, search.keys[0]) for x in e], rows.dense(v, search.queries[0])
    return np.asarray([x @ v / np.sqrt(len(v)) for x in e])


def interest(model, batch, row, *, keep, gaps):
    scores = scores_of(model, batch, row, gaps=gaps)
    e, v = described(model.embed, model.times, batch, row, gaps=gaps)
    kept = np.argsort(-scores)[:keep]
    powers = np.exp(scores[kept])
    h = sum((w * e[i] for w, i in zip(powers / powers.sum(), kept, strict=True)), np.zeros_like(v))
    return np.concatenate([h, h * v]) if model.product else h


def training_outputs(model, batch):
    graph, state = nnx.split(model)
    return jax.jit(lambda s, b: nnx.merge(graph, s)(b, rngs=nnx.Rngs(0)))(state, rows.on_device(batch))


OPTIONS = [
    {}, {"keep": None}, {"tables": "shared"}, {"tables": "projected"}, {"gaps": GAPS}, {"positions": False},
    {"product": False},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_logit_equals_numpy(options):
    model, gaps = make(**options), options.get("gaps")
    batch = rows.batch_of(FEATURES)
    pooled = rows.plain_fields(model.embed, batch, [f for f in FEATURES if f.name in model.embed.names])
    parts = [x for name, x in pooled.items() if name not in HISTORIES]
    met = np.stack([interest(model, batch, r, keep=model.keep, gaps=gaps) for r in range(6)])
    expected = rows.tower(np.concatenate([*parts, met], axis=-1), model.mlp)[:, 0]
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)
    outputs = training_outputs(model, batch)
    if options.get("keep", 2) is None:
        assert set(outputs) == {"logit"}
        return
    whole = np.stack([interest(model, batch, r, keep=None, gaps=gaps) for r in range(6)])
    expected = rows.tower(whole, model.auxiliary)[:, 0]
    np.testing.assert_allclose(outputs["aux_logit/whole_history"], expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("tables", ["decoupled", "projected", "shared"])
def test_keeping_everything_is_full_attention(tables):
    """A search that drops nothing, run on a history one longer, equals no search."""
    batch = rows.batch_of(FEATURES)
    longer = {
        n: np.pad(x, [(0, 0), (0, 1), *[(0, 0)] * (x.ndim - 2)]) if f"{n}/length" in batch and n in HISTORIES else x
        for n, x in batch.items()
    }
    full = rows.logit(make(tables=tables, keep=None, positions=False), batch)
    model = make(tables=tables, keep=rows.LENGTH, positions=False)
    np.testing.assert_allclose(rows.logit(model, longer), full, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"tables": "shared"}, {"gaps": GAPS}], ids=str)
def test_only_the_row_itself_matters(options):
    checks.assert_only_the_row_matters(lambda: make(**options), FEATURES)


@pytest.mark.parametrize("options", [{}, {"keep": None}, {"tables": "projected"}, {"gaps": GAPS}], ids=str)
def test_a_request_scores_as_its_tiled_batch(options):
    checks.assert_requests_agree(make(**options), FEATURES)


def test_order_does_not_matter_without_positions():
    batch = rows.batch_of(FEATURES)
    model = make(positions=False)
    other = rows.logit(model, checks.reversed_histories(batch, FEATURES))
    np.testing.assert_allclose(other, rows.logit(model, batch), rtol=1e-4, atol=1e-5)
    ranked = make()
    assert np.abs(rows.logit(ranked, batch) - rows.logit(ranked, checks.reversed_histories(batch, FEATURES))).max() > 0


def paths(model):
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Variable):
            node.set_metadata(path="/".join(map(str, path)))


def test_representation_rows_are_read_for_survivors_alone():
    features = rows.features(rows.USER, rows.ITEM, rows.HISTORY)
    batch = rows.on_device(rows.batch_of(features))
    model = make(features)
    paths(model)
    tape = RowTape(frozenset({"embed/table_3", "search/embed/table_2"}))
    with use_tape(tape):
        model(batch)
    read = [(path, ids.shape) for path, ids in tape.reads]
    # user and target; target and whole history; two survivors
    assert read == [("embed/table_3", (6, 2)), ("search/embed/table_2", (6, 5)), ("embed/table_3", (6, 2))]


def test_only_the_second_head_teaches_what_is_not_kept():
    features = rows.features(rows.USER, rows.ITEM, rows.HISTORY)
    batch = rows.on_device(rows.batch_of(features))
    batch["history"] = jax.numpy.arange(24).reshape(6, 4) % 9 + 2
    batch["item"] = jax.numpy.zeros(6, jax.numpy.int32)
    graph, params, stats = nnx.split(make(features), nnx.Param, ...)

    def loss(params, output):
        outputs = nnx.merge(graph, params, jax.tree.map(lambda x: x, stats))(batch, rngs=nnx.Rngs(0))
        return jax.numpy.square(outputs[output][1])

    touched = {}
    for output in ("logit", "aux_logit/whole_history"):
        gradient = nnx.to_pure_dict(jax.grad(loss)(params, output))
        table = np.asarray(gradient["embed"]["table_3"])[9:20]  # items, after nine users
        touched[output] = np.flatnonzero(np.abs(table).sum(1)).tolist()
    assert len(touched["logit"]) == 3 and len(touched["aux_logit/whole_history"]) == 5  # the target, and 2 or 4


def test_histories_that_end_earlier_than_their_group_stay_padded():
    """A survivor of the group may be padding of one of its features: zero there, as without a search."""
    batch = rows.batch_of(FEATURES)
    batch["history_category/length"] = np.minimum(batch["history_category/length"], 1)
    full = rows.logit(make(keep=None), batch)
    longer = {
        n: np.pad(x, [(0, 0), (0, 1), *[(0, 0)] * (x.ndim - 2)]) if n in HISTORIES else x for n, x in batch.items()
    }
    np.testing.assert_allclose(rows.logit(make(keep=rows.LENGTH), longer), full, rtol=1e-4, atol=1e-5)


def test_two_lists_of_behaviours_are_searched_apart():
    bought = Sequence(name="bought", role="user", of=Categorical(name="b", rows=11, share="item"), length=3)
    features = rows.features(rows.USER, rows.ITEM, rows.HISTORY, bought)
    model = make(features)
    batch = rows.batch_of(features)
    batch["bought/length"] = np.minimum(batch["bought/length"], 3)
    assert [s.shape for s, _ in model.scores(rows.on_device(batch))] == [(6, 4), (6, 3)]
    assert rows.logit(model, batch).shape == (6,)


def test_picking_equals_indexing(rng):
    x = rng.normal(size=(3, 5, 2)).astype(np.float32)
    index = rng.integers(0, 5, (3, 4))
    expected = np.stack([x[row][index[row]] for row in range(3)])
    np.testing.assert_array_equal(pick(jax.numpy.asarray(x), index=index), expected)
    np.testing.assert_array_equal(pick(jax.numpy.asarray(x[:1]), index=index), x[0][index])


def test_keep_is_checked():
    with pytest.raises(ValueError, match="keep at least 1"):
        DARE(keep=0)
