"""A global user representation, as 360 describes it (Tang, "From BERT to LLM", DataFun, September 2024).

One vector of a person from what they do in several products. The talk names the ingredients and no sizes: a
bidirectional transformer over behaviours, embeddings of time, side texts as vectors, classes of interest learned
beside it, and an MLP by which the vector is aligned with interest tags that a language model wrote. With E tables of
their own, an event is
    e = LN(E_token + E_kind + E_product + E_rank + W text + E_gap + E_hour + E_weekday),
a class token stands before the events and a mask at the moment that is asked about behind them; u is the state of the
first, what comes next is told by the state of the last, and p = W2 gelu(W1 u) meets W_t t of the tags t.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.layers.attention import visible
from modules.layers.dropout import Dropout
from modules.layers.layer_norm import LayerNorm
from modules.layers.linear import Linear
from modules.layers.similarity import unit
from modules.layers.temporal import TemporalEncoding, TimeGaps
from modules.layers.tokens import TokenEmbedding
from modules.layers.transformer import Transformer

HOURS = (1.0, 6.0, 24.0, 72.0, 168.0, 336.0)
EDGES = (0.693, 1.946, 3.219, 4.290, 5.130, 5.820)
"""log1p of those hours: the buckets of a gap."""


@chz.chz
class GlobalUser(ModelConfig):
    dim: int = 64
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    aligned: int = chz.field(default=64, doc="width in which the person meets the tags")
    times: bool = chz.field(default=True, doc="gap to the moment, hour and weekday of each event")
    texts: bool = chz.field(default=True, doc="vectors of side texts")
    behaviour: str = chz.field(default="behaviour", doc="sequence of tokens; the last row of its table is the mask")
    fields: tuple[str, ...] = chz.field(default=("behaviour_kind", "behaviour_product"), doc="sequences beside it")
    calendar: tuple[tuple[str, str], ...] = chz.field(
        default=(("behaviour_hour", "now_hour"), ("behaviour_weekday", "now_weekday")),
        doc="sequences of when, each with the feature that has it for the moment asked about",
    )
    gaps: TimeGaps = chz.field(default=TimeGaps(feature="behaviour_gap", edges=EDGES))
    text: str = "behaviour_text"
    interests: str = chz.field(default="interests", doc="label with a number for each class; its width alone is read")
    tags: str = chz.field(default="tags", doc="label with the vector of the tags; read in training alone")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "GlobalUserModel":
        return GlobalUserModel(self, features=features, rngs=rngs)


class GlobalUserModel(Model):
    """ "user" [b, d]; "last" [b, d], from which the next event follows; "interests" [b, c]; "hidden" [b, t, d] and
    "items" [v, d] for what was masked; in training also "aligned" and "tags"."""

    def __init__(self, config: GlobalUser, *, features: Features, rngs: nnx.Rngs):
        tokens, dim = features[config.behaviour], config.dim
        if tokens.kind != "sequence" or not tokens.size:
            raise ValueError(f"GlobalUser reads a sequence of tokens, but {config.behaviour!r} is {tokens.kind}")
        self.config, self.mask = config, tokens.size - 1
        self.token = TokenEmbedding(tokens.size, dim=dim, rngs=rngs)
        when = tuple(name for name, _ in config.calendar) if config.times else ()
        tables = (*config.fields, *when)
        self.tables = nnx.Dict({name: TokenEmbedding(features[name].size, dim=dim, rngs=rngs) for name in tables})
        self.rank = TemporalEncoding(tokens.max_len, dim=dim, rngs=rngs)
        self.gap = TemporalEncoding(tokens.max_len, dim=dim, gaps=config.gaps, rngs=rngs) if config.times else None
        side = features[config.text].shape[-1]
        self.side = Linear(side, dim, use_bias=False, rngs=rngs) if config.texts else None
        self.first = TokenEmbedding(1, dim=dim, rngs=rngs)
        self.norm = LayerNorm(dim)
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(dim, depth=config.depth, heads=config.heads, dropout=config.dropout, rngs=rngs)
        self.judge = Linear(dim, features[config.interests].shape[-1], rngs=rngs)
        self.project = nnx.List([Linear(dim, dim, rngs=rngs), Linear(dim, config.aligned, rngs=rngs)])
        self.tag = Linear(features[config.tags].shape[-1], config.aligned, use_bias=False, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        ids, there = batch[self.config.behaviour], valid(batch, self.config.behaviour)
        events = self._events(batch, ids=ids, there=there)
        asked = self._asked(batch)
        first = jnp.broadcast_to(self.first.rows()[None], (ids.shape[0], 1, events.shape[-1]))
        x = jnp.concatenate([first, events, asked[:, None]], axis=1)
        keep = jnp.pad(there, ((0, 0), (1, 1)), constant_values=True)
        x = self.transformer(self.dropout(self.norm(x), rngs=rngs), mask=visible(keep), rngs=rngs)
        user, hidden, last = x[:, 0], jnp.where(there[..., None], x[:, 1:-1], 0), x[:, -1]
        outputs = {
            "user": user,
            "hidden": hidden,
            "last": last,
            "items": self.token.rows()[: self.mask],
            "interests": self.judge(user),
        }
        if rngs is not None:
            outputs["aligned"] = unit(self.project[1](jax.nn.gelu(self.project[0](user))))
            outputs["tags"] = unit(self.tag(batch[self.config.tags]))
        return outputs

    def _events(self, batch: Batch, *, ids: Int[Array, "b t"], there: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        """Of a masked event the time alone is known, as of the one that is asked about."""
        x = self.token(ids)
        told = jnp.zeros_like(x)
        for name in self.config.fields:
            told += self.tables[name](batch[name])
        if self.side is not None:
            told += self.side(batch[self.config.text])
        x += jnp.where((ids == self.mask)[..., None], 0, told)
        x += self.rank(self.rank.distances(there, batch=batch))
        if self.gap is not None:
            x += self.gap(self.gap.distances(there, batch=batch))
            for name, _ in self.config.calendar:
                x += self.tables[name](batch[name])
        return x

    def _asked(self, batch: Batch) -> Float[Array, "b d"]:
        """The mask at the moment itself."""
        x = self.token.table[self.mask][None] + self.rank.target
        if self.gap is None:
            return jnp.broadcast_to(x, (batch[self.config.behaviour].shape[0], x.shape[1]))
        x += self.gap.target
        for name, now in self.config.calendar:
            x = x + self.tables[name](batch[now])
        return x
