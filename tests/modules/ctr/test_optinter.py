"""OptInter against plain numpy: its mixture, its fixed methods as one-hot choices, the fall of its temperature."""

import itertools
import json

import chz
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Categorical, Features
from modules.ctr.optinter import METHODS, OptInter, assignment_of, entropy, pairs_of
from modules.layers.content import Content
from modules.layers.crosses import CrossTable
from modules.layers.embedding import Embedding
from modules.layers.mlp import MLP
from tests.modules import click_rows as rows

FEATURES = rows.features()
# Options of features that do not interact must not reach the factors.
EMBEDDING = Embedding(std=0.5, widths={"tags": 2}, content={"content": Content(bias=False)})
SEARCH = OptInter(
    dim=3, cross_dim=2, cross_std=0.5, embedding=EMBEDDING, mlp=MLP(widths=(6,)), cooling=0.3, cross_rows=60
)
PAIRS = (("user", "item"), ("user", "category"), ("item", "category"))
SIZES = {"user": 9, "item": 11, "category": 5}


def search(**fields):
    model = chz.replace(SEARCH, **fields).make(FEATURES, rngs=nnx.Rngs(0))
    if hasattr(model, "alpha"):
        model.alpha[...] = jnp.asarray([[0.4, -0.2, 0.1], [0.0, 0.7, 0.3], [-0.5, 0.1, 0.6]])
    return model


def parts_of(model, batch):
    """The flat embeddings, each pair's memory and each pair's product, one pair at a time."""
    flat = np.concatenate(list(rows.plain_fields(model.embed, batch, FEATURES).values()), -1)
    table, first, memories = rows.float64(model.crosses.table), 0, []
    for cross, (left, right) in zip(model.crosses.crosses, PAIRS, strict=True):
        size = SIZES[left] * SIZES[right]
        if size <= 60:
            memories.append(table[first + batch[left] * SIZES[right] + batch[right]])
            first += size
        else:  # hashed; which row it is, is tested below
            memories.append(table[np.asarray(cross(rows.on_device(batch)))])
            first += 60
    factor = rows.plain_vectors(model.factors, batch, FEATURES.select(names=("user", "item", "category")))
    return flat, memories, [factor[left] * factor[right] for left, right in PAIRS]


def test_the_mixture_equals_numpy():
    model, batch = search(), rows.batch_of(FEATURES)
    model.steps[...] = jnp.asarray(2.0)  # temperature 0.4
    flat, memories, products = parts_of(model, batch)
    z = np.exp(rows.float64(model.alpha) / 0.4)
    p = z / z.sum(-1, keepdims=True)
    pairs = [p[k, 0] * m + p[k, 1] * f for k, (m, f) in enumerate(zip(memories, products, strict=True))]
    expected = rows.tower(np.concatenate([flat, *pairs], -1), model.mlp)[:, 0]
    np.testing.assert_allclose(rows.logit(model, batch), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_one_method_for_all_equals_its_one_hot_choice(method):
    model, batch = search(), rows.batch_of(FEATURES)
    model.alpha[...] = 10.0 * jnp.eye(3)[jnp.full(3, METHODS.index(method))]
    model.steps[...] = jnp.asarray(100.0)
    fixed = search(choice=method)
    width = model.embed.width()
    for name in ("embed", "crosses", "factors"):
        if getattr(fixed, name) is not None:
            nnx.update(getattr(fixed, name), nnx.state(getattr(model, name)))
    nnx.update(fixed.mlp.out, nnx.state(model.mlp.out))
    kernel = model.mlp.hidden[0].linear.kernel[...]
    fixed.mlp.hidden[0].linear.kernel[...] = kernel[:width] if method == "naive" else kernel
    assert fixed.crosses is None or method == "memorize"
    assert fixed.factors is None or method == "factorize"
    np.testing.assert_allclose(rows.logit(fixed, batch), rows.logit(model, batch), rtol=1e-4, atol=1e-5)


def test_an_assignment_holds_only_what_it_chose(tmp_path):
    path = tmp_path / "assignment.json"
    chosen = assignment_of(search().alpha[...], pairs=PAIRS)
    assert chosen == {"user x item": "memorize", "user x category": "factorize", "item x category": "naive"}
    path.write_text(json.dumps({"pairs": chosen}))
    model = search(assignment=str(path))
    assert model.crosses.table.shape == (64, 2)  # one hashed pair of 60 rows
    assert model.factors.names == ("user", "category")
    assert model.factorized == (("user", "category"),) and not hasattr(model, "alpha")
    assert rows.logit(model, rows.batch_of(FEATURES)).shape == (6,)
    for wrong, message in (
        ({"pairs": {**chosen, "user x brand": "naive"}}, "differ in pair 'user x brand'"),
        ({"pairs": {**chosen, "user x item": "learn"}}, "method 'learn'"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=message):
            search(assignment=str(path))
    with pytest.raises(ValueError, match="is no file"):
        search(assignment=str(tmp_path / "other.json"))


def test_the_choice_sharpens_as_the_temperature_falls():
    model, batch = search(cooling=0.02), rows.on_device(rows.batch_of(FEATURES))
    seen = [float(entropy(model.mixture()))]
    for _ in range(60):
        model(batch, rngs=nnx.Rngs(0))
        seen.append(float(entropy(model.mixture())))
    assert float(model.temperature()) == pytest.approx(0.01)
    assert all(b <= a + 1e-6 for a, b in itertools.pairwise(seen))
    assert seen[0] > 0.9 > 0.05 > seen[-1]
    before = float(model.steps[...])
    model(batch)
    assert float(model.steps[...]) == before  # inference does not cool


def test_pairs_of_few_combinations_have_rows_of_their_own_and_others_are_hashed():
    features = Features(all=(*(Categorical(name=n, rows=r) for n, r in (("a", 5), ("b", 6), ("c", 900))), rows.CLICK))
    table = CrossTable(pairs_of(features), features=features, width=2, rows=100, std=1.0, rngs=nnx.Rngs(0))
    ab, ac, bc = table.crosses
    every = {n: x.ravel() for n, x in zip("ab", np.meshgrid(np.arange(5), np.arange(6)), strict=True)}
    assert sorted(np.asarray(ab(rows.on_device(every)))) == list(range(30))
    wide = {"a": np.zeros(900, int), "b": np.zeros(900, int), "c": np.arange(900)}
    for cross, first in ((ac, 30), (bc, 130)):
        found = np.asarray(cross(rows.on_device(wide)))
        counts = np.bincount(found - first, minlength=100)
        assert len(counts) == 100 and counts.min() >= 1 and counts.max() < 25
    assert (np.asarray(ac(rows.on_device(wide))) - 30 != np.asarray(bc(rows.on_device(wide))) - 130).mean() > 0.9
    out_of_range = {"a": np.array([7]), "b": np.array([1])}
    assert int(ab(rows.on_device(out_of_range))[0]) == 1 * 6 + 1  # unknown


def test_a_request_equals_its_tiled_batch():
    model, batch = search(), rows.batch_of(FEATURES)
    users = {n for f in FEATURES if f.role == "user" for n in f.arrays()}
    tiled = {n: np.repeat(a[1:2], 6, axis=0) if n in users else a for n, a in batch.items()}
    request = {n: a[:1] if n in users else a for n, a in tiled.items()}
    np.testing.assert_allclose(rows.logit(model, request), rows.logit(model, tiled), rtol=1e-5, atol=1e-6)


def test_the_penalty_is_of_the_rows_read():
    model, batch = search(l2=0.5), rows.batch_of(FEATURES)
    _, memories, _ = parts_of(model, batch)
    factor = rows.plain_vectors(model.factors, batch, FEATURES.select(names=("user", "item", "category")))
    expected = 0.5 * sum(np.square(x).sum(-1).mean() for x in (*memories, *factor.values()))
    assert float(model(rows.on_device(batch))["aux_loss/l2"]) == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_crossed_is_refused():
    with pytest.raises(ValueError, match="'tags' is multihot"):
        search(fields=("user", "tags"))
    with pytest.raises(ValueError, match="needs two features"):
        search(fields=("user",))
    with pytest.raises(ValueError, match="at least 1"):
        OptInter(cross_rows=0)
    with pytest.raises(ValueError, match="coldest"):
        OptInter(coldest=0.0)
