"""COPE: parts, heads and fusion against numpy; what is missing; what it refuses."""

import chz
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.features import Features, Image, Sequence, Text
from modules.content.cope import Cope
from modules.encoders.frames import Frames
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ViT

B, F, SIDE, D = 4, 2, 4, 6
FRAME = Image(name="frame", height=SIDE, width=SIDE)
FEATURES = Features(
    all=(
        Image(name="image", height=SIDE, width=SIDE),
        Text(name="title", tokens=20, length=3),
        *(Sequence(name=kind, of=FRAME, length=F) for kind in ("video", "live")),
        *(Text(name=f"{kind}_text", tokens=20, length=5) for kind in ("video", "live")),
    )
)
COPE = Cope(
    dim=D,
    frames=Frames(vision=ViT(pool="cls", patch=2, dim=8, depth=1, heads=2)),
    language=TextTransformer(dim=8, heads=2),
    speech=("video_text", "live_text"),
    classes=10,
)


@pytest.fixture(scope="module")
def model():
    return COPE.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    made = {}
    for name, (shape, dtype) in FEATURES.arrays().items():
        high = 256 if dtype == np.uint8 else 20
        made[name] = rng.integers(2, high, (B, *shape)).astype(dtype)
        if name.endswith("/length"):
            made[name][:] = 2
    made["title/length"][0] = 0  # a page of a picture alone
    made["image"][1] = 0  # of a title alone
    made["video/length"][2] = 0  # no frames
    made["video_text/length"][3] = 0  # nothing said
    made["live/length"][0] = made["live_text/length"][0] = 0  # nothing at all
    return {n: jnp.asarray(a) for n, a in made.items()}


@pytest.fixture(scope="module")
def outputs(model, batch):
    return {n: np.asarray(a) for n, a in called(model, batch).items()}


@nnx.jit
def called(model, batch):
    return model(batch)


def test_a_head_projects_and_the_fused_one_joins_both(model, batch, outputs):
    def project(name, x):
        return np.asarray(x) @ np.asarray(model.heads[name].kernel[...])

    where = jnp.arange(5)[None] < batch["video_text/length"][:, None]
    text = model.language(batch["video_text"], where=where)
    clip = model.frames(batch["video"], where=jnp.arange(F)[None] < batch["video/length"][:, None])
    t, v = project("video_t", text), project("video_v", clip)
    t, v = t * (np.arange(B) != 3)[:, None], v * (np.arange(B) != 2)[:, None]
    fused = project("video_f", np.concatenate([t, v], axis=1))
    fused /= np.linalg.norm(fused, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["video_f"], fused, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(outputs["video"], outputs["video_f"])
    np.testing.assert_allclose(np.linalg.norm(outputs["page_t"][1:], axis=1), 1, rtol=1e-5)


def test_missing_parts_are_zero_and_said_to_be_unknown(outputs):
    known = {n: outputs[f"{n}/known"].tolist() for n in ("page_t", "page_v", "page_f", "video_v", "video_t", "live")}
    assert known["page_t"] == [False, True, True, True]
    assert known["page_v"] == [True, False, True, True]
    assert known["page_f"] == [True] * 4
    assert known["video_v"] == [True, True, False, True]
    assert known["video_t"] == [True, True, True, False]
    assert known["live"] == [False, True, True, True]
    for name in ("page_t", "page_v", "video_v", "video_t", "live", "live_f", "live_v"):
        there = outputs[f"{name}/known"]
        np.testing.assert_array_equal(outputs[name][~there], 0)
        assert (np.abs(outputs[name][there]).max(axis=1) > 0.1).all()
    assert all(np.isfinite(a).all() for a in outputs.values())


def test_the_first_version_has_frames_alone(batch):
    model = chz.replace(COPE, speech=None, classes=0).make(FEATURES, rngs=nnx.Rngs(0))
    found = called(model, {n: a for n, a in batch.items() if not n.startswith("live")})
    names = {n for n in found if "/" not in n}
    assert names == {"page", "page_v", "page_t", "page_f", "video", "video_v"}
    np.testing.assert_array_equal(found["video"], found["video_v"])


def test_other_shapes_are_refused():
    small = Sequence(name="live", of=FRAME, length=F + 1)
    features = Features(all=tuple(small if f.name == "live" else f for f in FEATURES.all))
    with pytest.raises(ValueError, match="frames of one shape and number"):
        COPE.make(features, rngs=nnx.Rngs(0))
