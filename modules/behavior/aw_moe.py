"""AW-MoE: Attention-Weighted Mixture of Experts.

Gong et al., "Attention Weighted Mixture of Experts with Contrastive Learning for Personalized Ranking in E-commerce",
ICDE 2023, arXiv 2306.05011. Its input network (a DIN unit over the behaviours), its gate network (gate unit times
activation unit of each behaviour) and its contrastive loss on gates of partly hidden histories. The authors published
no code; where the text leaves a choice, the gate is the mean over the behaviours of a sigmoid activation times the
gate unit, beside a learned gate that serves users without behaviours.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import AUX_LOSS, Batch, Features, Model, ModelConfig, Outputs
from modules.layers.behaviours import Behaviours, Pairs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.mlp import MLP, linear
from modules.layers.target_attention import TargetAttention

EPSILON = 1e-6  # beside a squared norm: the gate of a history that is all hidden is zero


@chz.chz
class AWMoE(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    pairs: Pairs = chz.field(
        default=(), doc="(history, target) features; default: each history with the item's feature of its table"
    )
    joint: bool = chz.field(
        default=True, doc="pairs of one history length form one behaviour (item, category, ...) with one attention"
    )
    query: str | None = chz.field(
        default=None,
        doc="feature that asks the gate, such as the search query: one gate a request; None: the candidate",
    )
    attention: MLP = chz.field(default=MLP(widths=(80, 40), activation="dice"), doc="the activation unit of the input")
    experts: int = chz.field(default=4, doc="K; 1: one tower and no gate, to compare with")
    mlp: MLP = chz.field(default=MLP(widths=(128, 64)), doc="of one expert")
    gate: int = chz.field(default=64, doc="hidden width of the gate unit and of its activation unit")
    contrast: float = chz.field(
        default=0.01,
        doc="weight of the contrastive loss; 0: none. It cost accuracy from .05 on where we could check it",
    )
    hide: float = chz.field(default=0.3, doc="share of the behaviours hidden from the second gate of a row")
    temperature: float = chz.field(default=0.2, doc="of the contrastive loss")

    @chz.validate
    def _shares_make_sense(self):
        if self.experts < 1 or not 0 <= self.hide < 1 or self.temperature <= 0:
            raise ValueError(
                f"experts={self.experts} is at least 1, hide={self.hide} in [0, 1), "
                f"temperature={self.temperature} positive"
            )

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "AWMoEModel":
        return AWMoEModel(self, features=features, rngs=rngs)


class AWMoEModel(Model):
    def __init__(self, config: AWMoE, *, features: Features, rngs: nnx.Rngs):
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        self.behaviours = Behaviours(config.pairs, features=features, embed=self.embed, joint=config.joint)
        self.query, self.contrast = config.query, config.contrast
        self.hide, self.temperature = config.hide, config.temperature
        widths, experts = self.behaviours.widths, config.experts
        if config.query is not None and config.query not in self.behaviours.others:
            raise ValueError(
                f"query={config.query!r} is no field beside the histories; it is one of {self.behaviours.others}"
            )
        self.attention = nnx.List([TargetAttention(w, mlp=config.attention, rngs=rngs) for w in widths])
        inputs = self.embed.width(*self.behaviours.others) + sum(widths)
        self.experts = nnx.List([config.mlp.make(inputs, outputs=1, rngs=rngs) for _ in range(experts)])
        self.gates: nnx.List = nnx.List([])
        if experts > 1:
            asked = None if config.query is None else self.embed.width(config.query)
            self.gates = nnx.List(
                [Gate(w, query=asked, hidden=config.gate, experts=experts, rngs=rngs) for w in widths]
            )
            self.usual = nnx.Param(jnp.full((experts,), 1 / experts))

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        vectors = self.embed(batch)
        others = self.embed.pool_sequences({n: vectors[n] for n in self.behaviours.others}, batch=batch)
        parts, behaviours = list(others.values()), self.behaviours.read(vectors, batch=batch)
        for b, attention in zip(behaviours, self.attention, strict=True):
            parts.append(attention(b.history, target=b.target, mask=b.mask, rngs=rngs))
        x = side_by_side(parts)
        scores = jnp.concatenate([expert(x, rngs=rngs) for expert in self.experts], axis=-1)
        if not self.gates:
            return {"logit": scores[:, 0]}
        gate, hidden = jnp.zeros((1, 1), x.dtype), jnp.zeros((1, 1), x.dtype)
        for b, layer in zip(behaviours, self.gates, strict=True):
            query = b.target if self.query is None else others[self.query]
            votes = layer(b.history, query=query)
            gate = gate + mean(votes, where=b.mask)
            if rngs is not None and self.contrast:
                kept = b.mask & jax.random.bernoulli(rngs.dropout(), 1 - self.hide, b.mask.shape)
                hidden = hidden + mean(votes, where=kept)
        outputs = {"logit": ((gate + self.usual[...][None, :]) * scores).sum(axis=-1)}
        if rngs is not None and self.contrast:
            rows = jnp.stack([b.mask.any(axis=1) for b in behaviours]).any(axis=0)
            loss = contrastive(gate, other=hidden, rows=rows, temperature=self.temperature)
            outputs[f"{AUX_LOSS}gate"] = self.contrast * loss
        return outputs


class Gate(nnx.Module):
    """What each behaviour votes for: σ(activation unit [e, q, e ⊙ q]) · gate unit [e, q], a weight for each expert."""

    def __init__(self, width: int, *, query: int | None, hidden: int, experts: int, rngs: nnx.Rngs):
        self.ask = None if query is None else linear(query, outputs=width, bias=False, rngs=rngs)
        self.behaviour = linear(width, outputs=2 * hidden, rngs=rngs)
        self.other = linear(width, outputs=2 * hidden, bias=False, rngs=rngs)
        self.product = linear(width, outputs=hidden, bias=False, rngs=rngs)
        self.vote = linear(hidden, outputs=experts, rngs=rngs)
        self.activation = linear(hidden, outputs=1, rngs=rngs)

    def __call__(self, history: Float[Array, "u t d"], *, query: Float[Array, "q e"]) -> Float[Array, "b t k"]:
        q = query if self.ask is None else self.ask(query)
        # Both first layers at once, and each part of their input by itself: a shared history is read once.
        x = self.behaviour(history) + self.other(q)[:, None]
        for_vote, for_activation = jnp.split(x, 2, axis=-1)
        for_activation = for_activation + self.product(history * q[:, None])
        return jax.nn.sigmoid(self.activation(jax.nn.relu(for_activation))) * self.vote(jax.nn.relu(for_vote))


def mean(votes: Float[Array, "b t k"], *, where: Bool[Array, "u t"]) -> Float[Array, "b k"]:
    """Over the behaviours of the mask; of none, zero."""
    weight = where.astype(votes.dtype)
    weight = weight / jnp.maximum(weight.sum(axis=1, keepdims=True), 1)
    return (votes * weight[..., None]).sum(axis=1)


def contrastive(
    gate: Float[Array, "b k"], *, other: Float[Array, "b k"], rows: Bool[Array, " b"], temperature: float
) -> Float[Array, ""]:
    """-log of the share of a row's own second gate among those of the batch, by cosine; over rows with behaviours."""
    logits = _unit(gate) @ _unit(other).T / temperature
    logits = jnp.where(rows[None, :], logits, jnp.finfo(logits.dtype).min)
    losses = jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits)
    return jnp.where(rows, losses, 0).sum() / jnp.maximum(rows.sum(), 1)


def _unit(x: Float[Array, "b k"]) -> Float[Array, "b k"]:
    x = x.astype(jnp.float32)
    # ε inside of the root: at zero the norm itself has no gradient.
    return x / jnp.sqrt(jnp.square(x).sum(axis=-1, keepdims=True) + EPSILON)
