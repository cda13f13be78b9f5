"""Maps from a trained model's probabilities to calibrated ones, and how each is fitted on held-out rows.

Temperature: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2, of one logit.
Isotonic: Zadrozny, Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates", KDD 2002.
"""

from typing import Literal

import chz
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import isotonic_regression, minimize_scalar

from data.errors import UserError

Method = Literal["temperature", "isotonic"]

CLIP = 1e-7
HOTTEST = 100.0


@chz.chz
class Calibration:
    """A rising map of probabilities; it is exported as part of the program."""

    def apply(self, score: jax.Array) -> jax.Array:
        raise NotImplementedError(f"{type(self).__name__} does not define apply")


@chz.chz
class Temperature(Calibration):
    """p = σ(logit(score) / temperature): the order of rows stays exactly."""

    temperature: float = chz.field(doc="above 1 where the model was too sure of itself")

    def apply(self, score: jax.Array) -> jax.Array:
        p = jnp.clip(score, CLIP, 1 - CLIP)
        return jax.nn.sigmoid((jnp.log(p) - jnp.log1p(-p)) / self.temperature)


@chz.chz
class Isotonic(Calibration):
    """Straight lines between the knots of the best rising step function; scores within a step become equal."""

    score: tuple[float, ...] = chz.field(doc="knots, rising")
    rate: tuple[float, ...] = chz.field(doc="share of positives at each knot, never falling")

    @chz.validate
    def _knots_rise(self):
        if len(self.score) != len(self.rate) or not self.score:
            raise ValueError(f"{len(self.score)} knots need as many rates, not {len(self.rate)}, and at least one")
        if np.any(np.diff(self.score) <= 0) or np.any(np.diff(self.rate) < 0):
            raise ValueError("the knots of a calibration must rise, and their rates may not fall")

    def apply(self, score: jax.Array) -> jax.Array:
        return jnp.interp(score, jnp.asarray(self.score, score.dtype), jnp.asarray(self.rate, score.dtype))


def fit(method: Method, *, score: np.ndarray, label: np.ndarray) -> Calibration:
    """The map that lowers the log loss (temperature) or the squared error (isotonic) of these rows most."""
    if len(score) == 0 or label.min() == label.max():
        raise UserError(f"a calibration needs rows of both labels; {len(score)} rows of one were given")
    score = score.astype(np.float64)
    return _temperature(score, label) if method == "temperature" else _isotonic(score, label)


def _temperature(score: np.ndarray, label: np.ndarray) -> Temperature:
    p = np.clip(score, CLIP, 1 - CLIP)
    logit = np.log(p) - np.log1p(-p)

    def cost(log_temperature: float) -> float:
        scaled = logit * np.exp(-log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - label * scaled))

    bound = float(np.log(HOTTEST))
    found = minimize_scalar(cost, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6})
    return Temperature(temperature=float(np.exp(found.x)))


def _isotonic(score: np.ndarray, label: np.ndarray) -> Isotonic:
    # Equal scores are one observation: they cannot be told apart later.
    score, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    rate = np.bincount(inverse, weights=label) / count
    risen = isotonic_regression(rate, weights=count).x
    # The first and the last score of each step say all that interpolation needs.
    edge = np.flatnonzero(np.diff(risen) > 0)
    keep = np.unique(np.concatenate(([0], edge, edge + 1, [len(score) - 1])))
    # Knots in float32, as the scores will be; those that fall together are one.
    knots, first = np.unique(score[keep].astype(np.float32), return_index=True)
    return Isotonic(score=tuple(knots.tolist()), rate=tuple(risen[keep][first].tolist()))
