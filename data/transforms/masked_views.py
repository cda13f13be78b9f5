"""Items in two views of which each lacks what the other shows: for towers that also learn from no click at all.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021. Which fields are masked together
is drawn for each batch; all that is random is drawn here, so that the model stays a function of its batch.
"""

from typing import Literal

import chz
import numpy as np

from data.errors import UserError
from data.features import Feature, Features
from data.information import mutual_information
from data.sources import Rows, Source, SourceConfig
from data.transforms.base import Bound, Transform
from data.transforms.history import Ids

VIEWS = ("view_a", "view_b")
KEY = "view/key"
Masking = Literal["correlated", "random", "none"]


@chz.chz
class MaskedViews(Transform):
    """Adds an item to each row: "<view>/<field>" (with /length), and "<view>/<field>/masked", 1 where a view lacks it.

    "correlated" masks a field drawn uniformly together with those that say most of it (the paper's CFM); "random" any
    half (RFM); the other view lacks the other fields. "none" leaves both whole: there is then nothing to learn but that
    items spread out.
    """

    items: SourceConfig = chz.field(doc="the corpus")
    masking: Masking = "correlated"
    companions: int | None = chz.field(
        default=None, doc="fields masked with the one drawn; None: half of all. Each view keeps one at least"
    )
    fields: tuple[str, ...] = chz.field(default=(), doc="features of the corpus; default: all of the item but pictures")
    drop: float = chz.field(default=0.1, doc="share of the values of multi-valued fields that each view also lacks")
    drawn: Literal["corpus", "log"] = chz.field(
        default="corpus", doc="items uniformly from the corpus, as the paper has it; log: as often as training has them"
    )
    key: str = chz.field(default="item", doc="feature that tells items apart: one drawn twice is no other item")

    @chz.validate
    def _check(self) -> None:
        if not 0 <= self.drop < 1 or (self.companions is not None and self.companions < 0):
            raise ValueError("drop is a share from 0 to below 1, companions are 0 or more")

    def features(self, features: Features) -> Features:
        return features.plus(*declared(self.chosen(self.items.make().features)), Ids(name=KEY))

    def bind(self, source: Source) -> Bound:
        items = self.items.make()
        fields = self.chosen(items.features)
        related = mutual_information(items, fields=tuple(f.name for f in fields))
        return _MaskedViews(self, items if self.drawn == "corpus" else source, fields=fields, related=related)

    def chosen(self, features: Features) -> list[Feature]:
        fields = list(features.select(roles=("item",), names=self.fields))
        fields = fields if self.fields else [f for f in fields if f.kind != "image"]
        if len(fields) < 2:
            raise UserError(f"MaskedViews divides the fields of an item, but {type(self.items).__name__} has no two")
        return fields


def declared(fields: list[Feature]) -> list[Ids]:
    """As labels: no tower is to read them as features of the row."""
    found: list[Ids] = []
    for view in VIEWS:
        for f in fields:
            for name, (shape, dtype) in f.arrays().items():
                length, width = (*shape, None, None)[:2]
                kind: Literal["class", "real"] = "class" if np.issubdtype(dtype, np.integer) else "real"
                found.append(Ids(name=f"{view}/{name}", length=length, width=width, type=kind))
            found.append(Ids(name=f"{view}/{f.name}/masked", type="binary"))
    return found


class _MaskedViews:
    def __init__(self, config: MaskedViews, items: Source, *, fields: list[Feature], related: np.ndarray):
        self.config, self.items, self.fields, self.related = config, items, fields, related

    def __call__(self, batch: Rows, *, rng: np.random.Generator) -> Rows:
        rows = len(next(iter(batch.values())))
        drawn = self.items.take(rng.integers(0, len(self.items), size=rows))
        lacks = self._masked(rng)
        views: Rows = {KEY: drawn[self.config.key].astype(np.int32)}
        for view, masked in zip(VIEWS, lacks, strict=True):
            for f, gone in zip(self.fields, masked, strict=True):
                for name, values in self._dropped(f, drawn, rng=rng).items():
                    views[f"{view}/{name}"] = values
                views[f"{view}/{f.name}/masked"] = np.full(rows, gone, np.float32)
        return {**batch, **views}

    def _masked(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Which fields each view lacks."""
        count = len(self.fields)
        if self.config.masking == "none":
            return np.zeros(count, bool), np.zeros(count, bool)
        if self.config.masking == "random":
            lots = np.array([rng.random() for _ in range(count)])
            first = np.argsort(lots)[: count // 2]
        else:
            first = together(self.related, seed=int(rng.integers(0, count)), companions=self.config.companions)
        one = np.isin(np.arange(count), first)
        return one, ~one

    def _dropped(self, f: Feature, drawn: Rows, *, rng: np.random.Generator) -> Rows:
        """The arrays of a field; of several values some are left out, never all."""
        arrays = {name: drawn[name] for name in f.arrays()}
        if f.kind not in ("multihot", "text") or not self.config.drop:
            return arrays
        values, length = arrays[f.name], arrays[f"{f.name}/length"]
        there = np.arange(values.shape[1]) < length[:, None]
        lots = np.where(there, rng.random(values.shape[:2]), -1.0)
        keep = there & ((lots >= self.config.drop) | (lots == lots.max(axis=1, keepdims=True)))
        order = np.argsort(~keep, axis=1, kind="stable")
        kept = np.take_along_axis(values * keep, order, axis=1)
        return {f.name: kept, f"{f.name}/length": keep.sum(axis=1).astype(length.dtype)}


def together(related: np.ndarray, *, seed: int, companions: int | None) -> np.ndarray:
    """The field `seed` and those most related to it, the earlier among equals."""
    count = len(related)
    companions = -(-count // 2) if companions is None else companions
    others = np.where(np.arange(count) == seed, -np.inf, related[seed])
    return np.append(seed, np.argsort(-others, kind="stable")[: min(companions, count - 2)])
