"""Random streams by name: a generator is a pure function of (seed, stream name, shard), never of call order."""

import hashlib

import numpy as np


def stream(seed: int, *, name: str, shard: int = 0) -> np.random.Generator:
    """Philox is counter-based, so streams with distinct keys never meet and adding one changes no other."""
    digest = hashlib.blake2b(f"{seed}/{name}/{shard}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return -np.log(rng.exponential(size=shape) + 1e-12)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def choose(weights: np.ndarray, *, uniform: np.ndarray) -> np.ndarray:
    """Index along the last axis drawn with probability proportional to `weights`, by inverse distribution.

    One weight vector serves all draws; a matrix of weights has a row for each.
    """
    total = np.cumsum(weights, axis=-1)
    if weights.ndim == 1:
        return np.minimum(np.searchsorted(total, uniform * total[-1], side="right"), len(weights) - 1)
    return np.minimum((uniform[..., None] * total[..., -1:] >= total).sum(-1), weights.shape[-1] - 1)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seed: int, *, name: str, ids: np.ndarray, draws: int) -> np.ndarray:
    """[n, draws] in [0, 1): each row a function of (seed, name, id) alone, so views render in any order."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    row = _mix(np.asarray(ids).astype(np.uint64) + np.uint64(int.from_bytes(digest, "little")))
    step = np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (_mix(row[:, None] + step[None, :]) >> np.uint64(11)) * 2.0**-53


def normals(seed: int, *, name: str, ids: np.ndarray, draws: int) -> np.ndarray:
    """As `uniforms`, by Box and Muller."""
    u = uniforms(seed, name=name, ids=ids, draws=2 * draws)
    return np.sqrt(-2.0 * np.log1p(-u[:, :draws])) * np.cos(2.0 * np.pi * u[:, draws:])
