"""TIN: Temporal Interest Network.

Zhou et al., "Temporal Interest Network for User Response Prediction", WWW 2024. Section 3: target-aware temporal
encoding ẽ_i = e_i + p_i, ṽ = v + p_0, target-aware attention α = softmax_i(⟨ẽ_i, ṽ⟩/√d), target-aware representation
ẽ_i ⊙ ṽ; u = Σ_i α_i (ẽ_i ⊙ ṽ), in which behaviour, its time, target and target's time meet in one product.
"""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, Model, ModelConfig, Outputs
from modules.layers.attend import attend, attention_scores
from modules.layers.behaviours import Behaviour, Behaviours, Pairs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.mlp import MLP
from modules.layers.positions import mean_valid
from modules.layers.target_attention import TargetAttention
from modules.layers.temporal import TemporalEncoding, TimeGaps, check_lengths, without_gaps


@chz.chz
class TIN(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    pairs: Pairs = chz.field(
        default=(), doc="(history, target) features; default: each history with the item's feature of its table"
    )
    joint: bool = chz.field(
        default=True, doc="pairs of one history length form one behaviour (item, category, ...) with one attention"
    )
    positions: bool = chz.field(default=True, doc="temporal encoding; without it the order of the past is unknown")
    gaps: TimeGaps | None = chz.field(
        default=None, blueprint_unspecified=TimeGaps, doc="encode buckets of elapsed time; default: ranks"
    )
    attention: Literal["dot", "unit", "mean"] = chz.field(
        default="dot", doc="dot: the paper's; unit: DIN's activation unit with softmax; mean: every behaviour alike"
    )
    unit: MLP = chz.field(default=MLP(widths=(80, 40), activation="dice"), doc="hidden layers of attention=unit")
    product: bool = chz.field(default=True, doc="target-aware representation: also feed interest ⊙ target")
    mlp: MLP = MLP(widths=(200, 80), activation="dice")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "TINModel":
        return TINModel(self, features=features, rngs=rngs)


class TINModel(Model):
    def __init__(self, config: TIN, *, features: Features, rngs: nnx.Rngs):
        inputs = without_gaps(features, gaps=config.gaps)
        self.embed = FeatureEmbedding(inputs, dim=config.dim, options=config.embedding, rngs=rngs)
        self.behaviours = Behaviours(config.pairs, features=inputs, embed=self.embed, joint=config.joint)
        check_lengths(self.behaviours.lengths, features=features, gaps=config.gaps)
        self.attention, self.product = config.attention, config.product
        widths, std = self.behaviours.widths, config.embedding.std
        self.times = nnx.List(
            [
                TemporalEncoding(length, dim=width, gaps=config.gaps, std=std, rngs=rngs)
                for length, width in zip(self.behaviours.lengths, widths, strict=True)
                if config.positions
            ]
        )
        self.units = nnx.List(
            [TargetAttention(w, mlp=config.unit, softmax=True, rngs=rngs) for w in widths if config.attention == "unit"]
        )
        width = self.embed.width(*self.behaviours.others) + sum(widths) * (2 if config.product else 1)
        self.mlp = config.mlp.make(width, outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        vectors = self.embed(batch)
        others = self.embed.pool_sequences({n: vectors[n] for n in self.behaviours.others}, batch=batch)
        parts = list(others.values())
        for i, behaviour in enumerate(self._in_time(vectors, batch=batch)):
            interest = self._pool(behaviour, unit=i, rngs=rngs)
            # Σ_i α_i (ẽ_i ⊙ ṽ) = (Σ_i α_i ẽ_i) ⊙ ṽ, which multiplies once instead of at every position.
            parts += [interest, interest * behaviour.target] if self.product else [interest]
        return {"logit": self.mlp(side_by_side(parts), rngs=rngs)[:, 0]}

    def correlations(self, batch: Batch) -> list[Float[Array, "b t"]]:
        """What was learned about each behaviour and the target: exp(⟨ẽ_i, ṽ⟩) ‖ẽ_i ⊙ ṽ‖, zero at padding."""
        return [
            correlation(b.history, target=b.target, mask=b.mask) for b in self._in_time(self.embed(batch), batch=batch)
        ]

    def _in_time(self, vectors: dict[str, jax.Array], *, batch: Batch) -> list[Behaviour]:
        """Histories and targets with their temporal encoding."""
        behaviours = self.behaviours.read(vectors, batch=batch)
        if not self.times:
            return behaviours
        return [
            Behaviour(
                history=b.history + time(time.distances(b.mask, batch=batch)),
                target=b.target + time.target,
                mask=b.mask,
            )
            for b, time in zip(behaviours, self.times, strict=True)
        ]

    def _pool(self, b: Behaviour, *, unit: int, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        if self.attention == "dot":
            return attend(b.target, keys=b.history, values=b.history, mask=b.mask)
        if self.attention == "unit":
            return self.units[unit](b.history, target=b.target, mask=b.mask, rngs=rngs)
        return mean_valid(b.history, where=b.mask)


def correlation(
    history: Float[Array, "u t d"], *, target: Float[Array, "b d"], mask: Bool[Array, "u t"]
) -> Float[Array, "b t"]:
    scores = attention_scores(target, keys=history, scale=1.0)
    norms = jnp.sqrt(attention_scores(jnp.square(target), keys=jnp.square(history), scale=1.0))
    return jnp.where(mask, jnp.exp(scores) * norms, 0)
