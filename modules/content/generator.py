"""What a listing lacks, generated from the vector of what it has: a captioner and a painter, both tiny.

The conditional generators of the task in Fu et al., "Benchmarking Multimodal Large Language Models for Missing Modality
Completion in Product Catalogues", arXiv 2601.19750, 2026, at small scale. With p the vector of what is present,
    a captioner is a causal transformer that reads W p and then the title's tokens, and tells at each place the next,
    until the padding; at inference it says the likeliest token each time;
    a painter gives the mean colour of each patch, σ(MLP(p));
and either also gives the vector of what is missing, n(MLP(p)), which a recommender goes on with.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.linear import Linear
from modules.layers.mlp import MLP
from modules.layers.positions import Positions
from modules.layers.similarity import unit
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer


@chz.chz
class Captioner(ModelConfig):
    """The training outputs are "next" [b, t + 1, tokens], at inference "said" [b, t] with zeros from the end on."""

    dim: int = 64
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    hidden: tuple[int, ...] = chz.field(default=(128,), doc="of the MLP that gives the vector")
    present: str = chz.field(default="present", doc="dense feature with the vector of what is there")
    text: str = chz.field(default="title", doc="feature with the tokens to tell; read in training alone")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "CaptionerModel":
        return CaptionerModel(self, features=features, rngs=rngs)


class CaptionerModel(Model):
    def __init__(self, config: Captioner, *, features: Features, rngs: nnx.Rngs):
        text, size, dim = features[config.text], features[config.present].shape[-1], config.dim
        self.present, self.text, self.length = config.present, config.text, text.max_len
        self.prefix = Linear(size, dim, rngs=rngs)
        self.tokens = TokenEmbedding(text.size, dim=dim, rngs=rngs)
        self.positions = Positions(text.max_len + 1, dim=dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(dim, depth=config.depth, heads=config.heads, dropout=config.dropout, rngs=rngs)
        self.tell = Linear(dim, text.size, rngs=rngs)
        self.vector = MLP(widths=config.hidden).make(size, outputs=size, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        present = batch[self.present]
        outputs = {"vector": unit(self.vector(present, rngs=rngs))}
        if rngs is None:
            return {**outputs, "said": self.say(present)}
        return {**outputs, "next": self.next(present, batch[self.text], rngs=rngs)}

    def next(
        self, present: Float[Array, "b d"], ids: Int[Array, "b t"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b t1 v"]:
        """Logits of the token at each place, and of what comes behind the last."""
        words = jnp.concatenate([self.prefix(present)[:, None], self.tokens(ids)], axis=1)
        x = self.dropout(self.positions(words), rngs=rngs)
        every = jnp.ones(x.shape[:2], bool)
        return self.tell(self.transformer(x, mask=visible(every), causal=True, rngs=rngs))

    def say(self, present: Float[Array, "b d"]) -> Int[Array, "b t"]:
        """The likeliest token of each place, given those before; nothing follows padding."""

        def step(place: int, ids: Int[Array, "b t"]) -> Int[Array, "b t"]:
            told = jnp.argmax(self.next(present, ids)[:, place], axis=-1).astype(ids.dtype)
            ended = (place > 0) & (ids[:, jnp.maximum(place - 1, 0)] == 0)
            return ids.at[:, place].set(jnp.where(ended, 0, told))

        # Made from the input, so that the loop carries it placed as that is.
        nothing = jnp.zeros_like(present, jnp.int32, shape=(present.shape[0], self.length))
        return jax.lax.fori_loop(0, self.length, step, nothing)


@chz.chz
class Painter(ModelConfig):
    """ "painted" [b, patches x channels], 0..1."""

    hidden: tuple[int, ...] = (128,)
    present: str = chz.field(default="present", doc="dense feature with the vector of what is there")
    patches: str = chz.field(default="patches", doc="dense feature with the colours to paint; its width alone is read")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "PainterModel":
        return PainterModel(self, features=features, rngs=rngs)


class PainterModel(Model):
    def __init__(self, config: Painter, *, features: Features, rngs: nnx.Rngs):
        size, colours = (features[name].shape[-1] for name in (config.present, config.patches))
        self.present = config.present
        layers = MLP(widths=config.hidden)
        self.paint, self.vector = (layers.make(size, outputs=width, rngs=rngs) for width in (colours, size))

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        present = batch[self.present]
        painted = jax.nn.sigmoid(self.paint(present, rngs=rngs))
        return {"painted": painted, "vector": unit(self.vector(present, rngs=rngs))}


def told(length: Int[Array, "b"], *, places: int) -> Bool[Array, "b t"]:
    """The places whose next token counts: those of the title, and the one behind it, where there is room for it."""
    return jnp.arange(places)[None] <= length[:, None]
