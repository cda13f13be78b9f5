"""NoteLLM: A Retrievable Large Language Model for Note Recommendation (Zhang et al., WWW 2024, arXiv 2403.01744).

A causal language model reads the prompt of a note, which ends in a special token [EMB], and goes on with the note's
hashtags. The state at [EMB] has to hold the note: it is projected to the note's vector, which is contrasted with those
of notes taken together with it (GCL), while the hashtags are told from it and the text (CSFT). Here the language model
is a small one of the shop's own words, or any encoder of a decoder's family by `modules.encoders.decoder`.
"""

import math

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.linear import Linear
from modules.layers.positions import Positions
from modules.layers.similarity import Temperature, unit
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer


@chz.chz
class NoteLLM(ModelConfig):
    dim: int = 64
    out: int = chz.field(default=64, doc="of a note's vector")
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    log_scale: float = chz.field(default=3.0, doc="learned log of the inverse temperature, at the start")
    text: str = "title"
    topics: str = chz.field(default="topics", doc="label with the tokens of the hashtags; read in training alone")
    other: str = chz.field(default="other_", doc="what the names of the note taken with it begin with")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "NoteLLMModel":
        return NoteLLMModel(self, features=features, rngs=rngs)


class NoteLLMModel(Model):
    """ "query" [b, d] of the note, "item" of the same note where it is alone, else of the other one; in training "next"
    [2b, k, v], logits of the hashtags of both; at inference "told" [b, k], the likeliest ones."""

    def __init__(self, config: NoteLLM, *, features: Features, rngs: nnx.Rngs):
        text, topics = features[config.text], features[config.topics]
        if text.kind != "text":
            raise ValueError(f"NoteLLM reads a text; {config.text!r} is a feature of kind {text.kind}")
        self.config, self.count, self.emb = config, topics.shape[-1], text.size
        length = text.max_len + self.count  # the last hashtag is told, and never read
        self.tokens = TokenEmbedding(text.size + 1, dim=config.dim, rngs=rngs)
        self.positions = Positions(length, dim=config.dim, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(
            config.dim, depth=config.depth, heads=config.heads, dropout=config.dropout, rngs=rngs
        )
        self.project = Linear(config.dim, config.out, rngs=rngs)
        self.tell = Linear(config.dim, text.size, rngs=rngs)
        self.temperature = Temperature(math.exp(config.log_scale))

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        config, outputs = self.config, self.temperature()
        sides = [p for p in ("", config.other) if f"{p}{config.text}" in batch]
        notes = [(batch[f"{p}{config.text}"], batch[f"{p}{config.text}/length"]) for p in sides]
        if rngs is None:
            said = [self.say(ids, length=length) for ids, length in notes]
            outputs["query"], outputs["told"] = said[0]
            outputs["item"] = said[-1][0]
            return outputs
        ids, length = (jnp.concatenate(parts) for parts in zip(*notes, strict=True))
        topics = jnp.concatenate([batch[f"{p}{config.topics}"] for p in sides])
        states = self.read(ids, length=length, topics=topics, rngs=rngs)
        outputs["next"], vectors = self.tell(states), self.note(states)
        rows = len(notes[0][0])
        outputs["query"], outputs["item"] = vectors[:rows], vectors[-rows:]
        return outputs

    def note(self, states: Float[Array, "b k d"]) -> Float[Array, "b o"]:
        """From the state at [EMB], the first of those told from."""
        return unit(self.project(states[:, 0]))

    def read(
        self,
        ids: Int[Array, "b t"],
        *,
        length: Int[Array, "b"],
        topics: Int[Array, "b k"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b k d"]:
        """States at [EMB] and at every hashtag but the last, each of which tells the next one."""
        place = jnp.arange(ids.shape[1] + self.count)[None]
        after = place - length[:, None]  # 0 at [EMB]
        padded = jnp.pad(ids, ((0, 0), (0, self.count)))
        tag = jnp.take_along_axis(topics, jnp.clip(after - 1, 0, self.count - 1), axis=1)
        prompt = jnp.where(after < 0, padded, jnp.where(after == 0, self.emb, tag))
        keep = after < self.count
        x = self.dropout(self.positions(self.tokens(jnp.where(keep, prompt, 0))), rngs=rngs)
        x = self.transformer(x, mask=visible(keep), causal=True, rngs=rngs)
        at = length[:, None] + jnp.arange(self.count)[None]
        return jnp.take_along_axis(x, at[:, :, None], axis=1)

    def say(self, ids: Int[Array, "b t"], *, length: Int[Array, "b"]) -> tuple[Float[Array, "b o"], Int[Array, "b k"]]:
        """The vectors, and the likeliest hashtags, each after those before it."""

        def step(k: int, topics: Int[Array, "b k"]) -> Int[Array, "b k"]:
            told = jnp.argmax(self.tell(self.read(ids, length=length, topics=topics)), axis=-1)
            return topics.at[:, k].set(told[:, k].astype(topics.dtype))

        # Made from the input, so that the loop carries it placed as that is.
        nothing = jnp.zeros_like(ids[:, : self.count])
        topics = jax.lax.fori_loop(0, self.count, step, nothing)
        return self.note(self.read(ids, length=length, topics=nothing)), topics
