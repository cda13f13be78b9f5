"""Batches of what a model reads, for tests that then blank parts of them."""

import numpy as np

from data.features import Features


def filled(features: Features, *, rows: int, words: int) -> dict[str, np.ndarray]:
    """Pictures of noise and texts of `words` tokens out of the first twenty; the same at each call."""
    rng, made = np.random.default_rng(0), {}
    for name, (shape, dtype) in features.arrays().items():
        made[name] = rng.integers(2, 256 if dtype == np.uint8 else 20, (rows, *shape)).astype(dtype)
        if name.endswith("/length"):
            made[name][:] = words
    return made
