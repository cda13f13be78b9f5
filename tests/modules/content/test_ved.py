"""VED: the pool of negatives and the debiasing network against loops; what is missing; what it refuses."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.features import Categorical, Dense, Features, Image, Numeric
from modules.content.ved import VedTower, VisualEncoder, most_alike
from modules.encoders.vision import ConvNet
from modules.layers.mlp import MLP
from modules.losses.contrastive import softmax_contrastive
from train.tasks.click_supervised import ClickSupervised

N, D, SIDE = 8, 6, 4
NAMES = ("image", "offer_image", "view_a", "view_b")
PICTURES = Features(all=tuple(Image(name=n, height=SIDE, width=SIDE) for n in NAMES))


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    return VisualEncoder(dim=D, vision=ConvNet(widths=(4,))).make(PICTURES, rngs=nnx.Rngs(0))


@nnx.jit
def called(model, batch):
    return model(batch)


def test_every_picture_goes_through_one_encoder(encoder, rng):
    batch = {n: jnp.asarray(rng.integers(1, 256, (3, SIDE, SIDE, 3)), jnp.uint8) for n in NAMES}
    batch["offer_image"] = batch["offer_image"].at[1].set(0)  # one that could not be decoded
    batch["view_a"] = batch["image"]
    got = {n: np.asarray(a) for n, a in called(encoder, batch).items()}
    np.testing.assert_allclose(got["view_a"], got["query"], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got["query"], axis=1), 1, rtol=1e-5)
    assert not got["item"][1].any() and got["item/known"].tolist() == [True, False, True]
    assert set(encoder({"image": batch["image"]})) == {"query", "query/known"}
    with pytest.raises(ValueError, match="needs a picture"):
        VisualEncoder(image="x").make(Features(all=(Dense(name="x", dim=2),)), rngs=nnx.Rngs(0))


@pytest.fixture
def clicked(rng):
    """Vectors of a batch, and what is known of its items: 0 and 3 are one item, 1 was clicked for 0's photo."""
    x = {n: unit(rng.normal(size=(N, D))) for n in ("query", "item", "view_a", "view_b")}
    x["item"][4] = unit(x["item"][2] + 0.1 * x["item"][5])  # nearly the same picture as 2
    x["query"] = unit(x["item"] + 0.3 * x["query"])  # so that whoever is left in or out of a softmax shows in it
    known = {f"{n}/known": np.ones(N, bool) for n in x}
    known["query/known"][6] = False
    batch = {
        "offer": np.array([10, 11, 12, 10, 14, 15, 16, 17]),
        "leaf": np.array([1, 1, 1, 1, 1, 2, 2, 1]),
        "co_clicked": np.zeros((N, 2), int),
    }
    batch["co_clicked"][0] = 11, 15  # 15 is of another category, and a negative all the same
    return {n: jnp.asarray(a) for n, a in {**x, **known}.items()}, {n: jnp.asarray(a) for n, a in batch.items()}


def in_pool(x, batch, r, c):
    item, leaf, co = (np.asarray(batch[n]) for n in ("offer", "leaf", "co_clicked"))
    if item[r] == item[c] or c == 6:
        return False
    if leaf[r] != leaf[c]:
        return True
    return item[c] not in co[r] and np.asarray(x["item"])[r] @ np.asarray(x["item"])[c] < 0.9


def test_negatives_are_those_of_the_category_aware_pool(clicked):
    x, batch = clicked
    q, i = np.asarray(x["query"]), np.asarray(x["item"])
    assert not in_pool(x, batch, 0, 1) and in_pool(x, batch, 0, 5) and not in_pool(x, batch, 2, 4)
    for pool, counts in (("category", in_pool), ("batch", lambda x, b, r, c: c not in (r, 6))):
        total = 0.0
        for r in range(N):
            if r == 6:
                continue
            logits = q[r] @ i.T / 0.1
            total += np.log(np.exp(logits[[r] + [c for c in range(N) if counts(x, batch, r, c)]]).sum()) - logits[r]
        _, logs = ClickSupervised(pool=pool).loss(x, batch)
        assert float(logs["clicks"]) == pytest.approx(total / (N - 1), rel=1e-4), pool


def test_the_two_losses_have_their_weights(clicked):
    x, batch = clicked
    loss, logs = ClickSupervised(clicks=2, views=0.25).loss(x, batch)
    views = softmax_contrastive(x["view_a"], x["view_b"], scale=10.0)
    assert float(logs["views"]) == pytest.approx(float(views), rel=1e-5)
    assert float(loss) == pytest.approx(2 * float(logs["clicks"]) + 0.25 * float(views), rel=1e-5)
    assert "clicks" not in ClickSupervised(clicks=0, views=1).loss(x, {})[1]
    with pytest.raises(UserError, match="'view_a'"):
        ClickSupervised().loss({n: x[n] for n in ("query", "item", "query/known", "item/known")}, batch)
    with pytest.raises(UserError, match="'leaf'"):
        ClickSupervised().loss(x, {n: batch[n] for n in ("offer", "co_clicked")})
    with pytest.raises(ValueError, match="learns nothing"):
        ClickSupervised(clicks=0, views=0)


FIELDS = Features(
    all=(
        Categorical(name="item", rows=20, role="item"),
        Categorical(name="category", rows=5, role="item"),
        Numeric(name="exposure", role="item"),
        *(Dense(name=n, dim=D) for n in ("content", "query_content", "anchor")),
    )
)
TOWER = VedTower(dim=4, mlp=MLP(widths=(8,)), anchor="anchor", hidden=5, temperature=0.5)


@pytest.fixture
def rows(rng):
    return {
        "item": jnp.array([2, 3, 4, 5, 6, 7, 3, 9]),
        "category": jnp.array([2, 2, 2, 2, 3, 3, 2, 4]),
        "exposure": jnp.array([0.9, 0.1, 0.2, 0.6, 0.8, 0.7, 0.1, 1.0]),  # the last has no little-shown like it
        **{n: jnp.asarray(rng.normal(size=(N, D)), jnp.float32) for n in ("content", "query_content", "anchor")},
    }


def test_debiasing_starts_as_the_identity(rows):
    with_, without = (chz.replace(TOWER, debias=w).make(FIELDS, rngs=nnx.Rngs(0)) for w in (0.1, 0.0))
    without.mlp, without.embed = with_.mlp, with_.embed
    assert without.debias is None
    np.testing.assert_array_equal(np.asarray(with_(rows)["logit"]), np.asarray(without(rows)["logit"]))
    assert set(with_(rows)) == {"logit"} == set(without(rows, rngs=nnx.Rngs(0)))


def test_the_much_shown_are_drawn_to_the_little_shown_most_like_them(rows):
    model = TOWER.make(FIELDS, rngs=nnx.Rngs(0))
    model.debias.down.kernel[...] = jax.random.normal(jax.random.key(1), model.debias.down.kernel.shape)
    v = unit(np.asarray(model.debias(rows["content"])))
    s1, category = unit(np.asarray(rows["anchor"])), np.asarray(rows["category"])
    exposure, item = np.asarray(rows["exposure"]), np.asarray(rows["item"])
    losses = []
    for h in np.flatnonzero(exposure >= 0.8):
        near = [c for c in range(N) if exposure[c] <= 0.5 and category[c] == category[h]]
        if not near:
            continue
        star = max(near, key=lambda c: s1[h] @ s1[c])
        others = [c for c in range(N) if exposure[c] <= 0.5 and item[c] != item[star]]
        logits = v[h] @ v.T / 0.5
        losses.append(np.log(np.exp(logits[[star, *others]]).sum()) - logits[star])
    assert len(losses) == 1  # of rows 0, 4 and 7
    got = model(rows, rngs=nnx.Rngs(0))["aux_loss/debias"]
    assert float(got) == pytest.approx(0.1 * np.mean(losses), rel=1e-4)


def test_nobody_to_be_like_costs_nothing(rows):
    model = TOWER.make(FIELDS, rngs=nnx.Rngs(0))
    loss = model({**rows, "exposure": jnp.ones(N)}, rngs=nnx.Rngs(0))["aux_loss/debias"]
    assert float(loss) == 0.0
    nearest, found = most_alike(
        rows["anchor"], high=jnp.zeros(N, bool), low=jnp.ones(N, bool), category=rows["category"]
    )
    assert not found.any() and nearest.shape == (N,)


def test_vectors_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="anchor, which the source lacks"):
        TOWER.make(FIELDS.without("anchor"), rngs=nnx.Rngs(0))
    odd = FIELDS.without("query_content").plus(Dense(name="query_content", dim=D + 1))
    with pytest.raises(ValueError, match="not vectors of one encoder"):
        TOWER.make(odd, rngs=nnx.Rngs(0))
