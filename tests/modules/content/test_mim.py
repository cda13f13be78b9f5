"""MIM's encoders: the fused vector against numpy, what is missing, the negatives, and hidden tokens."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Features, Image, Text
from modules.content.mim import MIMEncoder
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ConvNet
from modules.layers.masking import hide, told
from tests.modules.content.batches import filled

B, SIDE, T, D = 4, 8, 5, 6
FEATURES = Features(
    all=(
        Image(name="query_image", height=SIDE, width=SIDE),
        *(
            feature
            for side in ("", "other_")
            for feature in (
                Image(name=f"{side}image", height=SIDE, width=SIDE),
                Text(name=f"{side}title", tokens=20, length=T),
            )
        ),
    )
)
MIM = MIMEncoder(dim=D, vision=ConvNet(widths=(6,)), language=TextTransformer(dim=8, heads=2), hidden=7)


@pytest.fixture(scope="module")
def batch():
    made = filled(FEATURES, rows=B, words=3)
    made["image"][1] = 0  # a title alone
    made["title/length"][2] = 0  # a picture alone
    made["image"][3] = made["title/length"][3] = 0
    made["other_image"][0] = 0
    return {n: jnp.asarray(a) for n, a in made.items()}


@nnx.jit
def served(model, batch):
    return model(batch)


@nnx.jit
def trained(model, batch):
    return model(batch, rngs=nnx.Rngs(0))


def test_the_fused_vector_is_of_both_and_what_is_missing_is_zero(batch):
    model = MIM.make(FEATURES, rngs=nnx.Rngs(0))
    model.fuse.out.bias[...] = jnp.full(D, 0.3)  # nothing stays nothing although the layers would make something of it
    found = {n: np.asarray(a) for n, a in served(model, batch).items()}
    assert set(found) == {n for name in ("query", "image", "text", "fused") for n in (name, f"{name}/known")}
    assert found["image/known"].tolist() == [True, False, True, False]
    assert found["text/known"].tolist() == [True, True, False, False]
    assert found["fused/known"].tolist() == [True, True, True, False]
    for name in ("image", "text", "fused", "query"):
        np.testing.assert_allclose(np.linalg.norm(found[name], axis=1), found[f"{name}/known"], atol=1e-5)
    first, out = model.fuse.hidden[0].linear, model.fuse.out
    pair = np.concatenate([found["image"], found["text"]], axis=1)[:3]
    fused = np.maximum(pair @ np.asarray(first.kernel[...]) + np.asarray(first.bias[...]), 0)
    fused = fused @ np.asarray(out.kernel[...]) + np.asarray(out.bias[...])
    fused /= np.linalg.norm(fused, axis=1, keepdims=True)
    np.testing.assert_allclose(found["fused"][:3], fused, rtol=1e-4, atol=1e-5)


def test_negatives_in_time_and_space(batch):
    model = chz.replace(MIM, bank=6).make(FEATURES, rngs=nnx.Rngs(0))
    batch = {**batch, "spu": np.arange(B, dtype=np.int32) + 7}
    first, second = trained(model, batch), trained(model, batch)
    for name in ("image", "text", "fused"):
        assert not first[f"{name}/bank/known"].any()
        held = np.asarray(second[f"{name}/bank"])
        assert second[f"{name}/bank/label"][:B].tolist() == batch["spu"].tolist()
        np.testing.assert_array_equal(held[:B], first[name])
        np.testing.assert_array_equal(second[f"{name}/bank/known"][:B], first[f"{name}/known"])
        assert first[f"{name}/negatives"].shape == (B, 1, D)
    assert first["image/negatives/known"][:, 0].tolist() == [False, True, True, True]
    assert first["fused/negatives/known"].all()
    assert "aux_loss/hidden" not in first


def test_stage_1_has_hidden_tokens_told(batch):
    model = chz.replace(MIM, masked=0.5).make(FEATURES, rngs=nnx.Rngs(0))
    stage_1 = {n: a for n, a in batch.items() if not n.startswith("other_")}
    loss = float(trained(model, stage_1)["aux_loss/hidden"])
    assert loss == pytest.approx(np.log(20), rel=0.2)
    nothing = {**stage_1, "title/length": jnp.zeros(B, jnp.int32)}
    assert float(trained(model, nothing)["aux_loss/hidden"]) == 0
    assert "aux_loss/hidden" not in served(model, stage_1)


def test_a_share_of_the_tokens_is_hidden_and_most_of_them_blank():
    ids = jnp.asarray(np.random.default_rng(0).integers(2, 1000, (400, 20)))
    where = jnp.broadcast_to(jnp.arange(20)[None] < 15, ids.shape)
    shown, hidden = jax.jit(lambda: hide(ids, where=where, share=0.3, size=1000, rngs=nnx.Rngs(0)))()
    shown, hidden, ids = np.asarray(shown), np.asarray(hidden), np.asarray(ids)
    assert not hidden[:, 15:].any() and hidden[:, :15].mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(shown[~hidden], ids[~hidden])
    assert (shown[hidden] == 1).mean() == pytest.approx(0.8, abs=0.03)
    assert (shown[hidden] == ids[hidden]).mean() == pytest.approx(0.1, abs=0.03)
    assert shown.min() >= 1 and shown.max() < 1000


def test_only_hidden_tokens_count(rng):
    logits, ids = rng.normal(size=(2, 3, 5)).astype(np.float32), rng.integers(0, 5, (2, 3))
    hidden = np.array([[True, False, False], [False, True, True]])
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    wanted = -np.log(np.take_along_axis(shares, ids[..., None], -1)[..., 0])[hidden].mean()
    assert float(told(jnp.asarray(logits), ids=jnp.asarray(ids), hidden=jnp.asarray(hidden))) == pytest.approx(
        wanted, rel=1e-5
    )
    with pytest.raises(ValueError, match="masked is 1"):
        MIMEncoder(masked=1.0)
