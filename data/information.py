"""How much two fields of a corpus say of each other: mutual information, counted once.

I(A, B) = Σ P(a, b) log(P(a, b) / (P(a) P(b))), in nats. A field of several values counts each with its share of the
row. Numbers are counted by quantiles; vectors have no values to count, and nothing is known of what they say: 0.
"""

import numpy as np

from data.features import Feature
from data.sources import Source

MOST = 100_000
"""Rows that are counted, evenly spread over more."""
BINS = 16


def mutual_information(source: Source, *, fields: tuple[str, ...]) -> np.ndarray:
    """[f, f]; on the diagonal the entropy of each field."""
    rows = source.take(np.unique(np.linspace(0, len(source) - 1, min(len(source), MOST)).astype(np.int64)))
    values = [_values(source.features[name], rows) for name in fields]
    out = np.zeros((len(fields), len(fields)))
    for i, a in enumerate(values):
        for j, b in enumerate(values[: i + 1]):
            out[i, j] = out[j, i] = 0.0 if a is None or b is None else information(a, b)
    return out


def information(a: np.ndarray, b: np.ndarray) -> float:
    """Of two fields as [n, values] of whole numbers from 0, -1 where there is no value."""
    there = (a[:, :, None] >= 0) & (b[:, None, :] >= 0)
    if a is b and a.shape[1] > 1:
        there &= np.eye(a.shape[1], dtype=bool)[None]  # a value says nothing but itself
    share = there / np.maximum(there.sum(axis=(1, 2), keepdims=True), 1)
    row, i, j = np.nonzero(there)
    pair = a[row, i].astype(np.int64) * (int(b.max(initial=0)) + 1) + b[row, j]
    _, first, at = np.unique(pair, return_index=True, return_inverse=True)
    weight = share[row, i, j]
    if not len(weight):
        return 0.0
    total = weight.sum()
    joint = np.bincount(at, weights=weight) / total
    of_a = np.bincount(a[row, i], weights=weight)[a[row, i][first]] / total
    of_b = np.bincount(b[row, j], weights=weight)[b[row, j][first]] / total
    return float((joint * np.log(joint / (of_a * of_b))).sum())


def _values(feature: Feature, rows) -> np.ndarray | None:
    x = np.asarray(rows[feature.name])
    if feature.size:
        if not feature.max_len:
            return x[:, None].astype(np.int64)
        return np.where(np.arange(x.shape[1]) < rows[f"{feature.name}/length"][:, None], x, -1).astype(np.int64)
    if x.ndim == 1:
        cuts = np.unique(np.quantile(x, np.linspace(0, 1, BINS + 1)[1:-1]))
        return np.searchsorted(cuts, x, side="right")[:, None]
    return None
