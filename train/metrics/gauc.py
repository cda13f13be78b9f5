"""AUC inside groups, so that what is constant in a group (a user's activity) earns nothing."""

import chz
import numpy as np

from train.metrics.base import Accumulator, Arrays, PointMetric, column, point_rows


@chz.chz
class GAUC(PointMetric):
    """Sum of n_g AUC_g over sum of n_g, over the groups that hold both labels; n_g counts rows."""

    group: str = chz.field(doc="array of the batch that names the group (user, session, request)")
    name: str = "gauc"

    def make(self) -> "GAUCAccumulator":
        return GAUCAccumulator(self)


class GAUCAccumulator(Accumulator):
    """Keeps group, score, label and weight of every row: a group may come back in any later batch."""

    def __init__(self, config: GAUC):
        self.config = config
        self._parts: list[tuple[np.ndarray, ...]] = []

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        score, label, weight = point_rows(self.config, predictions, batch)
        group = column(batch, self.config.group)
        if self.config.where is not None:
            group = group[column(batch, self.config.where) != 0]
        self._parts.append((group, score, label, weight))

    def merge(self, other: "GAUCAccumulator") -> None:
        self._parts.extend(other._parts)

    def compute(self) -> dict[str, float]:
        names = [self.config.name + end for end in ("", "/unweighted", "/groups", "/excluded_groups", "/excluded_rows")]
        if not self._parts:
            return dict(zip(names, (float("nan"), float("nan"), 0.0, 0.0, 0.0), strict=True))
        group, score, label, weight = (np.concatenate(c) for c in zip(*self._parts, strict=True))
        auc, rows = group_auc(group, score=score, label=label, weight=weight)
        both = ~np.isnan(auc)
        if both.any():
            mean, plain = (auc[both] * rows[both]).sum() / rows[both].sum(), auc[both].mean()
        else:
            mean = plain = float("nan")
        counts = both.sum(), (~both).sum(), rows[~both].sum()
        return {name: float(value) for name, value in zip(names, (mean, plain, *counts), strict=True)}

    def reasons(self) -> dict[str, str]:
        values = self.compute()
        return {n: "no group holds both labels" for n, value in values.items() if np.isnan(value)}


def group_auc(
    group: np.ndarray, *, score: np.ndarray, label: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUC of each group (NaN where one label is missing) and its weight of rows, by ascending group."""
    if not len(group):
        return np.zeros(0), np.zeros(0)
    order = np.lexsort((score, group))
    group, score = group[order], score[order]
    positive, negative = (weight * label)[order], (weight * (1 - label))[order]
    new_group = np.concatenate(([True], group[1:] != group[:-1]))
    ties = np.flatnonzero(new_group | np.concatenate(([True], score[1:] != score[:-1])))
    # From rows to runs of equal score, and from runs to groups.
    positive, negative = np.add.reduceat(positive, ties), np.add.reduceat(negative, ties)
    starts = np.flatnonzero(new_group[ties])
    total_positive, total_negative = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    before = np.cumsum(negative) - negative
    below = before - np.repeat(before[starts], np.diff(np.append(starts, len(ties))))
    wins = np.add.reduceat(positive * (below + 0.5 * negative), starts)
    pairs = total_positive * total_negative
    auc = np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return auc, total_positive + total_negative
