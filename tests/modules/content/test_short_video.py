"""Videos as the mean of their frames, people as the mean of what they looked at."""

import jax
import numpy as np
import pytest
from flax import nnx

from data.features import Features, Image, Sequence, Text
from modules.content.image_text import ImageText
from modules.content.short_video import ShortVideo, taste
from modules.encoders.text import TextTransformer
from modules.encoders.vision import ConvNet


def features(side=8):
    frame = Image(name="frame", height=side, width=side)
    declared = (Image(name="image", height=8, width=8), Text(name="title", tokens=9, length=3))
    return Features(all=(*declared, Sequence(name="video", of=frame, length=3)))


SMALL = {"vision": ConvNet(widths=(4,)), "language": TextTransformer(dim=4, heads=1), "dim": 4}


def test_a_video_is_the_mean_of_its_frames_as_pictures(rng):
    model = ShortVideo(**SMALL).make(features(), rngs=nnx.Rngs(0))
    graph, state = nnx.split(model)
    run = jax.jit(lambda batch: nnx.merge(graph, state)(batch))
    clips = rng.integers(0, 256, (3, 3, 8, 8, 3)).astype(np.uint8)
    length = np.array([3, 2, 0])
    found = run({"video": clips, "video/length": length})
    for row, count in enumerate(length[:2]):
        frames = np.asarray(run({"image": clips[row]})["item"])[:count]
        mean = frames.mean(axis=0)
        np.testing.assert_allclose(found["video"][row], mean / np.linalg.norm(mean), atol=1e-5)
    assert (found["video"][2] == 0).all() and "item" not in found
    plain = nnx.split(ImageText(**SMALL).make(features(), rngs=nnx.Rngs(0)))[1]
    assert jax.tree.structure(nnx.to_pure_dict(plain)) == jax.tree.structure(nnx.to_pure_dict(state))
    with pytest.raises(ValueError, match=r"frames of \(4, 4, 3\)"):
        ShortVideo(**SMALL).make(features(side=4), rngs=nnx.Rngs(0))


def test_a_taste_weighs_actions_and_forgets(rng):
    vectors, actions = rng.normal(size=(2, 4, 3)), np.array([[1.0, 2.0, 1.0, 9.0], [1.0] * 4])
    days, where = np.array([[14.0, 0.0, 28.0, 1.0]] * 2), np.array([[True, True, True, False], [False] * 4])
    total = 0.5 * vectors[0, 0] + 2 * vectors[0, 1] + 0.25 * vectors[0, 2]
    found = taste(vectors, actions=actions, days=days, where=where, half_life=14.0)
    np.testing.assert_allclose(found[0], total / np.linalg.norm(total))
    assert (found[1] == 0).all()
    mean = vectors[0, 0] + 2 * vectors[0, 1] + vectors[0, 2]
    forever = taste(vectors, actions=actions, days=days, where=where, half_life=None)
    np.testing.assert_allclose(forever[0], mean / np.linalg.norm(mean))
