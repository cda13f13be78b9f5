"""Titles against pictures, and against videos where that is asked for."""

import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from train.tasks.contrastive import Contrastive
from train.tasks.videos import VideoContrastive


def test_videos_are_predicted_and_count_where_they_weigh(rng):
    def unit(x):
        return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32)

    outputs = {name: unit(rng.normal(size=(5, 3))) for name in ("query", "item", "video")}
    pictures, videos = (
        Contrastive().loss({"query": outputs["query"], "item": outputs[side]}, {})[0] for side in ("item", "video")
    )
    assert set(VideoContrastive().predict(outputs, {})) == {"query", "item", "video"}
    assert float(VideoContrastive().loss(outputs, {})[0]) == pytest.approx(float(pictures), rel=1e-6)
    loss, logs = VideoContrastive(frames=0.3).loss(outputs, {})
    assert float(loss) == float(logs["loss"]) == pytest.approx(float(pictures + 0.3 * videos), rel=1e-6)
    with pytest.raises(UserError, match="set it to 0"):
        VideoContrastive(frames=0.3).loss({n: outputs[n] for n in ("query", "item")}, {})
