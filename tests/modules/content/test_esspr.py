"""eSSPR: one transformer over a picture, words or both; what is missing; the three losses of its task."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.features import Features, Image, Text
from modules.content.esspr import MODALITIES, Esspr
from modules.losses.hinge import batch_hinge, locality
from tests.modules.content.batches import filled
from train.tasks.same_style import WITHIN, SameStyle

B, SIDE, T = 7, 4, 3
FEATURES = Features(
    all=tuple(
        f
        for p in ("", "offer_")
        for f in (Image(name=f"{p}image", height=SIDE, width=SIDE), Text(name=f"{p}title", tokens=20, length=T))
    )
)
CONFIG = Esspr(dim=6, width=8, depth=1, heads=2, patch=2)
NAMES = [p + name for p in ("", "offer_") for name in MODALITIES]


@pytest.fixture(scope="module")
def model():
    return CONFIG.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    made = filled(FEATURES, rows=B, words=2)
    made["title/length"][0] = 0  # a picture alone
    made["offer_image"][1] = 0  # words alone, or a picture that could not be decoded
    made["image"][2], made["title/length"][2] = 0, 0  # nothing at all
    made |= {"trigger": np.arange(B, dtype=np.int32) + 2, "offer": np.arange(B, dtype=np.int32) + 20}
    return {n: jnp.asarray(a) for n, a in made.items()}


@nnx.jit
def called(model, batch):
    return model(batch)


@pytest.fixture(scope="module")
def outputs(model, batch):
    return {n: np.asarray(a) for n, a in called(model, batch).items()}


def test_a_part_alone_is_read_by_the_same_weights(model, batch, outputs):
    """The transformer on [CLS] and the patches alone, without the masks that stand in for what is left out."""

    @nnx.jit
    def plainly(model, batch):
        patches = model.patches(batch["image"].astype(jnp.float32) / 127.5 - 1) + model.kinds[0][None, None]
        words = model.positions(model.tokens(batch["title"]))[:, :2] + model.kinds[1][None, None]
        cls = jnp.broadcast_to(model.cls[...][None], (B, 1, 8))
        parts = {"image": [patches], "text": [words], "both": [patches, words]}
        return {n: model.head(model.transformer(jnp.concatenate([cls, *p], axis=1))[:, 0]) for n, p in parts.items()}

    for name, x in plainly(model, batch).items():
        x = np.asarray(x) / np.linalg.norm(np.asarray(x), axis=1, keepdims=True)
        np.testing.assert_allclose(outputs[name][3:], x[3:], rtol=1e-4, atol=1e-5)


def test_a_missing_part_is_zero_and_the_other_speaks_for_both(outputs):
    assert not outputs["text"][0].any() and not outputs["text/known"][0]
    np.testing.assert_allclose(outputs["both"][0], outputs["image"][0], atol=1e-6)
    assert not outputs["offer_image"][1].any()
    np.testing.assert_allclose(outputs["offer_both"][1], outputs["offer_text"][1], atol=1e-6)
    assert not any(outputs[name][2].any() or outputs[f"{name}/known"][2] for name in MODALITIES)
    assert all(np.isfinite(a).all() for a in outputs.values())


def test_a_side_alone_or_a_part_alone_is_answered(model, batch, outputs):
    got = model({"image": batch["image"]})
    assert set(got) == {"image", "image/known"}
    np.testing.assert_allclose(np.asarray(got["image"]), outputs["image"], atol=1e-5)
    with pytest.raises(ValueError, match="the other lacks"):
        model({n: batch[n] for n in ("image", "offer_image", "offer_title", "offer_title/length")})


def test_the_loss_is_the_weighted_sum_of_its_three_parts(batch, outputs):
    out = {n: jnp.asarray(a) for n, a in outputs.items()}
    task = SameStyle(matching=1.0, distinct=0.7, local=0.3, nearest=2)
    loss, logs = task.loss(out, batch)

    def hinge(a, b):
        return float(batch_hinge(out[a], out[b], margin=0.2, known=out[f"{a}/known"] & out[f"{b}/known"]))

    matching = np.mean([hinge(a, f"offer_{b}") for a in MODALITIES for b in MODALITIES])
    distinct = np.mean([hinge(s + a, s + b) for s in ("", "offer_") for a, b in WITHIN])
    near = {n: jnp.asarray(outputs[n] @ outputs["offer_both"].T) for n in MODALITIES}
    local = np.mean(
        [
            float(locality(near["both"], near[n], top=2, slack=0.01, known=out["both/known"] & out[f"{n}/known"]))
            for n in ("image", "text")
        ]
    )
    assert float(logs["matching"]) == pytest.approx(matching, rel=1e-5)
    assert float(logs["distinct"]) == pytest.approx(distinct, rel=1e-5)
    assert float(logs["local"]) == pytest.approx(local, rel=1e-4) and local > 0
    assert float(loss) == pytest.approx(matching + 0.7 * distinct + 0.3 * local, rel=1e-5)


def test_a_listing_that_stands_in_two_rows_is_no_negative_of_itself(batch, outputs):
    out = {n: jnp.asarray(a) for n, a in outputs.items()}
    task = SameStyle(distinct=0, local=0, across="pictures")
    negatives = np.ones((B, B), bool)
    for r, c in ((0, 3), (0, 4), (3, 4)):  # rows 0 and 3 ask with listing 2, which row 4 offers
        negatives[r, c] = negatives[c, r] = False
    twice = {"trigger": batch["trigger"].at[3].set(batch["trigger"][0]), "offer": batch["offer"].at[4].set(2)}
    known = out["image/known"] & out["offer_image/known"]
    expected = batch_hinge(out["image"], out["offer_image"], margin=0.2, known=known, negatives=jnp.asarray(negatives))
    assert float(task.loss(out, {**batch, **twice})[0]) == pytest.approx(float(expected), rel=1e-6)
    assert float(task.loss(out, batch)[0]) != pytest.approx(float(expected), rel=1e-3)


def test_what_is_lacking_is_named(batch, outputs):
    with pytest.raises(UserError, match="'offer_image'"):
        SameStyle().loss({n: outputs[n] for n in MODALITIES}, batch)
    with pytest.raises(UserError, match="'trigger'"):
        SameStyle().loss(outputs, {n: a for n, a in batch.items() if n != "trigger"})
    swapped = Esspr(image="title", title="image")
    with pytest.raises(ValueError, match="a picture and a text"):
        swapped.make(FEATURES, rngs=nnx.Rngs(0))
