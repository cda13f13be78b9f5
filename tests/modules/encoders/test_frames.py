"""Frames that exchange messages, against numpy; clips with missing frames, without any, and of one."""

import chz
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modules.encoders.frames import Frames
from modules.encoders.vision import ViT

B, F, SIDE, D = 3, 4, 4, 8
SMALL = Frames(vision=ViT(pool="cls", patch=2, dim=D, depth=2, heads=2), integration=1)


def made(config=SMALL):
    encoder = config.make((F, SIDE, SIDE, 3), rngs=nnx.Rngs(0))
    graph, params = nnx.split(encoder)
    leaves = nnx.to_flat_state(params)
    rng = np.random.default_rng(1)  # biases and norms too, which start at 0 and 1
    moved = [(p, v.replace(v.get_value() + 0.3 * rng.normal(size=v.shape).astype(np.float32))) for p, v in leaves]
    return nnx.merge(graph, nnx.from_flat_state(moved))


@pytest.fixture(scope="module")
def encoder():
    return made()


@pytest.fixture
def clips(rng):
    return rng.integers(0, 256, (B, F, SIDE, SIDE, 3)).astype(np.uint8)


@nnx.jit
def encoded(encoder, clips, where):
    return encoder(clips, where=where)


@nnx.jit
def framed(encoder, clips, where):
    return encoder.frames(clips, where=where)


@nnx.jit
def pictured(encoder, images):
    return encoder.image(images)


LENGTHS = np.array([4, 2, 0])
WHERE = np.arange(F)[None] < LENGTHS[:, None]


def value(parameter):
    return np.asarray(parameter[...], np.float64)


def linear(m, x):
    return x @ value(m.kernel) + value(m.bias)


def norm(m, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * value(m.scale) + value(m.bias)


def attention(m, x):
    """Of one sequence [t, d] to itself, two heads."""
    q, k, v = (linear(part, x).reshape(len(x), 2, -1) for part in (m.query, m.key, m.value))
    logits = np.einsum("qhe,khe->hqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return linear(m.out, np.einsum("hqk,khe->qhe", weights, v).reshape(len(x), -1))


def block(m, x):
    x = x + attention(m.attention, norm(m.norm_attention, x))
    hidden = linear(m.up, norm(m.norm_mlp, x))
    gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    return x + linear(m.down, gelu)


def oracle(encoder, clip):
    """The vector of one clip of valid frames."""
    vit, states = encoder.vit, []
    for frame in clip:
        rows = [frame[i : i + 2, j : j + 2].reshape(-1) for i in (0, 2) for j in (0, 2)]
        patches = linear(vit.patches.project, np.stack(rows) / 127.5 - 1) + value(vit.patches.positions)
        states.append(np.concatenate([value(vit.cls), patches]))
    for number, layer in enumerate(vit.transformer.blocks):
        exchange = encoder.messages[number]
        message = linear(exchange.project, np.stack([s[0] for s in states]))
        message = message + attention(exchange.attention, norm(exchange.norm, message))
        states = [block(layer, np.concatenate([s, m[None]]))[:-1] for s, m in zip(states, message, strict=True)]
    frames = norm(vit.transformer.last, np.stack([s[0] for s in states]))
    over = frames + value(encoder.times)[: len(clip)]
    for layer in encoder.integration.blocks:
        over = block(layer, over)
    return (frames + norm(encoder.integration.last, over)).mean(0)


def test_equals_numpy_over_the_frames_that_are_there(encoder, clips):
    out = np.asarray(encoded(encoder, clips, WHERE))
    for i in (0, 1):
        np.testing.assert_allclose(out[i], oracle(encoder, clips[i, : LENGTHS[i]]), rtol=2e-4, atol=2e-4)


def test_a_clip_without_frames_is_zero_and_padding_changes_nothing(encoder, clips):
    out = encoded(encoder, clips, WHERE)
    np.testing.assert_array_equal(out[2], np.zeros(D))
    other = np.where(WHERE[..., None, None, None], clips, 255 - clips)
    np.testing.assert_array_equal(out, encoded(encoder, other, WHERE))


def test_frames_hear_of_each_other_only_by_messages(encoder, clips):
    changed = clips.copy()
    changed[:, 1] = 0
    where = jnp.ones((B, F), bool)
    deaf = made(chz.replace(SMALL, messages=False))
    for model, hears in ((encoder, True), (deaf, False)):
        before, after = (np.asarray(framed(model, c, where)) for c in (clips, changed))
        assert before.shape == (B, F, D)
        assert (np.abs(before - after)[:, 0].max() > 1e-3) == hears


def test_a_picture_is_a_clip_of_one_frame_at_all_times(encoder, clips):
    picture = pictured(encoder, clips[:, 0])
    np.testing.assert_allclose(picture, encoded(encoder, clips[:, :1], jnp.ones((B, 1), bool)), rtol=1e-6)
    plain = made(chz.replace(SMALL, integration=0))
    frames = framed(plain, clips[:, :1], jnp.ones((B, 1), bool))
    np.testing.assert_allclose(pictured(plain, clips[:, 0]), frames[:, 0], rtol=1e-6)
    still = np.repeat(clips[:, :1], F, axis=1)
    deaf = made(chz.replace(SMALL, messages=False))
    np.testing.assert_allclose(
        pictured(deaf, clips[:, 0]), encoded(deaf, still, jnp.ones((B, F), bool)), rtol=1e-4, atol=1e-5
    )


def test_needs_a_class_token():
    with pytest.raises(ValueError, match="needs vision"):
        Frames(vision=ViT())
