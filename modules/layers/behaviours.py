"""Past behaviours beside the candidate they are compared with: what every click tower with history starts from."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from modules.base import Batch, Features, valid
from modules.layers.embedding import FeatureEmbedding
from modules.layers.fields import side_by_side

Pairs = tuple[tuple[str, str], ...]
"""(history, target) features."""


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """One list of past behaviours; each is described by several features side by side (item, category, ...).

    In a request the history has a leading dimension of 1 and the target one row per candidate.
    """

    history: Float[Array, "u t d"]
    target: Float[Array, "b d"]
    mask: Bool[Array, "u t"]


class Behaviours:
    """Which features are histories, what each is compared with, and which are neither."""

    def __init__(self, pairs: Pairs, *, features: Features, embed: FeatureEmbedding, joint: bool = True):
        pairs = pairs or default_pairs(features)
        check_pairs(pairs, features=features)
        self.groups = group_pairs(pairs, features=features) if joint else tuple((p,) for p in pairs)
        histories = {history for history, _ in pairs}
        self.others = tuple(n for n in embed.names if n not in histories)
        """Every feature that is not compared: the targets themselves, the user, the context."""
        self.widths = tuple(embed.width(*(target for _, target in g)) for g in self.groups)
        self.lengths = tuple(features[g[0][0]].max_len for g in self.groups)

    def read(self, vectors: Mapping[str, jax.Array], *, batch: Batch) -> list[Behaviour]:
        """From what the embedding returned; one entry per group, of its width."""
        return [
            Behaviour(
                history=jnp.concatenate([vectors[h] for h, _ in group], axis=-1),
                target=side_by_side([vectors[t] for _, t in group]),
                mask=jnp.stack([valid(batch, h) for h, _ in group]).any(axis=0),
            )
            for group in self.groups
        ]


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
