"""What gets shown and seen: the logging policy with its propensities, position and trust bias."""

import chz
import numpy as np

from data.mall.rng import choose


@chz.chz
class Exposure:
    """Knobs of the bias in the log. position=0, trust=0, explore=1 gives an unbiased log."""

    candidates: int = chz.field(default=16, doc="items the policy chooses a slate from")
    position: float = chz.field(default=0.7, doc="eta: slot k is examined with probability (1+k)^-eta")
    trust: float = chz.field(default=0.0, doc="chance of clicking an examined, unwanted item in the first slot")
    sharpness: float = chz.field(default=0.6, doc="inverse temperature of the logging policy")
    popularity: float = chz.field(default=0.3, doc="weight of log popularity in the policy's score")
    error: float = chz.field(default=1.5, doc="standard deviation of the policy's misjudgement")
    explore: float = chz.field(default=0.1, doc="share of uniform choice in every slot")
    fresh: float = chz.field(default=0.25, doc="share of candidates drawn from recent arrivals")
    search: float = chz.field(default=0.4, doc="share of requests that carry a query")
    missing: float = chz.field(default=1.0, doc="MNAR: how much satisfaction drives who rates")


def examination(exposure: Exposure, *, slots: int) -> np.ndarray:
    """Probability that a user looks at each slot."""
    return (1.0 + np.arange(slots)) ** -exposure.position


def click_probability(exposure: Exposure, *, relevance: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """P(click) = P(examined) * (r + (1 - r) * trust / (1 + slot)); trust bias fades down the page."""
    seen = examination(exposure, slots=int(slots.max()) + 1 if slots.size else 1)[slots]
    return seen * (relevance + (1.0 - relevance) * exposure.trust / (1.0 + slots))


def policy(exposure: Exposure, *, score: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Distribution over candidates of one slot: softmax mixed with uniform, over the allowed ones."""
    z = np.where(allowed, exposure.sharpness * score, -np.inf)
    soft = np.exp(z - z.max(-1, keepdims=True))
    soft /= soft.sum(-1, keepdims=True)
    flat = allowed / allowed.sum(-1, keepdims=True)
    return (1.0 - exposure.explore) * soft + exposure.explore * flat


def choose_slate(
    exposure: Exposure, *, score: np.ndarray, allowed: np.ndarray, slots: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Candidate number [n, slots] and its propensity given the slots above it."""
    rows = np.arange(len(score))
    left = allowed.copy()
    chosen = np.empty((len(score), slots), np.int64)
    propensity = np.empty((len(score), slots), np.float32)
    for k in range(slots):
        p = policy(exposure, score=score, allowed=left)
        chosen[:, k] = choose(p, uniform=rng.random(len(score)))
        propensity[:, k] = p[rows, chosen[:, k]]
        left[rows, chosen[:, k]] = False
    return chosen, propensity


def first_of_each(candidates: np.ndarray) -> np.ndarray:
    """False where a candidate repeats one on its left."""
    fresh = np.ones(candidates.shape, bool)
    for k in range(1, candidates.shape[1]):
        fresh[:, k] = (candidates[:, :k] != candidates[:, k : k + 1]).all(-1)
    return fresh
