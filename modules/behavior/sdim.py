"""SDIM: Sampling-based Deep Interest Modeling.

Cao et al., "Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction", CIKM 2022. Section 4.2
(hash collisions instead of target attention over the long history, l2 of each bucket), section 4.4 (BSE: the table of
a user is built apart from the candidates), figure 2 (target attention over the newest behaviours beside it).
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.layers.behaviours import Behaviour, Behaviours, Pairs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.hash_attention import HashAttention
from modules.layers.mlp import MLP
from modules.layers.target_attention import TargetAttention


@chz.chz
class SDIM(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    pairs: Pairs = chz.field(
        default=(), doc="(history, target) features; default: each history with the item's feature of its table"
    )
    joint: bool = chz.field(
        default=True, doc="pairs of one history length form one behaviour (item, category, ...) with one attention"
    )
    hashes: int = chz.field(default=48, doc="random projections; 0: the whole history goes through the unit (DIN-long)")
    bits: int = chz.field(default=3, doc="signs of one signature; more are sharper")
    hash_seed: int = chz.field(default=0, doc="of the projections, so that two programs agree on them")
    short: int = chz.field(default=16, doc="newest behaviours that the activation unit weighs beside the long history")
    attention: MLP = chz.field(default=MLP(widths=(80, 40), activation="dice"), doc="the activation unit")
    softmax: bool = chz.field(default=False, doc="normalise the unit's weights")
    mlp: MLP = MLP(widths=(200, 80), activation="dice")

    @chz.validate
    def _hashes_divide(self):
        if self.bits < 1 or self.hashes < 0 or self.hashes % self.bits:
            raise ValueError(f"hashes={self.hashes} must be a multiple of bits={self.bits}, which is at least 1")
        if self.short < 1:
            raise ValueError(f"short={self.short}; the activation unit reads at least the newest behaviour")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "SDIMModel":
        return SDIMModel(self, features=features, rngs=rngs)


class SDIMModel(Model):
    def __init__(self, config: SDIM, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.behaviours = Behaviours(config.pairs, features=features, embed=self.embed, joint=config.joint)
        self.short = config.short
        widths = self.behaviours.widths

        def unit(width: int) -> TargetAttention:
            return TargetAttention(width, mlp=config.attention, softmax=config.softmax, rngs=rngs)

        def over_long(width: int) -> HashAttention | TargetAttention:
            if not config.hashes:
                return unit(width)
            return HashAttention(width, hashes=config.hashes, bits=config.bits, seed=config.hash_seed)

        self.near = nnx.List([unit(w) for w in widths])
        self.far = nnx.List([over_long(w) for w in widths])
        self.mlp = config.mlp.make(self.embed.width(*self.behaviours.others) + 2 * sum(widths), outputs=1, rngs=rngs)

    def __call__(
        self, batch: Batch, *, tables: tuple[jax.Array, ...] | None = None, rngs: nnx.Rngs | None = None
    ) -> Outputs:
        """With the `tables` that `build` made of the whole histories, those of the batch may be the newest `short`."""
        vectors = self.embed(batch)
        others = self.embed.pool_sequences({n: vectors[n] for n in self.behaviours.others}, batch=batch)
        parts = list(others.values())
        for i, b in enumerate(self.behaviours.read(vectors, batch=batch)):
            recent = newest(b, count=self.short)
            parts.append(self.near[i](recent.history, target=recent.target, mask=recent.mask, rngs=rngs))
            parts.append(self._long(b, attention=self.far[i], table=None if tables is None else tables[i], rngs=rngs))
        return {"logit": self.mlp(side_by_side(parts), rngs=rngs)[:, 0]}

    def build(self, batch: Batch) -> tuple[jax.Array, ...]:
        """The tables of the users of a batch, from its histories alone: what a behaviour server keeps."""
        histories = tuple(h for group in self.behaviours.groups for h, _ in group)
        vectors = self.embed(batch, names=histories)
        tables = []
        for group, attention in zip(self.behaviours.groups, self.far, strict=True):
            if not isinstance(attention, HashAttention):
                raise ValueError("hashes=0: the whole history goes through the unit, and there is no table to build")
            history = jnp.concatenate([vectors[h] for h, _ in group], axis=-1)
            mask = jnp.stack([valid(batch, h) for h, _ in group]).any(axis=0)
            tables.append(attention.build(history, mask=mask))
        return tuple(tables)

    def _long(
        self,
        b: Behaviour,
        *,
        attention: HashAttention | TargetAttention,
        table: jax.Array | None,
        rngs: nnx.Rngs | None,
    ) -> jax.Array:
        if isinstance(attention, TargetAttention):
            return attention(b.history, target=b.target, mask=b.mask, rngs=rngs)
        if table is not None:
            return attention.query(table, target=b.target)
        return attention(b.history, target=b.target, mask=b.mask)


def newest(b: Behaviour, *, count: int) -> Behaviour:
    """The last `count` behaviours of each row, oldest first; padding moves to the front."""
    if b.mask.shape[1] <= count:
        return b
    place = b.mask.sum(axis=1)[:, None] - count + jnp.arange(count)[None, :]
    history = jnp.take_along_axis(b.history, jnp.maximum(place, 0)[..., None], axis=1)
    return Behaviour(history=history, target=b.target, mask=place >= 0)
