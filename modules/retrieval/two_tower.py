"""Two towers: Sampling-Bias-Corrected Neural Modeling (Yi et al., RecSys 2019), after DSSM (Huang et al., CIKM 2013).

u(x) from what is known of user and context, v(y) from what is known of the item; s(x, y) = <u(x), v(y)> / tau
(eq. 1 and section 3). A tower whose features the batch lacks gives no output, so one model serves requests and
builds the index.
"""

import chz
import jax
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP
from modules.layers.similarity import Temperature, unit

KINDS = ("categorical", "multihot", "sequence", "text", "numeric", "dense")


@chz.chz
class TwoTower(ModelConfig):
    dim: int = chz.field(default=32, doc="of the two vectors, and of each embedded feature")
    query: MLP = chz.field(default_factory=lambda: MLP(widths=(64,)))
    item: MLP = chz.field(default_factory=lambda: MLP(widths=(64,)))
    embedding: Embedding = chz.field(default_factory=Embedding)
    normalize: bool = chz.field(default=True, doc="vectors of length 1, so that the product is the cosine")
    temperature: float | None = chz.field(
        default=0.05, doc="learned, starting here; None: the task's fixed one (of no use without normalize)"
    )

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "TwoTowerModel":
        return TwoTowerModel(self, features=features, rngs=rngs)


class TwoTowerModel(Model):
    def __init__(self, config: TwoTower, *, features: Features, rngs: nnx.Rngs):
        features = features.select(kinds=KINDS)
        self.normalize = config.normalize
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.query_names = tuple(f.name for f in features if f.role != "item")
        self.item_names = tuple(f.name for f in features if f.role == "item")
        for side, names in (("user or context", self.query_names), ("item", self.item_names)):
            if not names:
                raise ValueError(f"TwoTower needs at least one feature of role {side}; the source declares none")
        self.query = config.query.make(self.embed.width(*self.query_names), outputs=config.dim, rngs=rngs)
        self.item = config.item.make(self.embed.width(*self.item_names), outputs=config.dim, rngs=rngs)
        self.temperature = None if config.temperature is None else Temperature(1 / config.temperature)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        outputs: Outputs = {} if self.temperature is None else self.temperature()
        if holds(batch, self.query_names):
            outputs["query"] = self._tower(self.query, batch, names=self.query_names, rngs=rngs)
        if holds(batch, self.item_names):
            outputs["item"] = self._tower(self.item, batch, names=self.item_names, rngs=rngs)
        return outputs

    def _tower(self, mlp: nnx.Module, batch: Batch, *, names: tuple[str, ...], rngs) -> Float[Array, "b d"]:
        x: jax.Array = mlp(self.embed.flat(batch, names=names), rngs=rngs)
        return unit(x) if self.normalize else x


def holds(batch: Batch, names: tuple[str, ...]) -> bool:
    """Whether the batch has this side. A side with some of its features only is a mistake, not an absence."""
    absent = [n for n in names if n not in batch]
    if absent and len(absent) < len(names):
        raise KeyError(f"the batch has only a part of a tower's features: {', '.join(absent)} missing")
    return not absent
