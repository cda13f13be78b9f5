"""Self-supervised two-tower: the mutual information, what is masked, the loss by hand and its spread-out limit."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.features import Categorical, Features, MultiHot, Numeric
from data.information import information, mutual_information
from data.sources import InMemory, SourceConfig
from data.transforms.base import RowRandom
from data.transforms.masked_views import MaskedViews, together
from modules.layers.mlp import MLP
from modules.retrieval.ssl_two_tower import SSLTwoTower
from train.tasks.self_supervised import SelfSupervised

ROWS = 60
FIELDS = ("item", "brand", "maker", "words", "price")


def item_features():
    word = Categorical(name="word", rows=9)
    return Features(
        all=(
            Categorical(name="item", rows=ROWS + 2, role="item"),
            Categorical(name="brand", rows=8, role="item"),
            Categorical(name="maker", rows=8, role="item"),
            MultiHot(name="words", role="item", of=word, length=4),
            Numeric(name="price", role="item"),
        )
    )


@chz.chz
class Corpus(SourceConfig):
    def make(self) -> InMemory:
        rng = np.random.default_rng(0)
        brand = rng.integers(2, 8, ROWS)
        columns = {
            "item": np.arange(ROWS) + 2,
            "brand": brand,
            "maker": np.where(rng.random(ROWS) < 0.9, brand, 2),  # says nearly what the brand says
            "words": rng.integers(2, 9, (ROWS, 4)),
            "words/length": rng.integers(0, 5, ROWS),
            "price": brand + rng.normal(size=ROWS),
        }
        return InMemory(columns, features=item_features())


def rng_of(batch, *, rows=16):
    return RowRandom((0, batch), start=0, stop=rows, total=rows)


def clicks(rows=16):
    return {"user": np.arange(rows, dtype=np.int32) + 2, **Corpus().make().take(np.arange(rows))}


def bound(**options):
    return MaskedViews(items=Corpus(), **options).bind(Corpus().make())


def test_information_of_two_fields_by_counting(rng):
    a = rng.integers(0, 3, (50, 1))
    b = np.where(rng.random((50, 2)) < 0.7, rng.integers(0, 4, (50, 2)), -1)
    joint = np.zeros((3, 4))
    for x, values in zip(a[:, 0], b, strict=True):
        real = values[values >= 0]
        for value in real:
            joint[x, value] += 1 / len(real)
    joint /= joint.sum()
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    wanted = (joint[joint > 0] * np.log(joint[joint > 0] / product[joint > 0])).sum()
    assert information(a, b) == pytest.approx(wanted)
    share = np.bincount(a[:, 0]) / 50
    assert information(a, a) == pytest.approx(-(share * np.log(share)).sum())
    assert information(a, np.full((50, 1), -1)) == 0
    found = mutual_information(Corpus().make(), fields=FIELDS)
    np.testing.assert_allclose(found, found.T)
    brand = FIELDS.index("brand")
    assert found[brand, FIELDS.index("maker")] > found[brand, FIELDS.index("price")] > 0.2
    assert found[0, 0] == pytest.approx(np.log(ROWS)) and found[0, brand] == pytest.approx(found[brand, brand])


def test_related_fields_are_masked_together():
    related = np.array([[9, 5, 1, 0], [5, 9, 1, 1], [1, 1, 9, 7], [0, 1, 7, 9]])
    assert together(related, seed=2, companions=1).tolist() == [2, 3]
    assert together(related, seed=1, companions=None).tolist() == [1, 0, 2]  # half of four; the earlier among equals
    assert len(together(related, seed=0, companions=9)) == 3  # the other view keeps something
    transform, sets = bound(companions=1), set()
    for batch in range(40):
        views = transform(clicks(), rng=rng_of(batch))
        masked = {f for f in FIELDS if views[f"view_a/{f}/masked"].any()}
        for f in FIELDS:
            a, b = views[f"view_a/{f}/masked"], views[f"view_b/{f}/masked"]
            assert (a == a[0]).all() and (a + b == 1).all()
        sets.add(frozenset(masked))
    assert frozenset({"brand", "item"}) in sets or frozenset({"brand", "maker"}) in sets
    assert all(len(s) == 2 for s in sets) and len(sets) >= 3
    halves = {tuple(bound(masking="random")(clicks(), rng=rng_of(b))[f"view_a/{f}/masked"][0] for f in FIELDS)
              for b in range(30)}  # fmt: skip
    assert len(halves) > 5 and all(sum(h) == 2 for h in halves)


def test_items_come_from_the_whole_corpus_and_lose_some_of_their_words():
    transform, drawn = bound(drop=0.5), []
    corpus = Corpus().make().columns
    for batch in range(60):
        views = transform(clicks(), rng=rng_of(batch))
        key = views["view/key"]
        drawn.append(key)
        for view in ("view_a", "view_b"):
            assert (views[f"{view}/item"] == key).all()
            kept, whole = views[f"{view}/words/length"], corpus["words/length"][key - 2]
            assert (kept <= whole).all() and ((kept > 0) == (whole > 0)).all()
            for row in range(16):
                values = corpus["words"][key[row] - 2, : whole[row]].tolist()
                for word in views[f"{view}/words"][row, : kept[row]]:
                    values.remove(word)
                assert not views[f"{view}/words"][row, kept[row] :].any()
    counts = np.bincount(np.concatenate(drawn) - 2, minlength=ROWS)
    assert counts.min() > 0 and counts.max() < 5 * counts.mean()  # rows of the log are the first sixteen alone
    declared = MaskedViews(items=Corpus()).features(Corpus().make().features)
    views = transform(clicks(), rng=rng_of(0))
    for name, (shape, dtype) in declared.arrays().items():
        if name.startswith("view"):
            assert views[name].shape[1:] == shape and views[name].dtype == dtype, name
    assert [f.name for f in declared] == list(FIELDS)  # no input of the model
    with pytest.raises(UserError, match="has no two"):
        MaskedViews(items=Corpus(), fields=("item",)).bind(Corpus().make())


def made():
    features = Features(all=(Categorical(name="user", rows=30, role="user"), *item_features().all))
    config = SSLTwoTower(dim=6, query=MLP(widths=()), item=MLP(widths=(7,)))
    model = config.make(features, rngs=nnx.Rngs(0))
    for name in ("table_6", "numeric_6"):
        table = getattr(model.embed, name)
        table[...] = jax.random.normal(jax.random.key(1), table.shape)
    for name, param in model.default.items():
        param[...] = jax.random.normal(jax.random.key(len(name)), param.shape)
    return model


def run(model, batch):
    graph, state = nnx.split(model)
    whole = {n: jnp.asarray(a) for n, a in batch.items()}
    return jax.jit(lambda s, b: nnx.merge(graph, s)(b))(state, whole), whole


def nll(a, b, key, *, scale):
    logits = scale * np.asarray(a, np.float64) @ np.asarray(b, np.float64).T
    same = key[:, None] == key[None, :]
    logits[same & ~np.eye(len(key), dtype=bool)] = -np.inf
    return (np.log(np.exp(logits).sum(1)) - np.diag(logits)).mean()


@pytest.fixture(scope="module")
def model():
    return made()


def test_a_view_is_the_tower_over_defaults_and_the_loss_that_of_the_paper(model):
    batch = bound(drop=0.0)(clicks(), rng=rng_of(1))
    out, whole = run(model, batch)
    plain = Corpus().make().take(batch["view/key"] - 2)
    rows = {n: jnp.asarray(a) for n, a in plain.items()}
    vectors = {n: np.asarray(v, np.float64) for n, v in model.embed.pooled(rows, names=FIELDS).items()}
    for view in ("view_a", "view_b"):
        masked = {n: batch[f"{view}/{n}/masked"][0] for n in FIELDS}
        x = np.concatenate(
            [np.where(masked[n], np.asarray(model.default[n][...])[None], vectors[n]) for n in FIELDS], axis=1
        )
        hidden, last = model.item.hidden[0].linear, model.item.out
        x = np.maximum(x @ np.asarray(hidden.kernel[...]) + np.asarray(hidden.bias[...]), 0)
        x = x @ np.asarray(last.kernel[...]) + np.asarray(last.bias[...])
        np.testing.assert_allclose(out[view], x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-4, atol=1e-5)
    task = SelfSupervised(alpha=0.4, view_temperature=0.2)
    total, logs = task.loss(out, whole)
    own = nll(out["view_a"], out["view_b"], batch["view/key"], scale=5.0)
    assert float(logs["self_loss"]) == pytest.approx(own, rel=1e-5)
    assert float(total) == pytest.approx(float(logs["main_loss"]) + 0.4 * own, rel=1e-5)
    nearest = (np.asarray(out["view_a"]) @ np.asarray(out["view_b"]).T).argmax(1)
    assert float(logs["self_accuracy"]) == pytest.approx((batch["view/key"][nearest] == batch["view/key"]).mean())


def test_without_masks_it_is_spread_out_regularisation(model):
    batch = bound(masking="none", drop=0.0)(clicks(), rng=rng_of(2))
    out, whole = run(model, batch)
    np.testing.assert_array_equal(out["view_a"], out["view_b"])
    z, key = np.asarray(out["view_a"], np.float64), batch["view/key"]
    spread = 0.0
    for i in range(len(z)):
        others = [z[i] @ z[j] for j in range(len(z)) if key[j] != key[i]]
        spread += np.log(1 + sum(np.exp((c - 1) / 0.1) for c in others)) / len(z)
    assert float(SelfSupervised().loss(out, whole)[1]["self_loss"]) == pytest.approx(spread, abs=1e-5)


def test_a_batch_without_views_serves_and_does_not_train(model):
    rows = {"user": np.arange(4, dtype=np.int32) + 2, **Corpus().make().take(np.arange(4))}
    out, whole = run(model, rows)
    assert "view_a" not in out and out["item"].shape == (4, 6)
    with pytest.raises(UserError, match="MaskedViews in the loader"):
        SelfSupervised().loss(out, whole)
    batch = bound()(clicks(), rng=rng_of(0))
    with pytest.raises(KeyError, match="lacks price"):
        model({n: jnp.asarray(a) for n, a in batch.items() if "view_a/price" not in n})
