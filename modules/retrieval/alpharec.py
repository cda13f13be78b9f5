"""AlphaRec: Language Representations Can be What Recommenders Need (Sheng et al., ICLR 2025, arXiv 2407.05441).

Collaborative filtering without a vector of any id: frozen vectors T of the items' texts, for a person the mean of those
taken, one MLP from D to 64 for both, and LightGCN over who took what: e = mean_{l=0..L} Â^l e0 with Â = D^-½ A D^-½.
A score is a cosine. `hidden=()` with `layers=0` is the paper's linear probe. An item that nobody took yet has its text.

Texts and edges are no parameters: `train.graph_start.GraphFrom` puts them into the state, where a checkpoint and an
export keep them. Without it there are no edges, and texts are noise.
"""

import itertools

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.linear import Linear
from modules.layers.similarity import unit

UNKNOWN = 1
LEAK = 0.01


@chz.chz
class AlphaRec(ModelConfig):
    dim: int = chz.field(default=64, doc="of both vectors")
    texts: int = chz.field(default=256, doc="width of the texts' vectors")
    hidden: tuple[int, ...] = chz.field(default=(256,), doc="of the MLP; (): one matrix without bias, the linear probe")
    layers: int = chz.field(default=2, doc="of the graph convolution; 0: none")
    edges: int = chz.field(default=1 << 17, doc="room for pairs of a person and an item")
    steer: float = chz.field(default=0.0, doc="a of u' = (1 - a) mean of texts + a text of what is asked for")
    intent: str = chz.field(default="intent", doc="dense feature with the vector of what is asked for, if a is not 0")
    user: str = "user"
    item: str = "item"
    content: str = chz.field(default="content", doc="dense feature with an item's text, for items of no known id")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "AlphaRecModel":
        return AlphaRecModel(self, features=features, rngs=rngs)


class TextGraph(nnx.Module):
    """[users, D] and [items, D] texts, and the edges between them; an edge of weight 0 is room."""

    def __init__(self, *, users: int, items: int, dim: int, edges: int, rngs: nnx.Rngs):
        def noise(rows: int) -> nnx.BatchStat:
            return nnx.BatchStat(jax.random.normal(rngs.params(), (rows, dim)) / dim**0.5)

        self.people, self.listings = noise(users), noise(items)
        self.user = nnx.BatchStat(jnp.zeros((edges,), jnp.int32))
        self.item = nnx.BatchStat(jnp.zeros((edges,), jnp.int32))
        self.weight = nnx.BatchStat(jnp.zeros((edges,)))

    def spread(
        self, people: Float[Array, "u d"], listings: Float[Array, "v d"]
    ) -> tuple[Float[Array, "u d"], Float[Array, "v d"]]:
        """Â times the vectors of both sides."""
        user, item, weight = self.user[...], self.item[...], self.weight[...][:, None].astype(people.dtype)
        return (
            jax.ops.segment_sum(weight * listings[item], user, num_segments=len(people)),
            jax.ops.segment_sum(weight * people[user], item, num_segments=len(listings)),
        )


class AlphaRecModel(Model):
    """ "query" [b, d] of the person, "item" [b, d]; in training "negatives" [n, d], all of unit length."""

    def __init__(self, config: AlphaRec, *, features: Features, rngs: nnx.Rngs):
        self.config = config
        users, items = features[config.user].size, features[config.item].size
        self.graph = TextGraph(users=users, items=items, dim=config.texts, edges=config.edges, rngs=rngs)
        widths = (config.texts, *config.hidden, config.dim)
        self.mlp = nnx.List(
            [Linear(i, o, use_bias=bool(config.hidden), rngs=rngs) for i, o in itertools.pairwise(widths)]
        )

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        config = self.config
        outputs: Outputs = {}
        people, listings = self.all()
        if config.user in batch:
            outputs["query"] = people[batch[config.user]]
            if config.steer:
                own = self.graph.people[...][batch[config.user]]
                asked = (1 - config.steer) * own + config.steer * batch[config.intent]
                outputs["query"] = self.map(asked)
        if config.item in batch:
            item = listings[batch[config.item]]
            if config.content in batch:
                new = (batch[config.item] == UNKNOWN)[:, None]
                item = jnp.where(new, self.map(batch[config.content]), item)
            outputs["item"] = item
        if rngs is not None:
            outputs["negatives"] = listings[batch["negatives"].reshape(-1)]
        return {name: unit(x) for name, x in outputs.items()}

    def map(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        """The MLP, the same for people and items."""
        for layer in self.mlp[:-1]:
            x = jax.nn.leaky_relu(layer(x), LEAK)
        return self.mlp[-1](x)

    def all(self) -> tuple[Float[Array, "u d"], Float[Array, "v d"]]:
        """Of everybody and everything."""
        now = (self.map(self.graph.people[...]), self.map(self.graph.listings[...]))
        total = now
        for _ in range(self.config.layers):
            now = self.graph.spread(*now)
            total = (total[0] + now[0], total[1] + now[1])
        return total
