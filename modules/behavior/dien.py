"""DIEN: Deep Interest Evolution Network.

Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019. Section "Interest Extractor
Layer": a GRU over the behaviours and an auxiliary loss that makes its states tell the next behaviour from one that did
not happen. Section "Interest Evolving Layer": attention a_t = softmax_t(h_t W v), and AUGRU, a second GRU whose update
gate is scaled by a_t.
"""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import AUX_LOSS, Batch, Features, Model, ModelConfig, Outputs
from modules.layers.attend import attention_weights, weighted_sum
from modules.layers.behaviours import Behaviour, Behaviours, Pairs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.gru import GRU
from modules.layers.mlp import MLP, linear


@chz.chz
class DIEN(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    pairs: Pairs = chz.field(
        default=(), doc="(history, target) features; default: each history with the item's feature of its table"
    )
    joint: bool = chz.field(
        default=True, doc="pairs of one history length form one behaviour (item, category, ...) with one attention"
    )
    evolution: Literal["augru", "attention"] = chz.field(
        default="augru", doc="attention: the states of the first GRU are summed by their weights, without a second"
    )
    pooled: bool = chz.field(
        default=True, doc="also feed the summed history and its product with the target, as the authors' code does"
    )
    next_item: float = chz.field(
        default=0.0, doc="weight of the auxiliary loss: 1 in the paper, 0 where BARS tuned it; 0 computes none"
    )
    discriminator: MLP | None = chz.field(
        default=None,
        blueprint_unspecified=MLP,
        doc="tells the next behaviour in the auxiliary loss, such as widths 100, 50; default: inner product",
    )
    mlp: MLP = MLP(widths=(200, 80), activation="dice")

    @chz.validate
    def _weight_makes_sense(self):
        if self.next_item < 0:
            raise ValueError(f"next_item is {self.next_item}; a weight is at least 0")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "DIENModel":
        return DIENModel(self, features=features, rngs=rngs)


class DIENModel(Model):
    def __init__(self, config: DIEN, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.behaviours = Behaviours(config.pairs, features=features, embed=self.embed, joint=config.joint)
        self.pooled, self.next_item = config.pooled, config.next_item
        widths = self.behaviours.widths
        self.interests = nnx.List([Interest(config, width=w, rngs=rngs) for w in widths])
        inputs = self.embed.width(*self.behaviours.others) + sum(widths) * (3 if config.pooled else 1)
        self.mlp = config.mlp.make(inputs, outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        vectors = self.embed(batch)
        others = self.embed.pool_sequences({n: vectors[n] for n in self.behaviours.others}, batch=batch)
        parts, losses = list(others.values()), []
        for b, interest in zip(self.behaviours.read(vectors, batch=batch), self.interests, strict=True):
            states = interest.extract(b)
            parts.append(interest.evolve(states, behaviour=b))
            if self.pooled:
                total = jnp.einsum("utd,ut->ud", b.history, b.mask.astype(b.history.dtype))
                parts += [total, total * b.target]
            if self.next_item and rngs is not None:
                losses.append(interest.next_item_loss(states, behaviour=b, rngs=rngs))
        outputs = {"logit": self.mlp(side_by_side(parts), rngs=rngs)[:, 0]}
        if losses:
            outputs[f"{AUX_LOSS}next_item"] = self.next_item * sum(losses[1:], start=losses[0])
        return outputs


class Interest(nnx.Module):
    """Both layers over one list of behaviours. States are as wide as behaviours, with which they are compared."""

    def __init__(self, config: DIEN, *, width: int, rngs: nnx.Rngs):
        self.extractor = GRU(width, width=width, rngs=rngs)
        self.query = linear(width, outputs=width, bias=False, rngs=rngs)
        self.evolution = GRU(width, width=width, rngs=rngs) if config.evolution == "augru" else None
        told = config.discriminator if config.next_item else None
        self.discriminator = None if told is None else told.make(2 * width, outputs=1, rngs=rngs)

    def extract(self, b: Behaviour) -> Float[Array, "u t d"]:
        states, _ = self.extractor(b.history, mask=b.mask)
        return states

    def evolve(self, states: Float[Array, "u t d"], *, behaviour: Behaviour) -> Float[Array, "b d"]:
        query = self.query(behaviour.target)
        weights = attention_weights(query, keys=states, mask=behaviour.mask, scale=1.0)
        if self.evolution is None:
            return weighted_sum(weights, values=states)
        _, last = self.evolution(states, mask=behaviour.mask, attention=weights)
        return last

    def next_item_loss(self, states: Float[Array, "b t d"], *, behaviour: Behaviour, rngs: nnx.Rngs) -> jax.Array:
        """-(log σ(h_t · e_{t+1}) + log(1 - σ(h_t · ê_{t+1}))), its mean over the behaviours that have a next one."""
        history, mask = behaviour.history, behaviour.mask
        others, known = negatives(history, mask=mask, rngs=rngs)
        # A behaviour is no negative of itself; equal ids have equal vectors.
        known &= jnp.any(others != history, axis=-1)
        state, there = states[:, :-1], mask[:, 1:]
        losses = jax.nn.softplus(-self._logit(state, history[:, 1:], where=there, rngs=rngs))
        losses += jnp.where(known[:, 1:], jax.nn.softplus(self._logit(state, others[:, 1:], where=there, rngs=rngs)), 0)
        return jnp.where(there, losses, 0).sum() / jnp.maximum(there.sum(), 1)

    def _logit(
        self, state: Float[Array, "b t d"], e: Float[Array, "b t d"], *, where: Bool[Array, "b t"], rngs: nnx.Rngs
    ) -> Float[Array, "b t"]:
        if self.discriminator is None:
            return jnp.einsum("btd,btd->bt", state, e)
        return self.discriminator(jnp.concatenate([state, e], axis=-1), mask=where, rngs=rngs)[..., 0]


def negatives(
    history: Float[Array, "b t d"], *, mask: Bool[Array, "b t"], rngs: nnx.Rngs
) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
    """For every position a behaviour of another user in the batch, and where there is one."""
    rows = history.shape[0]
    shift = jax.random.randint(rngs.negatives(), (), 1, max(rows, 2))
    other, length = (jnp.roll(x, shift, axis=0) for x in (history, mask.sum(axis=1)))
    share = jax.random.uniform(rngs.negatives(), mask.shape)
    position = jnp.minimum((share * length[:, None]).astype(jnp.int32), mask.shape[1] - 1)
    known = jnp.broadcast_to((length > 0)[:, None] & (rows > 1), mask.shape)
    return jnp.take_along_axis(other, position[..., None], axis=1), known
