"""Wide & Deep: a linear model that memorizes beside a deep one that generalizes.

Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016, equation 3:
logit = w_wideᵀ [x, φ(x)] + w_deepᵀ a + b. φ are the cross products of equation 1, hashed into one table of weights;
a is the last layer of the deep part (equation 2).
"""

import zlib

import chz
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.ctr.dnn import DNN
from modules.ctr.lr import LR
from modules.layers.embedding import hash_ids
from modules.layers.rows import take_rows


@chz.chz
class WideDeep(ModelConfig):
    wide: LR = LR()
    deep: DNN = DNN()
    crosses: tuple[tuple[str, str], ...] = chz.field(default=(), doc="pairs of categorical features that φ crosses")
    cross_rows: int = chz.field(default=2**14, doc="rows of the table that each cross is hashed into")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "WideDeepModel":
        return WideDeepModel(self, features=features, rngs=rngs)


class WideDeepModel(Model):
    def __init__(self, config: WideDeep, *, features: Features, rngs: nnx.Rngs):
        for name in (n for pair in config.crosses for n in pair):
            if features[name].kind != "categorical":
                raise ValueError(f"crosses take categorical features; {name!r} is {features[name].kind}")
        self.wide = config.wide.make(features, rngs=rngs)
        self.deep = config.deep.make(features, rngs=rngs)
        self.crosses = config.crosses
        self.rows = config.cross_rows
        if config.crosses:
            self.table_cross = nnx.Param(jnp.zeros((config.cross_rows, 1)))

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        logit = self.wide(batch)["logit"] + self.deep(batch, rngs=rngs)["logit"]
        return {"logit": logit + self.cross_products(batch) if self.crosses else logit}

    def cross_products(self, batch: Batch) -> Float[Array, " b"]:
        ids = []
        for left, right in self.crosses:
            salt = zlib.crc32(f"{left}*{right}".encode())
            # Hashing the left id first keeps (a, b) apart from (a + 1, b - 1).
            mixed = hash_ids(batch[left] + 2, salt=salt, buckets=2**31 - 1) ^ (batch[right] + 2)
            ids.append(hash_ids(jnp.maximum(mixed, 2), salt=salt, buckets=self.rows))
        return take_rows(self.table_cross, jnp.stack(ids, axis=1)).sum(axis=(1, 2))
