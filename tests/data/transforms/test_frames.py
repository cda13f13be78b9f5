"""Frames at the centres of equal parts."""

import numpy as np
import pytest

from data.errors import UserError
from data.features import Features, Image, Numeric, Sequence
from data.transforms.frames import SampleFrames, centres


@pytest.mark.parametrize(("length", "count"), [(8, 8), (8, 3), (100, 4), (3, 8), (1, 2), (0, 3)])
def test_centres_are_the_formulas(length, count):
    expected = [int((2 * i + 1) * length / (2 * count)) for i in range(count)]
    assert centres(np.array([length]), count=count)[0].tolist() == expected


def test_samples_each_clip_over_its_own_length():
    clip = Sequence(name="clip", of=Image(name="frame", height=1, width=1, channels=1), length=6)
    features = Features(all=(clip, Numeric(name="x")))
    transform = SampleFrames(clip="clip", count=3)
    assert transform.features(features)["clip"].shape == (3, 1, 1, 1)
    frames = np.tile(np.arange(6, dtype=np.uint8)[None, :, None, None, None], (3, 1, 1, 1, 1))
    batch = {"clip": frames, "clip/length": np.array([6, 2, 0], np.int32), "x": np.zeros(3)}
    out = transform(batch, rng=np.random.default_rng(0))
    assert out["clip"][:2, :, 0, 0, 0].tolist() == [[1, 3, 5], [0, 1, 1]]
    assert out["clip/length"].tolist() == [3, 3, 0] and out["clip/length"].dtype == np.int32
    with pytest.raises(UserError, match="'x' is numeric"):
        SampleFrames(clip="x").features(features)
