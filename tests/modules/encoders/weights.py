"""Random weights that a fixture need not hold: each tensor follows from its name and shape alone."""

import zlib

import numpy as np


def tensor(name: str, *, shape: tuple[int, ...]) -> np.ndarray:
    """Near 1 where a norm scales, above it where a variance is held, else near 0."""
    # RandomState's stream is frozen, a Generator's is not.
    drawn = np.asarray(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape))
    if name.endswith("running_var"):
        return (1 + np.abs(drawn)).astype(np.float32)
    fan = shape[1:] if len(shape) > 1 else (16,)
    scales = len(shape) == 1 and name.endswith(".weight")
    return np.asarray(drawn / np.sqrt(np.prod(fan)) + scales, np.float32)
