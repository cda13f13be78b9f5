"""What a metric is: a config whose accumulator streams over batches, merges with another and is exact at the end.

Accumulators hold numpy arrays, count in float64 and see host batches without padding rows.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import chz
import numpy as np

from data.errors import UserError

Arrays = Mapping[str, np.ndarray]
Curve = dict[str, object]
"""{"kind": "roc" | "pr" | "reliability" | "bars", "x": [...], "y": [...], "count": [...] where it applies}"""


class Accumulator:
    """Sums of one metric over what it has seen. A value that does not exist is NaN and has a reason."""

    def update(self, predictions: Arrays, batch: Arrays) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not define update")

    def merge(self, other: Any) -> None:
        """Takes in what `other`, of the same config, has seen; `other` stays as it was."""
        raise NotImplementedError(f"{type(self).__name__} does not define merge")

    def compute(self) -> dict[str, float]:
        raise NotImplementedError(f"{type(self).__name__} does not define compute")

    def curves(self) -> dict[str, Curve]:
        return {}

    def reasons(self) -> dict[str, str]:
        """Why a value of `compute` is NaN, by its name."""
        return {}


@chz.chz
class Metric:
    """Describes a metric; `make` starts an accumulator."""

    def make(self) -> Accumulator:
        raise NotImplementedError(f"{type(self).__name__} does not define make")


@chz.chz
class PointMetric(Metric):
    """A metric of one score and one label per row."""

    label: str = chz.field(default="click", doc="array of the batch to compare with")
    score: str = chz.field(default="score", doc="array of the predictions")
    weight: str | None = chz.field(default=None, doc="array of the batch that weighs the rows; None: all weigh 1")
    where: str | None = chz.field(default=None, doc="array of the batch; only rows where it is not 0 count")


def column(arrays: Arrays, name: str, *, what: str = "batch") -> np.ndarray:
    """The array `name`, or an error that names what there is."""
    if name in arrays:
        return np.asarray(arrays[name])
    near = get_close_matches(name, list(arrays), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(arrays))}"
    raise UserError(f"a metric needs {name!r}, which the {what} lacks; {hint}")


def point_rows(
    config: PointMetric, predictions: Arrays, batch: Arrays, *, binary: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (in their own dtype), labels and weights (float64) of the rows that count."""
    score = column(predictions, config.score, what="predictions")
    label = column(batch, config.label)
    if score.ndim != 1 or label.shape != score.shape:
        raise UserError(
            f"{type(config).__name__} needs one {config.score!r} and one {config.label!r} per row, "
            f"got shapes {score.shape} and {label.shape}"
        )
    weight = np.ones(len(score)) if config.weight is None else column(batch, config.weight).astype(np.float64)
    if config.where is not None:
        keep = column(batch, config.where) != 0
        score, label, weight = score[keep], label[keep], weight[keep]
    score = score if score.dtype in (np.float32, np.float64) else score.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(score))
    if len(bad):
        raise UserError(f"{len(bad)} of {len(score)} values of {config.score!r} are not finite, first in row {bad[0]}")
    label = label.astype(np.float64)
    odd = label[(label != 0) & (label != 1)] if binary else label[:0]
    if len(odd):
        raise UserError(f"{type(config).__name__} needs labels 0 and 1, {config.label!r} holds {odd[0]:g}")
    return score, label, weight
