"""PRESTO's estimator: cumulative logits whose slopes are shrunk towards those of the boundary before.

Faletto and Bien, ICML 2023: minimise (1/n) NLL + λ (‖β_1‖_1 + Σ_{k>=2} ‖β_k - β_{k-1}‖_1) over α and ψ, where ψ_1 = β_1
and ψ_k = β_k - β_{k-1}, so that the penalty is separable and its proximal step is a soft threshold. In numpy and
float64: the events are rare, and the steps small.
"""

import dataclasses

import numpy as np

CLIP = 1e-9  # of a class probability, since boundaries may cross


@dataclasses.dataclass(frozen=True)
class OrdinalFit:
    alpha: np.ndarray  # [K - 1]
    psi: np.ndarray  # [K - 1, p]
    objective: list[float]  # after each step

    @property
    def beta(self) -> np.ndarray:
        return np.cumsum(self.psi, axis=0)

    def last_class(self, x: np.ndarray) -> np.ndarray:
        """P(y = K | x), the rarest outcome: 1 - σ(α_{K-1} + x·β_{K-1})."""
        return 1.0 - _sigmoid(self.alpha[-1] + x @ self.beta[-1])


def fit_ordinal(
    x: np.ndarray,
    y: np.ndarray,
    *,
    classes: int,
    strength: float | np.ndarray,
    start: OrdinalFit | None = None,
    momentum: bool = True,
    steps: int = 5000,
    tolerance: float = 1e-9,
) -> OrdinalFit:
    """Minimises by proximal gradient with backtracking; with `momentum`, FISTA that restarts where it would climb.

    `strength` is λ, or one for each ψ_k: [0, inf, ...] is proportional odds, and 0 leaves the boundaries unlinked.
    `y` holds classes 0 .. classes - 1, each of which must occur.
    """
    counts = np.bincount(y, minlength=classes)
    if len(counts) > classes or not counts.all():
        raise ValueError(f"y must hold each of the classes 0 to {classes - 1}, it has counts {counts.tolist()}")
    weight = np.broadcast_to(np.asarray(strength, float), (classes - 1,))[:, None]
    share = np.cumsum(counts)[:-1] / len(y)
    point = (np.log(share / (1 - share)), np.zeros((classes - 1, x.shape[1])))
    point = point if start is None else (start.alpha, start.psi)
    value = _loss(x, y, point) + _penalty(point[1], weight)
    ahead, speed, curvature, objective = point, 1.0, 1.0, [value]
    for _ in range(steps):
        step, next_value, curvature = _step(x, y, ahead, weight=weight, curvature=curvature)
        if next_value > value:
            if ahead is point:
                break  # no step that the numbers can tell from none
            ahead, speed = point, 1.0
            continue
        faster = (1 + np.sqrt(1 + 4 * speed**2)) / 2 if momentum else 1.0
        pull = (speed - 1) / faster
        done = value - next_value < tolerance * max(abs(value), 1.0)
        still = done and ahead is point
        previous, point, value, speed = point, step, next_value, faster
        ahead = tuple(new + pull * (new - old) for new, old in zip(point, previous, strict=True)) if pull else point
        objective.append(value)
        if still or (done and not momentum):
            break
        if done:
            ahead, speed = point, 1.0  # ends only if a plain step gains nothing either
    return OrdinalFit(alpha=point[0], psi=point[1], objective=objective)


def fit_path(
    x: np.ndarray, y: np.ndarray, *, classes: int, strengths: list[float], tolerance: float = 1e-9
) -> list[OrdinalFit]:
    """Fits for falling strengths, each starting from the one before."""
    fits: list[OrdinalFit] = []
    for strength in strengths:
        start = fits[-1] if fits else None
        fits.append(fit_ordinal(x, y, classes=classes, strength=strength, start=start, tolerance=tolerance))
    return fits


def gradient(x: np.ndarray, y: np.ndarray, point: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean NLL, with respect to α and ψ."""
    cumulative, p = _probabilities(x, y, point)
    density = cumulative * (1 - cumulative)
    rows, last = np.arange(len(y)), cumulative.shape[1]
    eta = np.zeros_like(cumulative)
    up, low = y < last, y > 0
    eta[rows[up], y[up]] = -density[rows[up], y[up]] / p[up]
    eta[rows[low], y[low] - 1] = density[rows[low], y[low] - 1] / p[low]
    beta = eta.T @ x / len(y)
    return eta.mean(0), np.cumsum(beta[::-1], axis=0)[::-1]


def _step(x, y, at, *, weight, curvature):
    """One proximal step from `at`, its objective, and the curvature that bounded it."""
    base, (d_alpha, d_psi) = _loss(x, y, at), gradient(x, y, at)
    curvature *= 0.8
    while True:
        alpha = at[0] - d_alpha / curvature
        psi = at[1] - d_psi / curvature
        psi = np.sign(psi) * np.maximum(np.abs(psi) - weight / curvature, 0.0)
        moved = (alpha - at[0], psi - at[1])
        bound = base + (d_alpha * moved[0]).sum() + (d_psi * moved[1]).sum()
        bound += 0.5 * curvature * sum(np.square(m).sum() for m in moved)
        loss = _loss(x, y, (alpha, psi))
        if loss <= bound + 1e-13 or curvature > 1e12:
            return (alpha, psi), loss + _penalty(psi, weight), curvature
        curvature *= 2.0


def _probabilities(x, y, point):
    """P(y <= k) of each row, and the clipped probability of its class."""
    cumulative = _sigmoid(point[0] + x @ np.cumsum(point[1], axis=0).T)
    bounds = np.pad(cumulative, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
    rows = np.arange(len(y))
    return cumulative, np.maximum(bounds[rows, y + 1] - bounds[rows, y], CLIP)


def _loss(x, y, point) -> float:
    return float(-np.log(_probabilities(x, y, point)[1]).mean())


def _penalty(psi: np.ndarray, weight: np.ndarray) -> float:
    size = np.abs(psi).sum(axis=1)
    return float((weight[:, 0][size > 0] * size[size > 0]).sum())


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1.0, np.exp(-np.abs(x))) / (1.0 + np.exp(-np.abs(x)))
