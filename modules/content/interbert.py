"""A stack in which words and regions meet, then one for each alone; told what is hidden, and whether both match.

InterBERT: Lin, Yang, Zhang, Liu, Zhou, Yang, "InterBERT: Vision-and-Language Interaction for Multi-modal Pretraining",
arXiv 2003.13198, 2020.

    text     word + position, after a [CLS];    image    W feature + W box, LN, after a region of the whole picture
    H = interaction([image; text]);   H_t = text layers(H[text]),   H_v = image layers(H[image])
    p_t = tanh(W h_CLS),  p_v = tanh(W h_whole);   match = w (p_t * p_v)
    MSM: words of hidden spans from H_t.   MRM: the class distribution of hidden regions from H_v, by KL.

The paper's regions and their 1,601 classes are an object detector's. Here regions are overlapping windows and their
classes the colours of their pixels; regions that overlap a hidden one are hidden with it, as there. A text without
words and a picture of nothing but zeros have no tokens: the other side goes on alone, and theirs is zero.
"""

from itertools import accumulate

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.encoders.vision import to_unit
from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.masking import hide
from modules.layers.positions import Positions, mean_valid
from modules.layers.regions import SHADES, Windows, boxes, colours, hide_regions, overlaps
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Norm, Transformer

SIDES = ("image", "text")
Sequence = Float[Array, "b n d"]
Places = Bool[Array, "b n"]


@chz.chz
class InterBERT(ModelConfig):
    """Outputs "text" and "image", the pooled vectors, and where both are given "match" [b], a logit, with
    "match/known" [b]. In training also what is told of the hidden, as a loss of each row: "msm" and "mrm" [b], each
    with "/known"."""

    dim: int = 64
    depth: int = chz.field(default=2, doc="layers over both")
    top: int = chz.field(default=1, doc="layers over each alone, after those")
    heads: int = 4
    streams: bool = chz.field(default=True, doc="the top layers see one side alone; False: both, as the others do")
    norm: Norm = chz.field(default="pre", doc="post: as BERT, whose weights the paper starts from")
    dropout: float = 0.0
    windows: Windows = chz.field(default_factory=Windows)
    words: float = chz.field(default=0.2, doc="share of the words hidden in training")
    span: int = chz.field(default=3, doc="words in a row hidden at most; 1: each by itself")
    anchors: float = chz.field(default=0.1, doc="chance of a region to be hidden")
    overlap: float = chz.field(default=0.4, doc="regions that share so much of their area with it are hidden too")
    image: str = chz.field(default="image", doc="feature with the picture")
    text: str = chz.field(default="title", doc="feature with the tokens")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "InterBERTModel":
        return InterBERTModel(self, features=features, rngs=rngs)


class InterBERTModel(Model):
    def __init__(self, config: InterBERT, *, features: Features, rngs: nnx.Rngs):
        image, text, dim = features[config.image], features[config.text], config.dim
        if image.kind != "image" or text.kind != "text":
            raise ValueError(f"InterBERT needs an image and a text; got {image.kind} and {text.kind}")
        self.config, self.vocabulary = config, text.size
        self.tokens = TokenEmbedding(text.size, dim=dim, rngs=rngs)
        self.positions = Positions(text.max_len, dim=dim, rngs=rngs)
        first = nnx.initializers.normal(0.02)
        self.cls, self.whole = (nnx.Param(first(rngs.params(), (1, dim))) for _ in range(2))
        self.feature = Linear(config.windows.size**2 * image.shape[2], dim, rngs=rngs)
        self.box = Linear(boxes(config.windows, shape=image.shape).shape[1], dim, rngs=rngs)
        self.norm_image, self.norm_text = LayerNorm(dim), LayerNorm(dim)
        self.dropout = Dropout(config.dropout)

        def stack(depth: int) -> Transformer:
            return Transformer(
                dim,
                depth=depth,
                heads=config.heads,
                dropout=config.dropout,
                norm=config.norm,
                activation="exact",
                rngs=rngs,
            )

        self.interaction = stack(config.depth)
        self.tops = nnx.List([stack(config.top) for _ in range(2 if config.streams else 1)])
        self.pool_text, self.pool_image = Linear(dim, dim, rngs=rngs), Linear(dim, dim, rngs=rngs)
        self.match = Linear(dim, 1, rngs=rngs)
        self.tell_words = Linear(dim, text.size, rngs=rngs)
        self.tell_regions = Linear(dim, SHADES ** image.shape[2], rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        parts, there, hidden = {}, {}, {}
        if self.config.image in batch:
            parts["image"], there["image"], hidden["mrm"] = self._regions(batch, rngs=rngs)
        if self.config.text in batch:
            parts["text"], there["text"], hidden["msm"] = self._words(batch, rngs=rngs)
        if not parts:
            raise KeyError(f"InterBERT needs {self.config.image!r} or {self.config.text!r}; the batch has neither")
        states = self._states(parts, there=there, rngs=rngs)
        pool = {"image": self.pool_image, "text": self.pool_text}
        known = {side: where.any(axis=1) for side, where in there.items()}
        outputs: Outputs = {
            side: jnp.where(known[side][:, None], jnp.tanh(pool[side](x[:, 0])), 0) for side, x in states.items()
        }
        if len(parts) == 2:
            outputs["match"] = self.match(outputs["text"] * outputs["image"])[:, 0]
            outputs["match/known"] = known["text"] & known["image"]
        return outputs if rngs is None else {**outputs, **self._told(batch, states, hidden)}

    def _regions(self, batch: Batch, *, rngs: nnx.Rngs | None) -> tuple[Sequence, Places, Places]:
        """The whole picture, whose content is the mean of what is shown, then the windows; the hidden are zeros."""
        image = batch[self.config.image]
        box = boxes(self.config.windows, shape=image.shape[1:])
        there = jnp.any(image != 0, axis=(1, 2, 3))[:, None]
        hidden = jnp.zeros((image.shape[0], len(box)), bool)
        if rngs is not None:
            anchors = jax.random.uniform(rngs.dropout(), hidden.shape) < self.config.anchors
            overlap = overlaps(self.config.windows, shape=image.shape[1:])
            hidden = there & hide_regions(anchors, overlap=overlap, least=self.config.overlap)
        cut = self.config.windows.cut(image)
        flat = to_unit(cut.reshape(-1, *cut.shape[2:]), dtype=self.feature.kernel.dtype)
        x = jnp.where(hidden[:, :, None], 0, self.feature(flat.reshape(*cut.shape[:2], -1)))
        whole = mean_valid(x, where=~hidden)[:, None] + self.whole[...][None]
        x = jnp.concatenate([whole, x + self.box(jnp.asarray(box, x.dtype))[None]], axis=1)
        return self.norm_image(x), jnp.broadcast_to(there, x.shape[:2]), hidden

    def _words(self, batch: Batch, *, rngs: nnx.Rngs | None) -> tuple[Sequence, Places, Places]:
        ids, where = batch[self.config.text], valid(batch, self.config.text)
        hidden = jnp.zeros_like(where)
        if rngs is not None:
            share, size = self.config.words, self.vocabulary
            ids, hidden = hide(ids, where=where, share=share, size=size, span=self.config.span, rngs=rngs)
        x = self.positions(self.tokens(ids))
        cls = jnp.broadcast_to(self.cls[...][None], (x.shape[0], 1, x.shape[2]))
        there = jnp.concatenate([where.any(axis=1, keepdims=True), where], axis=1)
        return self.norm_text(jnp.concatenate([cls, x], axis=1)), there, hidden

    def _states(
        self, parts: dict[str, Sequence], *, there: dict[str, Places], rngs: nnx.Rngs | None
    ) -> dict[str, Sequence]:
        def run(stack: Transformer, x: Sequence, where: Places) -> Sequence:
            return stack(x, mask=visible(where), rngs=rngs)

        joint = self.dropout(jnp.concatenate(list(parts.values()), axis=1), rngs=rngs)
        where = jnp.concatenate(list(there.values()), axis=1)
        joint = run(self.interaction, joint, where)
        if not self.config.streams:
            joint = run(self.tops[0], joint, where)
        ends = list(accumulate(x.shape[1] for x in parts.values()))
        states = dict(zip(parts, jnp.split(joint, ends[:-1], axis=1), strict=True))
        if not self.config.streams:
            return states
        return {side: run(self.tops[SIDES.index(side)], x, there[side]) for side, x in states.items()}

    def _told(self, batch: Batch, states: dict[str, Sequence], hidden: dict[str, Places]) -> Outputs:
        """Losses of each row: the mean over what of it was hidden."""
        outputs: Outputs = {}
        if "msm" in hidden:
            chances = jax.nn.log_softmax(self.tell_words(states["text"][:, 1:]))
            right = jnp.take_along_axis(chances, batch[self.config.text][:, :, None], axis=-1)[..., 0]
            outputs |= _rows("msm", -right, hidden["msm"])
        if "mrm" in hidden:
            chances = jax.nn.log_softmax(self.tell_regions(states["image"][:, 1:]))
            truth = colours(self.config.windows.cut(batch[self.config.image]))
            divergence = jnp.sum(truth * (jnp.log(jnp.maximum(truth, 1e-9)) - chances), axis=-1)
            outputs |= _rows("mrm", divergence, hidden["mrm"])
        return outputs


def _rows(name: str, loss: Float[Array, "b n"], where: Bool[Array, "b n"]) -> Outputs:
    count = where.sum(axis=1)
    return {
        name: jnp.sum(jnp.where(where, loss, 0), axis=1) / jnp.maximum(count, 1),
        f"{name}/known": count > 0,
    }
