"""S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual Information Maximization (Zhou et al.,
CIKM 2020).

Before SASRec learns what comes next, its encoder learns, looking both ways, what belongs together: an item and its
attributes (AAP), a hidden item and what surrounds it (MIP), what surrounds a hidden item and its attributes (MAP), a
hidden segment and the rest of the history (SP). Each compares through a W of its own.
The losses are `train.tasks.s3_pretraining`; masks are drawn here, since states depend on them.

To predict it is SASRec, with the same names of parameters, so that `init_from` carries them over to one.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modules.base import Batch, Features, Outputs, valid
from modules.layers.embedding import FIRST
from modules.layers.linear import Linear
from modules.layers.one_pass import in_one_pass
from modules.layers.tokens import TokenEmbedding
from modules.sequential.sasrec import SASRec, SASRecModel


@chz.chz
class S3Rec(SASRec):
    """Training outputs: "aap", "mip", "map" [b,t,d] and "sp" [b,d], each W h; what they are compared with, "items",
    "attributes", "segment" and "borrowed"; the places that were "hidden", and "negatives" for them."""

    attributes: tuple[str, ...] = chz.field(doc="sequences beside the history, each with an attribute of its items")
    masked: float = chz.field(default=0.2, doc="share of the items that are hidden one by one")

    @chz.validate
    def _check(self) -> None:
        if not 0 < self.masked < 1:
            raise ValueError(f"masked is {self.masked}; give a share between 0 and 1")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "S3RecModel":
        return S3RecModel(self, features=features, rngs=rngs)


class S3RecModel(SASRecModel):
    def __init__(self, config: S3Rec, *, features: Features, rngs: nnx.Rngs):
        super().__init__(config, features=features, rngs=rngs)
        self.masked, self.size = config.masked, features[config.history].size
        self.sizes = {name: features[name].size - FIRST for name in config.attributes}
        if odd := [name for name in config.attributes if features[name].kind != "sequence" or not features[name].size]:
            raise ValueError(f"S3Rec reads sequences of ids as attributes, but {odd[0]!r} is {features[odd[0]].kind}")
        self.mask = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (config.dim,)))
        self.attribute = TokenEmbedding(sum(self.sizes.values()), dim=config.dim, rngs=rngs)

        def compare() -> Linear:
            return Linear(config.dim, config.dim, use_bias=False, rngs=rngs)

        self.aap, self.mip, self.map, self.sp = compare(), compare(), compare(), compare()

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        if rngs is None:
            return super().__call__(batch)
        ids, length, keep = batch[self.history], batch[f"{self.history}/length"], valid(batch, self.history)
        hidden = keep & (jax.random.uniform(rngs.dropout(), ids.shape) < self.masked)
        segment = keep & self._segment(length, width=ids.shape[1], rngs=rngs)
        items = self.item(ids) * self.scale
        blank = jnp.broadcast_to(self.mask[...] * self.scale, items.shape)
        shown = {
            "masked": jnp.where(hidden[..., None], blank, items),
            "context": jnp.where(segment[..., None], blank, items),
            "segment": jnp.where(segment[..., None], items, blank),
            "borrowed": jnp.where(segment[..., None], self.item(_borrowed(ids, length)) * self.scale, blank),
        }

        def encode(part):
            x, ids, length = part
            both = {self.history: ids, f"{self.history}/length": length}
            return self.encode(x, batch=both, causal=False, rngs=rngs)

        found = in_one_pass(encode, {name: (x, ids, length) for name, x in shown.items()})
        states = found["masked"][0]
        negatives = jax.random.randint(rngs.dropout(), ids.shape, FIRST, self.size)
        return {
            "aap": self.aap(states),
            "mip": self.mip(states),
            "map": self.map(states),
            "sp": self.sp(found["context"][1]),
            "segment": found["segment"][1],
            "borrowed": found["borrowed"][1],
            "segment/known": (length > 1) & (jnp.roll(length, 1) > 0),
            "hidden": hidden,
            "items": self.item.rows(),
            "attributes": self.attribute.rows(),
            "attributes/of": self._attributes(batch),
            "negatives": negatives,
            "negatives/known": jnp.all((negatives[:, :, None] != ids[:, None]) | ~keep[:, None], axis=2),
        }

    def _segment(self, length: Int[Array, "b"], *, width: int, rngs: nnx.Rngs) -> Bool[Array, "b t"]:
        """Of each history a stretch of at most half of it, anywhere."""
        size, start = jax.random.uniform(rngs.dropout(), (2, length.shape[0]))
        most = jnp.maximum(length // 2, 1)
        count = 1 + jnp.floor(size * most).astype(length.dtype)
        count = jnp.minimum(count, most)
        begin = jnp.floor(start * (length - count + 1)).astype(length.dtype)
        place = jnp.arange(width)[None]
        return (place >= begin[:, None]) & (place < (begin + count)[:, None])

    def _attributes(self, batch: Batch) -> Float[Array, "b t a"]:
        """1 at each attribute that the item at a position has."""
        return jnp.concatenate(
            [jax.nn.one_hot(batch[name] - FIRST, size) for name, size in self.sizes.items()], axis=-1
        )


def _borrowed(ids: Int[Array, "b t"], length: Int[Array, "b"]) -> Int[Array, "b t"]:
    """The items of another user at every place, from the first on again where that user's history ends."""
    other, count = jnp.roll(ids, 1, axis=0), jnp.maximum(jnp.roll(length, 1), 1)
    return jnp.take_along_axis(other, jnp.arange(ids.shape[1])[None] % count[:, None], axis=1)
