"""Short videos found by the products that a person looked at, without a log of who watched what.

Dzhoha, Mirylenka, Malykh, Buchmann, Catino, "Short-Form Video Recommendations with Multimodal Embeddings: Addressing
Cold-Start and Bias Challenges", arXiv 2507.19346, 2025. An image-text model of the shop's own catalogue serves both:

    video = n(mean over frames of image(frame)),     user = n(sum_k w_k image(item_k)),     score = user . video

with w_k = a(action_k) 2^(-age_k / half-life). The paper does not print its weights: these are a reading of its words.
"""

import chz
import numpy as np
from flax import nnx

from modules.base import Batch, Features, Outputs, valid
from modules.content.image_text import ImageText, ImageTextModel
from modules.layers.positions import mean_valid
from modules.layers.similarity import unit


@chz.chz
class ShortVideo(ImageText):
    """As `ImageText`, whose weights fit by name, with the vector "video" where the batch has frames; a video without
    any frame is zero."""

    video: str = chz.field(default="video", doc="feature with the frames")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "ShortVideoModel":
        return ShortVideoModel(self, features=features, rngs=rngs)


class ShortVideoModel(ImageTextModel):
    def __init__(self, config: ShortVideo, *, features: Features, rngs: nnx.Rngs):
        super().__init__(config, features=features, rngs=rngs)
        self.video_name = config.video
        image, video = features[config.image].shape, features[config.video].shape
        if video[1:] != image:
            raise ValueError(f"one encoder reads pictures of {image} and frames of {video[1:]}: give both one shape")

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs = super().__call__(batch, rngs=rngs)
        if self.video_name not in batch:
            return outputs
        clips, where = batch[self.video_name], valid(batch, self.video_name)
        frames = self.vision(clips.reshape(-1, *clips.shape[2:]), rngs=rngs)
        frames = unit(frames if self.image_out is None else self.image_out(frames))
        outputs["video"] = unit(mean_valid(frames.reshape(*clips.shape[:2], -1), where=where))
        return outputs


def taste(
    vectors: np.ndarray, *, actions: np.ndarray, days: np.ndarray, where: np.ndarray, half_life: float | None
) -> np.ndarray:
    """[b, d] from the vectors [b, t, d] of past actions of weight `actions`, `days` ago; zeros where there are none.

    Without a half-life what is long ago counts as what was just now.
    """
    fade = 1.0 if half_life is None else np.exp2(-days / half_life)
    total = np.einsum("bt,btd->bd", np.where(where, actions * fade, 0.0), vectors)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
