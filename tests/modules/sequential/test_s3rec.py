"""S3-Rec: what is hidden where, that nothing hidden leaks, and that SASRec takes its weights."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.features import Categorical, Features, Numeric, Sequence
from data.mall.attributed import ATTRIBUTE_NAMES, MallAttributed
from data.mall.build import shop_of
from data.mall.config import Mall
from modules.losses.mutual import attribute_bce, pairwise
from modules.sequential.s3rec import S3Rec
from modules.sequential.sasrec import SASRec
from train.graph import split, values_of
from train.tasks.s3_pretraining import S3Pretraining

V, T, D, B = 21, 8, 8, 6
LENGTH = np.array([8, 5, 2, 1, 0, 7], np.int32)


def sequence(name, rows):
    return Sequence(name=name, of=Categorical(name=name, rows=rows), length=T)


FEATURES = Features(all=(sequence("history", V), sequence("history_colour", 5), sequence("history_size", 4)))
CONFIG = S3Rec(dim=D, depth=1, dropout=0.0, attributes=("history_colour", "history_size"), masked=0.4)


@pytest.fixture(scope="module")
def model():
    return CONFIG.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    keep = np.arange(T) < LENGTH[:, None]
    found = {}
    for name, rows in (("history", V), ("history_colour", 5), ("history_size", 4)):
        found[name] = np.where(keep, rng.integers(2, rows, (B, T)), 0).astype(np.int32)
        found[f"{name}/length"] = LENGTH
    found["history_colour"][0, 0] = 1  # nobody knows its colour
    return found


@pytest.fixture(scope="module")
def train(model):
    graph, state = nnx.split(model)
    return jax.jit(lambda batch, key: nnx.merge(graph, state)(batch, rngs=nnx.Rngs(key)))


@pytest.fixture(scope="module")
def outputs(train, batch):
    return train(batch, jax.random.key(3))


def test_a_hidden_item_changes_no_state_and_a_shown_one_all(train, batch, outputs):
    """The same key hides the same places, so that only what stands there differs; both sides are looked at."""
    row = 0
    hidden, shown = (np.flatnonzero(m)[0] for m in (outputs["hidden"][row], ~np.asarray(outputs["hidden"][row])))
    for place, moves in ((hidden, False), (shown, True)):
        changed = {**batch, "history": batch["history"].copy()}
        changed["history"][row, place] = 2 + (batch["history"][row, place] - 1) % (V - 2)
        gap = np.abs(train(changed, jax.random.key(3))["mip"][row] - outputs["mip"][row]).max(axis=-1)
        assert (gap.min() > 1e-6) == moves and (moves or gap.max() == 0)


def test_a_segment_is_hidden_from_its_context_and_alone_in_its_own_state(train, batch, outputs):
    row, moved = 0, {"context": [], "segment": [], "borrowed": []}
    for place in range(T):
        changed = {**batch, "history": batch["history"].copy()}
        changed["history"][row, place] = 2 + (batch["history"][row, place] - 1) % (V - 2)
        found = train(changed, jax.random.key(3))
        moved["context"].append(float(np.abs(found["sp"][row] - outputs["sp"][row]).max()) > 0)
        for name in ("segment", "borrowed"):
            moved[name].append(float(np.abs(found[name][row] - outputs[name][row]).max()) > 0)
    inside = np.array(moved["segment"])
    assert 1 <= inside.sum() <= 4  # at most half of eight
    assert (np.diff(np.flatnonzero(inside)) == 1).all()
    np.testing.assert_array_equal(moved["context"], ~inside)
    assert not any(moved["borrowed"])  # that is of another user
    np.testing.assert_array_equal(outputs["segment/known"], [True, True, True, False, False, False])


def test_attributes_and_negatives_are_of_the_items(train, batch, outputs):
    held = np.asarray(outputs["attributes/of"])
    assert held.shape == (B, T, 3 + 2)
    for b in range(B):
        for t in range(LENGTH[b]):
            colour, size = batch["history_colour"][b, t], batch["history_size"][b, t]
            expected = {colour - 2, 3 + size - 2} - {-1}
            assert set(np.flatnonzero(held[b, t])) == expected
    negatives, known = np.asarray(outputs["negatives"]), np.asarray(outputs["negatives/known"])
    assert (negatives >= 2).all() and (negatives < V).all()
    for b in range(B):
        assert (known[b] == ~np.isin(negatives[b], batch["history"][b, : LENGTH[b]])).all()
    padding = np.arange(T) >= LENGTH[:, None]
    spoilt = {**batch, "history": np.where(padding, negatives[:, :1], batch["history"]).astype(np.int32)}
    np.testing.assert_array_equal(train(spoilt, jax.random.key(3))["negatives/known"], known)


def test_the_loss_weighs_four_parts(batch, outputs):
    x = {name: jnp.asarray(value) for name, value in outputs.items()}
    keep = jnp.arange(T)[None] < LENGTH[:, None]
    items, ids = x["items"], batch["history"]
    told = {"attributes": x["attributes"], "held": x["attributes/of"]}
    parts = {
        "aap": attribute_bce(x["aap"], **told, where=keep & ~x["hidden"]),
        "mip": pairwise(
            (x["mip"] * items[ids]).sum(-1),
            (x["mip"] * items[x["negatives"]]).sum(-1),
            where=x["hidden"] & x["negatives/known"],
        ),
        "map": attribute_bce(x["map"], **told, where=x["hidden"]),
        "sp": pairwise((x["sp"] * x["segment"]).sum(-1), (x["sp"] * x["borrowed"]).sum(-1), where=x["segment/known"]),
    }
    total, logs = S3Pretraining(aap=0.2, mip=2.0, map=3.0, sp=0.5).loss(outputs, batch)
    expected = sum(weight * float(parts[name]) for name, weight in zip(parts, (0.2, 2.0, 3.0, 0.5), strict=True))
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(logs["map_loss"]) == pytest.approx(float(parts["map"]), rel=1e-5)


def test_to_predict_it_is_sasrec_and_sasrec_has_all_its_weights_by_name(model, batch):
    plain = SASRec(dim=D, depth=1, dropout=0.0).make(FEATURES, rngs=nnx.Rngs(1))
    ours, theirs = ({path: a.shape for path, a in values_of(split(m)[1]).items()} for m in (model, plain))
    assert theirs.items() <= ours.items()
    _, model_state = nnx.split(model)
    taken = nnx.merge(nnx.graphdef(plain), nnx.State({k: model_state[k] for k in nnx.state(plain)}))
    np.testing.assert_array_equal(taken(batch)["last"], model(batch)["last"])


def test_the_mall_says_what_each_item_of_a_history_is():
    mall = Mall(size="tiny")
    source, shop = MallAttributed(mall=mall, max_len=10).make(), shop_of(mall)
    row = source.take(np.array([0]))
    item = row["history"][0, 0] - 2
    assert row["history_category"][0, 0] == 2 + shop.leaf[item]
    assert row["history_brand"][0, 0] == 2 + shop.spu_brand[shop.spu[item]]
    for i, name in enumerate(ATTRIBUTE_NAMES[2:]):
        assert row[f"history_{name}"][0, 0] == 2 + shop.spu_attributes[shop.spu[item], i]
        assert (row[f"history_{name}"][0, row["history/length"][0] :] == 0).all()


def test_what_it_refuses(batch):
    features = Features(all=(FEATURES.all[0], Sequence(name="price", of=Numeric(name="p"), length=T)))
    with pytest.raises(ValueError, match="'price' is sequence"):
        chz.replace(CONFIG, attributes=("price",)).make(features, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="share between 0 and 1"):
        chz.replace(CONFIG, masked=0.0)
    with pytest.raises(UserError, match="S3Rec"):
        S3Pretraining().loss({"hidden": jnp.zeros((1, 1, 1))}, batch)
