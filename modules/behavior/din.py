"""DIN: Deep Interest Network.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018. Equation 3 (local activation unit:
the user vector depends on the candidate), section 5.2 (Dice), figure 2.
"""

from collections.abc import Sequence

import chz
from flax import nnx
from jaxtyping import Array, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.behaviours import Behaviours, Pairs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.mlp import MLP
from modules.layers.target_attention import TargetAttention


@chz.chz
class DIN(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    pairs: Pairs = chz.field(
        default=(), doc="(history, target) features; default: each history with the item's feature of its table"
    )
    joint: bool = chz.field(
        default=True, doc="pairs of one history length form one behaviour (item, category, ...) with one attention"
    )
    attention: MLP = chz.field(default=MLP(widths=(80, 40), activation="dice"), doc="the local activation unit")
    softmax: bool = chz.field(default=False, doc="normalise the attention; the paper does not")
    product: bool = chz.field(default=False, doc="also feed interest ⊙ target, as the authors' code does")
    target_bias: bool = chz.field(
        default=False, doc="add a learned number per target (its first feature), as the authors' code does"
    )
    mlp: MLP = MLP(widths=(200, 80), activation="dice")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "DINModel":
        return DINModel(self, features=features, rngs=rngs)


class DINModel(Model):
    def __init__(self, config: DIN, *, features: Features, more: int = 0, rngs: nnx.Rngs):
        """`more` is the width of what a system around it feeds to the last layers beside the features."""
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.behaviours = Behaviours(config.pairs, features=features, embed=self.embed, joint=config.joint)
        self.product = config.product
        widths = self.behaviours.widths
        self.attention = nnx.List(
            [TargetAttention(w, mlp=config.attention, softmax=config.softmax, rngs=rngs) for w in widths]
        )
        inputs = self.embed.width(*self.behaviours.others) + sum(widths) * (2 if config.product else 1) + more
        self.mlp = config.mlp.make(inputs, outputs=1, rngs=rngs)
        biased = features.select(names=(self.behaviours.groups[0][0][1],))
        self.bias = FeatureEmbedding(biased, dim=1, rngs=rngs) if config.target_bias else None

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        return {"logit": self.rank(batch, rngs=rngs)}

    def rank(
        self, batch: Batch, *, more: Sequence[Float[Array, "b _"]] = (), rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b"]:
        vectors = self.embed(batch)
        others = self.embed.pool_sequences({n: vectors[n] for n in self.behaviours.others}, batch=batch)
        parts = list(others.values())
        for behaviour, attention in zip(self.behaviours.read(vectors, batch=batch), self.attention, strict=True):
            interest = attention(behaviour.history, target=behaviour.target, mask=behaviour.mask, rngs=rngs)
            parts += [interest, interest * behaviour.target] if self.product else [interest]
        logit = self.mlp(side_by_side([*parts, *more]), rngs=rngs)[:, 0]
        if self.bias is not None:
            logit += self.bias.flat(batch)[:, 0]
        return logit
