"""Where vectors lie on the sphere: alignment and uniformity (Wang and Isola, ICML 2020), and how far domains stand
apart (Liang et al., NeurIPS 2022)."""

import numpy as np

MOST = 4096
"""Rows whose distances to one another are all taken; of more, as many evenly spread."""


def alignment(x: np.ndarray, y: np.ndarray) -> float:
    """Mean of |x - y|^2 over pairs of what shows one thing; 0 is best."""
    return float(np.square(x.astype(np.float64) - y).sum(axis=1).mean())


def uniformity(x: np.ndarray) -> float:
    """log of the mean of exp(-2 |x - x'|^2) over rows that differ; the lower, the more evenly spread."""
    if len(x) > MOST:
        x = x[np.linspace(0, len(x) - 1, MOST).astype(int)]
    if len(x) < 2:
        return float("nan")
    x = x.astype(np.float64)
    square = np.square(x).sum(axis=1)
    distance = np.maximum(square[:, None] + square[None] - 2 * (x @ x.T), 0)
    apart = ~np.eye(len(x), dtype=bool)
    return float(np.log(np.exp(-2 * distance[apart]).mean()))


def centre_gap(x: np.ndarray, y: np.ndarray) -> float:
    """Distance between the means of two domains: the modality gap."""
    return float(np.linalg.norm(x.astype(np.float64).mean(axis=0) - y.astype(np.float64).mean(axis=0)))
