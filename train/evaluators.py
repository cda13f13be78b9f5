"""Evaluators: what is measured on which source, and how often.

`run(predict)` goes once through the source in order. `predict` maps a host batch to host arrays with one row per
example; rows that only pad the last batch are dropped before anything is counted. Values come out under the
metric's name, in a slice under "<slice>/<metric>"; the loop puts the evaluator's key in front.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import chz
import jax
import numpy as np

from data.errors import UserError
from data.features import FIRST
from data.pipeline import VALID, Loader
from data.sources import SourceConfig
from data.transforms.base import Transform
from train.metrics.base import Accumulator, Arrays, Curve, Metric, column
from train.metrics.ranks import NO_ITEM, Ranked, allow, keys_of, padded, positions, rank_blocks, rank_targets
from train.progress import RowsDone

CURVES = "curves"  # folder of a workdir
Predict = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Evaluation:
    """Named numbers; `reasons` says of a NaN why it is one; `curves` are plotted by the report."""

    values: dict[str, float]
    curves: dict[str, Curve] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    rows: int = 0

    def under(self, prefix: str) -> "Evaluation":
        """The same with every name as "<prefix>/<name>"."""
        return self.renamed(lambda name: f"{prefix}/{name}")

    def renamed(self, new: Callable[[str], str]) -> "Evaluation":
        return Evaluation(
            values={new(name): value for name, value in self.values.items()},
            curves={new(name): curve for name, curve in self.curves.items()},
            reasons={new(name): reason for name, reason in self.reasons.items()},
            rows=self.rows,
        )

    def plus(self, other: "Evaluation") -> "Evaluation":
        return Evaluation(
            values={**self.values, **other.values},
            curves={**self.curves, **other.curves},
            reasons={**self.reasons, **other.reasons},
            rows=self.rows,
        )


@chz.chz
class Slice:
    """The rows whose `feature` equals a value, or lies in [at_least, below)."""

    feature: str = chz.field(doc="array of the batch with one number per row")
    equals: float | None = None
    at_least: float | None = None
    below: float | None = None

    @chz.validate
    def _says_something(self):
        if self.equals is None and self.at_least is None and self.below is None:
            raise ValueError(f"a slice of {self.feature!r} needs equals, at_least or below")

    def rows(self, batch: Arrays) -> np.ndarray:
        value = column(batch, self.feature)
        if value.ndim != 1:
            raise UserError(f"a slice needs one value of {self.feature!r} per row, got shape {value.shape}")
        mask = np.ones(len(value), bool)
        for bound, kept in ((self.equals, np.equal), (self.at_least, np.greater_equal), (self.below, np.less)):
            mask &= True if bound is None else kept(value, bound)
        return mask


@chz.chz
class Evaluator:
    source: SourceConfig
    metrics: tuple[Metric, ...]
    batch_size: int = chz.field(default=1024, doc="global; the last batch is padded to it")
    every: int | None = chz.field(default=None, doc="steps between runs; None: only at the end of training")
    every_epochs: float | None = chz.field(default=None, doc="training passes between runs, in place of every")
    slices: Mapping[str, Slice] = chz.field(default_factory=dict, doc="further rows to measure, by the name they get")
    transforms: tuple[Transform, ...] = chz.field(default=(), doc="applied to each batch, as in training")

    def due(self, step: int, *, last: bool = False, epoch: float = math.inf) -> bool:
        """Whether to run after `step`, the first at or past the end of each pass of `epoch` steps, or the last."""
        if last or step <= 0:
            return last
        span = self.every or (self.every_epochs or math.inf) * epoch
        return step // span > (step - 1) // span

    @chz.validate
    def _one_cadence(self):
        if self.every_epochs is not None and (self.every is not None or self.every_epochs <= 0):
            raise ValueError("an evaluator takes either `every` steps or a positive number of `every_epochs`")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        raise NotImplementedError(f"{type(self).__name__} does not define run")

    def rows(
        self, source: SourceConfig, predict: Predict, *, progress: RowsDone | None = None
    ) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Batches and their predictions, padding rows dropped."""
        opened = source.make()
        done, total = 0, len(opened)
        if not total:
            raise UserError(f"{type(source).__name__} has no rows to evaluate: check its path, split and filters")
        for batch in Loader(batch_size=self.batch_size, transforms=self.transforms).once(opened):
            keep = column(batch, VALID).astype(bool)
            predictions = {name: np.asarray(value) for name, value in predict(batch).items()}
            odd = [name for name, value in predictions.items() if value.ndim and len(value) != len(keep)]
            if odd:
                raise UserError(f"predict must give one row per example, {', '.join(odd)} has other lengths")
            yield _take(batch, keep), _take(predictions, keep)
            done += int(keep.sum())
            if progress is not None:
                progress(done, total)


def _take(arrays: Arrays, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of `mask`; scalars stay."""
    return {name: value[mask] if np.ndim(value) else value for name, value in arrays.items()}


class Tally:
    """The accumulators of all rows and of each slice."""

    def __init__(self, metrics: tuple[Metric, ...], *, slices: Mapping[str, Slice]):
        self.slices = slices
        self.parts: dict[str, list[Accumulator]] = {n: [m.make() for m in metrics] for n in ("", *slices)}
        self.rows = 0

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        """Every array has one row per example, or is a scalar."""
        self.rows += len(batch[VALID])
        for name, accumulators in self.parts.items():
            p, b = predictions, batch
            if name:
                mask = self.slices[name].rows(batch)
                p, b = _take(predictions, mask), _take(batch, mask)
            for accumulator in accumulators:
                accumulator.update(p, b)

    def evaluation(self) -> Evaluation:
        total = Evaluation(values={}, rows=self.rows)
        for name, accumulators in self.parts.items():
            for a in accumulators:
                values = a.compute()
                twice = [n for n in values if (f"{name}/{n}" if name else n) in total.values]
                if twice:
                    raise UserError(f"two metrics are named {twice[0]!r}: give one of them another `name`")
                one = Evaluation(values=values, curves=a.curves(), reasons=a.reasons())
                total = total.plus(one.under(name) if name else one)
        return total


@chz.chz
class Evaluate(Evaluator):
    """Point metrics over every row of a source."""

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        tally = Tally(self.metrics, slices=self.slices)
        for batch, predictions in self.rows(self.source, predict, progress=progress):
            tally.update(predictions, batch)
        return tally.evaluation()


class RankTally:
    """Ranking metrics with ties against the target, and beside them with ties counted half if over 1 % tie."""

    def __init__(self, evaluator: "Evaluator", *, suffix: str = ""):
        self.strict = Tally(evaluator.metrics, slices=evaluator.slices)
        self.half = Tally(evaluator.metrics, slices=evaluator.slices)
        self.suffix = suffix
        self.tied = self.targets = 0

    def update(self, ranked: Ranked, batch: Arrays, *, catalogue: int, more: Arrays | None = None) -> None:
        """`more`: what else the metrics may read of each row's list."""
        shared = {"top": ranked.top, "catalogue": np.asarray(catalogue), **(more or {})}
        self.strict.update({"rank": ranked.rank, **shared}, batch)
        self.half.update({"rank": ranked.rank - 0.5 * ranked.ties, **shared}, batch)
        self.tied += int((ranked.ties > 0).sum())
        self.targets += int((ranked.rank > 0).sum())

    def evaluation(self) -> Evaluation:
        total = self.strict.evaluation()
        ties = self.tied / self.targets if self.targets else 0.0
        if ties > 0.01:
            half = self.half.evaluation()
            total = total.plus(Evaluation(values=half.values, reasons=half.reasons).under("half_ties"))
        return total.renamed(lambda name: name + self.suffix).plus(Evaluation(values={"ties": ties}))


@chz.chz
class RankItems(Evaluator):
    """Next item: ranks each row's targets among all items by predictions["scores"] [b, V].

    Ids 0 and 1 are never candidates. With `history`, neither are the ids of that array, but for the targets
    themselves: an item bought again can still be found, and `targets_in_history` says how often that is so.
    """

    target: str = chz.field(default="target", doc="array of the batch with one id or a list (with /length) per row")
    history: str | None = chz.field(default=None, doc="array of ids to mask, such as the input sequence; None: no mask")
    candidates: str | None = chz.field(
        default=None, doc="array of stored negative ids [b, N] to rank among instead; names then end in /sampledN"
    )

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        tally: RankTally | None = None
        repeated = targets_seen = 0
        for batch, predictions in self.rows(self.source, predict, progress=progress):
            scores = column(predictions, "scores", what="predictions")
            targets = padded(batch, self.target)
            targets = np.where(targets >= FIRST, targets, NO_ITEM)
            only = None if self.candidates is None else padded(batch, self.candidates)
            forbidden = np.broadcast_to(np.arange(FIRST), (len(scores), FIRST))
            if self.history is not None:
                history = padded(batch, self.history)
                repeated += int(((targets[:, :, None] == history[:, None, :]).any(axis=2) & (targets >= 0)).sum())
                forbidden = np.concatenate((forbidden, history), axis=1)
            targets_seen += int((targets >= 0).sum())
            if tally is None:
                tally = RankTally(self, suffix="" if only is None else f"/sampled{only.shape[1]}")
            allowed = allow(scores.shape, forbidden=forbidden, only=only)
            ranked = rank_targets(scores, targets=targets, allowed=allowed, k=depth(self.metrics))
            tally.update(ranked, batch, catalogue=scores.shape[1] - FIRST)
        found = tally.evaluation() if tally is not None else Evaluation(values={})
        if self.history is None:
            return found
        return found.plus(Evaluation(values={"targets_in_history": repeated / max(targets_seen, 1)}))


def depth(metrics: tuple[Metric, ...]) -> int:
    """How many of the best candidates some metric looks at."""
    return max((max(getattr(metric, "ks", ()), default=1) for metric in metrics), default=1)


@chz.chz
class Retrieve(Evaluator):
    """Two towers: for each query vector, ranks the vectors of a corpus by dot product, exactly and blockwise.

    `source` gives predictions["query"] and `corpus` predictions["item"]; without a corpus the items come from the
    source itself, as for image-text pairs. The first row of equal keys stands for the item. A target that the
    corpus lacks counts as ranked last (`targets_missing` is their share). `reverse` also ranks the queries for each
    item that some query aims at, all rows, as "reverse/<metric>".
    """

    corpus: SourceConfig | None = chz.field(default=None, doc="items; None: the items of the source's own rows")
    target: str = chz.field(default="item", doc="array of the query batch: key of the item sought, or a list of them")
    key: str = chz.field(default="item", doc="array of the corpus batch that identifies the item")
    history: str | None = chz.field(default=None, doc="array of the query batch with keys that must not be shown")
    reverse: bool = chz.field(default=False, doc="also from items to queries")

    def run(self, predict: Predict, *, progress: RowsDone | None = None) -> Evaluation:
        kept = {VALID, self.target, *(s.feature for s in self.slices.values())}
        kept |= {f"{self.target}/length"} | ({self.history, f"{self.history}/length"} if self.history else set())
        batches, queries, items, keys = [], [], [], []
        for batch, predictions in self.rows(self.source, predict, progress=progress):
            batches.append({name: value for name, value in batch.items() if name in kept})
            queries.append(column(predictions, "query", what="predictions"))
            if self.corpus is None:
                items.append(column(predictions, "item", what="predictions"))
                keys.append(column(batch, self.key))
        if self.corpus is not None:
            for batch, predictions in self.rows(self.corpus, predict, progress=progress):
                items.append(column(predictions, "item", what="predictions"))
                keys.append(column(batch, self.key))
        batch = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        return self._rank(batch, np.concatenate(queries), np.concatenate(items), np.concatenate(keys))

    def _rank(self, batch: Arrays, queries: np.ndarray, items: np.ndarray, keys: np.ndarray) -> Evaluation:
        key, first = np.unique(keys, return_index=True)
        return self._measure(batch, queries, items[first], key)

    def _measure(self, batch: Arrays, queries: np.ndarray, items: np.ndarray, key: np.ndarray) -> Evaluation:
        ids = padded(batch, self.target)
        wanted = positions(ids, key)
        if not (wanted >= 0).any():
            raise UserError(
                f"no {self.target!r} of the queries is a {self.key!r} of the corpus: do both use the same ids?"
            )
        forbidden = None if self.history is None else positions(padded(batch, self.history), key)
        tally = RankTally(self)
        for rows, ranked in rank_blocks(queries, items, wanted, forbidden=forbidden, k=depth(self.metrics)):
            missing = (ids[rows] >= 0) & (wanted[rows] < 0)
            ranked = Ranked(
                rank=np.where(missing, len(items) + 1, ranked.rank), ties=ranked.ties, top=keys_of(ranked.top, key)
            )
            tally.update(ranked, {name: value[rows] for name, value in batch.items()}, catalogue=len(items))
        share = ((ids >= 0) & (wanted < 0)).sum() / max((ids >= 0).sum(), 1)
        found = tally.evaluation().plus(Evaluation(values={"targets_missing": float(share)}))
        return found.plus(self._reversed(queries, items, wanted).under("reverse")) if self.reverse else found

    def _reversed(self, queries: np.ndarray, items: np.ndarray, wanted: np.ndarray) -> Evaluation:
        row, column_of = np.nonzero(wanted >= 0)
        item = wanted[row, column_of]
        order = np.argsort(item, kind="stable")
        sought, start, count = np.unique(item[order], return_index=True, return_counts=True)
        targets = np.full((len(sought), count.max()), NO_ITEM)
        place = np.arange(len(order)) - np.repeat(start, count)
        targets[np.repeat(np.arange(len(sought)), count), place] = row[order]
        tally = RankTally(chz.replace(self, slices={}))
        blocks = rank_blocks(items[sought], queries, targets, forbidden=None, k=depth(self.metrics))
        for _, ranked in blocks:
            tally.update(ranked, {VALID: np.ones(len(ranked.rank), bool)}, catalogue=len(queries))
        return tally.evaluation()


def save_curves(workdir: Path, *, name: str, curves: Mapping[str, Curve]) -> None:
    """Keeps the newest curves of evaluator `name` for the report, as <workdir>/curves/<name>.json."""
    if not curves or jax.process_index() != 0:
        return
    path = Path(workdir) / CURVES / f"{name.replace('/', '.')}.json"
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"name": name, "curves": curves}))
    part.replace(path)
