"""DIN: Deep Interest Network.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018. Equation 3 (local activation unit:
the user vector depends on the candidate), section 5.2 (Dice), figure 2.
"""

import chz
import jax
import jax.numpy as jnp
from flax import nnx

from modules.base import Batch, Features, Model, ModelConfig, Outputs, valid
from modules.layers.embedding import Embedding, FeatureEmbedding
from modules.layers.mlp import MLP
from modules.layers.target_attention import TargetAttention

Pairs = tuple[tuple[str, str], ...]


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
    mlp: MLP = MLP(widths=(200, 80), activation="dice")

    def make(self, features: Features, *, rngs: nnx.Rngs) -> "DINModel":
        return DINModel(self, features=features, rngs=rngs)


class DINModel(Model):
    def __init__(self, config: DIN, *, features: Features, rngs: nnx.Rngs):
        pairs = config.pairs or default_pairs(features)
        check_pairs(pairs, features=features)
        self.behaviours = group_pairs(pairs, features=features) if config.joint else tuple((p,) for p in pairs)
        self.product = config.product
        self.embed = FeatureEmbedding(features, dim=config.dim, options=config.embedding, rngs=rngs)
        histories = {history for history, _ in pairs}
        self.others = tuple(n for n in self.embed.names if n not in histories)
        widths = [self.embed.width(*(target for _, target in b)) for b in self.behaviours]
        self.attention = nnx.List(
            [TargetAttention(w, mlp=config.attention, softmax=config.softmax, rngs=rngs) for w in widths]
        )
        inputs = self.embed.width(*self.others) + sum(widths) * (2 if config.product else 1)
        self.mlp = config.mlp.make(inputs, outputs=1, rngs=rngs)

    def __call__(self, batch: Batch, *, rngs: nnx.Rngs | None = None) -> Outputs:
        vectors = self.embed(batch)
        others = self.embed.pool_sequences({n: vectors[n] for n in self.others}, batch=batch)
        parts = list(others.values())
        for behaviour, attention in zip(self.behaviours, self.attention, strict=True):
            target = jnp.concatenate([vectors[t] for _, t in behaviour], axis=-1)
            interest = attention(
                jnp.concatenate([vectors[h] for h, _ in behaviour], axis=-1),
                target=target,
                mask=_filled(batch, [h for h, _ in behaviour]),
                rngs=rngs,
            )
            parts += [interest, interest * target] if self.product else [interest]
        return {"logit": self.mlp(jnp.concatenate(parts, axis=-1), rngs=rngs)[:, 0]}


def default_pairs(features: Features) -> Pairs:
    """Each history with the item's own feature of the same table."""
    targets = {f.table: f.name for f in features.select(kinds=("categorical", "dense"), roles=("item",))}
    pairs = tuple((f.name, targets[f.table]) for f in features.select(kinds=("sequence",)) if f.table in targets)
    if not pairs:
        histories = [f.name for f in features.select(kinds=("sequence",))]
        raise ValueError(
            f"no history shares its table with a feature of the item (histories: {', '.join(histories) or 'none'}); "
            "declare the history's `of` with share=<the item's table>, or name the pairs"
        )
    return pairs


def check_pairs(pairs: Pairs, *, features: Features) -> None:
    for history, target in pairs:
        h, t = features[history], features[target]
        if h.kind != "sequence":
            raise ValueError(f"pair ({history!r}, {target!r}): {history!r} is {h.kind}, not a sequence")
        if t.max_len or t.table != h.table:
            raise ValueError(
                f"pair ({history!r}, {target!r}): the target must be one value of the history's table {h.table!r}; "
                f"{target!r} is {t.kind} of table {t.table!r}"
            )


def group_pairs(pairs: Pairs, *, features: Features) -> tuple[Pairs, ...]:
    """Pairs of one length, in one group each target once: two histories of the same target are two behaviours."""
    groups: list[list[tuple[str, str]]] = []
    for history, target in pairs:
        for group in groups:
            same_length = features[group[0][0]].max_len == features[history].max_len
            if same_length and target not in {t for _, t in group}:
                group.append((history, target))
                break
        else:
            groups.append([(history, target)])
    return tuple(tuple(g) for g in groups)


def _filled(batch: Batch, names: list[str]) -> jax.Array:
    """Positions that any of these histories holds."""
    return jnp.stack([valid(batch, n) for n in names]).any(axis=0)
