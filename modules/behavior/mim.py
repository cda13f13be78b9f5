"""MIM: Multi-modal content Interest Modeling, stage 3 (CiUBM: content-interest-aware user behaviour modelling).

Yan et al., "MIM: Multi-modal Content Interest Modeling Paradigm for User Behavior Modeling", arXiv 2502.00321, 2025.
Behaviours are met twice: by ids, in DIN's unit, and by content, in an attention over adapted vectors with the
similarities themselves beside it. The vectors come from stages 1 and 2, which train encoders; here they are given.
The authors' offline tables and code could not be read; widths and the ten buckets are a reconstruction.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, FeatureSpec, Model, ModelConfig, Outputs, valid
from modules.layers.attend import attend
from modules.layers.behaviours import Behaviours, Pairs
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.fields import side_by_side
from modules.layers.mlp import MLP, linear
from modules.layers.target_attention import TargetAttention

EPSILON = 1e-12  # beside a squared norm
COSINES = 2  # their largest and their mean


@chz.chz
class MIM(ModelConfig):
    dim: int = chz.field(default=16, doc="embedding width of a field")
    embedding: Embedding = Embedding()
    pairs: Pairs = chz.field(
        default=(), doc="(history, target) features of ids; default: each history of ids with the item's of its table"
    )
    joint: bool = chz.field(
        default=True, doc="pairs of one history length form one behaviour (item, category, ...) with one attention"
    )
    content: tuple[str, str] = chz.field(
        default=("history_content", "content"), doc="(history, target) features with the vectors"
    )
    width: int = chz.field(default=32, doc="of the adapted vectors")
    buckets: int = chz.field(default=10, doc="ranges of the cosine in which behaviours are counted; 0: no similarities")
    attention: MLP = chz.field(
        default=MLP(widths=(80, 40), activation="dice"), doc="the activation unit of the id branch"
    )
    mlp: MLP = MLP(widths=(200, 80), activation="dice")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "MIMModel":
        return MIMModel(self, features=features, rngs=rngs)


class MIMModel(Model):
    def __init__(self, config: MIM, *, features: Features, rngs: nnx.Rngs):
        history, target = _vectors(config.content, features=features)
        fields = features.select(names=tuple(f.name for f in features if f.name not in config.content))
        self.embed = FeatureEmbedding(fields, dim=config.dim, options=config.embedding, rngs=rngs)
        self.behaviours = Behaviours(config.pairs, features=fields, embed=self.embed, joint=config.joint)
        self.content, self.buckets = config.content, config.buckets
        lengths = {group[0][0]: t for group, t in zip(self.behaviours.groups, self.behaviours.lengths, strict=True)}
        if unfit := [name for name, length in lengths.items() if length != history.max_len]:
            raise ValueError(
                f"{history.name!r} has {history.max_len} positions and {unfit[0]!r} has not: "
                "the vectors and the ids of one history must describe the same behaviours"
            )
        widths = self.behaviours.widths
        self.attention = nnx.List([TargetAttention(w, mlp=config.attention, rngs=rngs) for w in widths])
        self.adapter = linear(target.shape[-1], outputs=config.width, bias=False, rngs=rngs)
        by_ids = self.embed.width(*self.behaviours.others) + sum(widths)
        by_content = 2 * config.width + sum(widths) + (config.buckets + COSINES if config.buckets else 0)
        self.mlp = config.mlp.make(by_ids + by_content, outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        vectors = self.embed(batch)
        others = self.embed.pool_sequences({n: vectors[n] for n in self.behaviours.others}, batch=batch)
        parts, behaviours = list(others.values()), self.behaviours.read(vectors, batch=batch)
        for b, attention in zip(behaviours, self.attention, strict=True):
            parts.append(attention(b.history, target=b.target, mask=b.mask, rngs=rngs))
        past, candidate = (jax.lax.stop_gradient(batch[name]) for name in self.content)
        # An item without a vector has zeros, which are similar to nothing.
        mask = valid(batch, self.content[0]) & jnp.any(past != 0, axis=-1)
        keys, query = self.adapter(past), self.adapter(candidate)
        values = jnp.concatenate([keys, *(b.history for b in behaviours)], axis=-1)
        parts += [query, attend(query, keys=keys, values=values, mask=mask)]
        if self.buckets:
            parts.append(similarities(past, target=candidate, mask=mask, buckets=self.buckets))
        return {"logit": self.mlp(side_by_side(parts), rngs=rngs)[:, 0]}


def similarities(
    history: Float[Array, "u t d"], *, target: Float[Array, "b d"], mask: Bool[Array, "u t"], buckets: int
) -> Float[Array, "b n"]:
    """How many behaviours lie in each range of the cosine to the target, as log(1 + n), its maximum and its mean."""
    letters, history = ("bd,td->bt", history[0]) if history.shape[0] == 1 else ("bd,btd->bt", history)
    cosine = jnp.einsum(letters, _unit(target), _unit(history))
    place = jnp.clip(((cosine + 1) / 2 * buckets).astype(jnp.int32), 0, buckets - 1)
    here = (place[..., None] == jnp.arange(buckets)[None, None, :]) & mask[..., None]
    count = mask.sum(axis=1, keepdims=True)
    highest = jnp.where(mask, cosine, -1).max(axis=1, keepdims=True)
    highest = jnp.where(count > 0, highest, 0)
    average = jnp.where(mask, cosine, 0).sum(axis=1, keepdims=True) / jnp.maximum(count, 1)
    return jnp.concatenate([jnp.log1p(here.sum(axis=1).astype(jnp.float32)), highest, average], axis=-1)


def _unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + EPSILON)


def _vectors(names: tuple[str, str], *, features: Features) -> tuple[FeatureSpec, FeatureSpec]:
    if missing := [name for name in names if name not in features]:
        raise ValueError(
            f"MIM reads vectors from {names[0]!r} and {names[1]!r}, but the source has no {' and no '.join(missing)}; "
            "give it item vectors, of the history too (content=..., content_history=True)"
        )
    history, target = features[names[0]], features[names[1]]
    if history.kind != "sequence" or history.size or target.kind != "dense" or history.shape[-1:] != target.shape:
        raise ValueError(
            f"content={names} must be a sequence of vectors and one vector of the same width; "
            f"got {history.kind} {history.shape} and {target.kind} {target.shape}"
        )
    return history, target
