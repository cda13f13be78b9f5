"""How an item follows another, learned from what their words say of the pair, and so for any catalogue with words.

    s(j | h) = log(e^f + sum_i exp(g(x_ij) + r_age(i)))

i runs over the newest items of h, x_ij are the facts of a pair (data/word_pairs.py: cosines of titles and categories,
places by nearness), g is an MLP. An item that no list holds keeps the floor f. Nothing is learned of an item itself:
lists and facts are given with the catalogue, and g, r and f serve another one as they are. Kernels on nearness are as
old as nearest neighbours; that g is learned across catalogues is ours, no paper's.
"""

import chz
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.embedding import FIRST
from modules.layers.given import Given
from modules.layers.mlp import MLP
from modules.losses.items import HIDDEN


@chz.chz
class WordPairs(ModelConfig):
    listed: int = chz.field(default=256, doc="nearest items of each item that may follow it")
    newest: int = chz.field(default=10, doc="items of the history whose lists are read")
    facts: int = chz.field(default=16, doc="numbers that are given of a pair")
    mlp: MLP = chz.field(default=MLP(widths=(16,), activation="gelu"), doc="g")
    history: str = chz.field(default="history", doc="sequence of item ids")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "WordPairsModel":
        return WordPairsModel(self, features=features, rngs=rngs)


class WordPairsModel(Model):
    """`train.item_knowledge.PairFacts` fills the lists."""

    def __init__(self, config: WordPairs, *, features: Features, rngs: nnx.Rngs):
        history = features[config.history]
        self.history, self.size, self.newest = config.history, history.size, min(config.newest, history.max_len)
        self.items = Given(jnp.zeros((self.size, config.listed), jnp.int32))
        self.facts = Given(jnp.zeros((self.size, config.listed, config.facts), jnp.float16))
        self.mlp = config.mlp.make(config.facts, outputs=1, rngs=rngs)
        self.age = nnx.Param(-0.3 * jnp.arange(self.newest, dtype=jnp.float32))
        self.floor = nnx.Param(jnp.array(-3.0))

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        """scores [b,v]; those of ids that are no items are the lowest."""
        history, length = batch[self.history], batch[f"{self.history}/length"]
        place = length[:, None] - 1 - jnp.arange(self.newest)[None]
        ids = jnp.take_along_axis(history, jnp.maximum(place, 0), axis=1)
        items = self.items[...][ids]
        pair = self.mlp(self.facts[...][ids].astype(jnp.float32), rngs=rngs)[..., 0] + self.age[...][None, :, None]
        weight = jnp.where((place >= 0)[..., None] & (items >= FIRST), jnp.exp(pair), 0)
        rows = jnp.arange(history.shape[0])[:, None, None]
        total = jnp.zeros((history.shape[0], self.size)).at[rows, items].add(weight)
        scores = jnp.log(jnp.exp(self.floor[...]) + total)
        return {"scores": jnp.where((jnp.arange(self.size) >= FIRST)[None], scores, HIDDEN)}
