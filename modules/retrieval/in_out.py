"""IN-OUT: two embeddings of an item, so that what goes with it is not what is like it.

Kvernadze, Sudyanti, Subedi, Hajiaghayi, "Two Is Better Than One: Dual Embeddings for Complementary Product
Recommendations", arXiv 2211.14982, 2022.

Skip-gram with negative sampling over all pairs of a basket learns v_p (IN) of a given item and u_x (OUT) of what was
taken with it: -log σ(v_c·u_o) - Σ_k log σ(-v_c·u_k), k by count^alpha. What is usually thrown away is kept:
argmax_x cos(v_p, u_x) are complements of p, argmax_x cos(v_p, v_x) its substitutes. The first is not symmetric.
"""

from typing import Literal

import chz
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.tokens import TokenEmbedding


@chz.chz
class InOut(ModelConfig):
    """Outputs "query" of the given item, "item" of those to recommend, and of a batch with negatives "negatives"."""

    dim: int = 24
    given: str = chz.field(default="given", doc="feature with the item at hand")
    item: str = chz.field(default="item", doc="feature with an item that may go with it, of the same vocabulary")
    negatives: str = chz.field(default="negatives", doc="array with ids of items that were not taken with it")
    space: Literal["in-out", "in-in", "one"] = chz.field(
        default="in-out",
        doc="in-out: complements, as in the paper; in-in: trained alike, but found by the IN vectors alone, as "
        "skip-gram is mostly used; one: a single table is both",
    )
    std: float = chz.field(default=0.1, doc="standard deviation of the IN vectors at the start; OUT starts at zero")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "InOutModel":
        return InOutModel(self, features=features, rngs=rngs)


class InOutModel(Model):
    def __init__(self, config: InOut, *, features: Features, rngs: nnx.Rngs):
        given, item = features[config.given], features[config.item]
        if given.kind != "categorical" or item.kind != "categorical" or given.size != item.size:
            raise ValueError(
                f"InOut needs two ids of one vocabulary; got {given.name!r}, {given.kind} of {given.size} rows, and "
                f"{item.name!r}, {item.kind} of {item.size}"
            )
        self.config = config
        self.given = TokenEmbedding(given.size, dim=config.dim, std=config.std, rngs=rngs)
        # Zero, as skip-gram has it: what was never taken is like nothing, and no chance vector is near a query.
        self.out = None if config.space == "one" else TokenEmbedding(item.size, dim=config.dim, std=0.0, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        config, outputs = self.config, {}
        found_by_in = self.out is None or (config.space == "in-in" and rngs is None)
        table = self.given if found_by_in else self.out
        if config.given in batch:
            outputs["query"] = self.given(batch[config.given])
        for name, ids in (("item", config.item), ("negatives", config.negatives)):
            if ids in batch:
                outputs[name] = table(batch[ids])
        return outputs
