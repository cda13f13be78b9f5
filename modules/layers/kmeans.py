"""Clusters of directions, in numpy: of items that several interests are read from, of users that share an intent."""

import numpy as np
from jaxtyping import Float, Int


def spherical_kmeans(
    x: Float[np.ndarray, "n d"], *, clusters: int, iterations: int = 25, seed: int = 0
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "c d"]]:
    """Cluster of each row and the centres, on the unit sphere (Dhillon and Modha, Machine Learning 2001).

    It starts as k-means++ does, and a cluster that loses all rows starts anew at the row furthest from its centre.
    """
    x = unit(x)
    if not 0 < clusters <= len(x):
        raise ValueError(f"{len(x)} vectors do not make {clusters} clusters")
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(x)))]
    far = 1 - x @ x[chosen[0]]
    for _ in range(1, clusters):
        weight = np.maximum(far, 0)
        weight[chosen] = 0
        total = weight.sum()
        # Rows that all lie on chosen ones: any other will do.
        others = np.setdiff1d(np.arange(len(x)), chosen)
        chosen.append(int(rng.choice(len(x), p=weight / total)) if total > 0 else int(others[0]))
        far = np.minimum(far, 1 - x @ x[chosen[-1]])
    centres = x[chosen]
    label = np.full(len(x), -1)
    for _ in range(iterations):
        cosine = x @ centres.T
        found = cosine.argmax(axis=1)
        for c in np.flatnonzero(np.bincount(found, minlength=clusters) == 0):
            own = cosine[np.arange(len(x)), found]
            # Not the last row of another cluster, which would only move the hole.
            own = np.where(np.bincount(found, minlength=clusters)[found] > 1, own, np.inf)
            found[own.argmin()] = c
        if (found == label).all():
            break
        label = found
        sums = np.zeros_like(centres)
        np.add.at(sums, label, x)
        centres = unit(sums)
    return label, centres


def unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
