"""PRESTO's simulation: how well each way estimates the chance of the rarest outcome.

    python -m tests.benchmarks.presto [--seeds 6] [--cells sparse-3-5 ...] [--json FILE]

Faletto and Bien, ICML 2023, section 5, with fewer replications: n = 2500, 10 covariates from U(-1, 1), 4 ordered
outcomes; slopes sparse (±1/2 with probability 1/3) or dense (U(-1/2, 1/2)), drawn again until no boundaries cross.
Mean squared error of P(y = 4 | x) against the truth: PRESTO with λ by 5-fold cross-validation of the Brier score,
proportional odds, and logistic regression of the rare outcome alone.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

from modules.losses.presto import fit_ordinal, fit_path

ROWS, WIDTH, CLASSES, FOLDS = 2500, 10, 4, 5
INTERCEPTS = {"3-5": (0.0, 3.0, 5.0), "3.5-5.5": (0.0, 3.5, 5.5), "4-6": (0.0, 4.0, 6.0)}
CELLS = [f"{kind}-{cell}" for kind in ("sparse", "dense") for cell in INTERCEPTS]
LAMBDAS = list(np.geomspace(0.03, 0.0003, 8))
TOLERANCE = 1e-7  # of the objective: far below what the folds differ by


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def drawn(cell: str, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariates, outcomes 0 to 3, and the true chance of outcome 3."""
    kind, _, where = cell.partition("-")
    rng = np.random.default_rng([seed, CELLS.index(cell)])
    while True:
        if kind == "sparse":
            used = rng.random((3, WIDTH)) < 1 / 3
            steps = np.where(used, 0.5 * np.where(rng.random((3, WIDTH)) < 0.5, -1, 1), 0.0)
            steps[0] = np.abs(steps[0])
        else:
            steps = rng.uniform(-0.5, 0.5, (3, WIDTH))
        x = rng.uniform(-1, 1, (ROWS, WIDTH))
        cumulative = sigmoid(np.array(INTERCEPTS[where]) + x @ np.cumsum(steps, 0).T)
        crossed = (np.diff(cumulative, axis=1) <= 0).any(1)
        # Redrawing rows, and not the whole, keeps slopes that differ by much.
        while crossed.any():
            x[crossed] = rng.uniform(-1, 1, (crossed.sum(), WIDTH))
            cumulative = sigmoid(np.array(INTERCEPTS[where]) + x @ np.cumsum(steps, 0).T)
            crossed = (np.diff(cumulative, axis=1) <= 0).any(1)
        y = (rng.random(ROWS)[:, None] > cumulative).sum(1)
        if np.bincount(y, minlength=CLASSES).min() >= FOLDS:
            return x, y, 1 - cumulative[:, -1]


def presto(x: np.ndarray, y: np.ndarray, *, seed: int) -> tuple[np.ndarray, float]:
    """P(y = 4) of each row, and the λ that cross-validation chose."""
    fold = np.empty(len(y), int)
    rng = np.random.default_rng(seed)
    for c in range(CLASSES):  # every fold has every outcome
        rows = rng.permutation(np.flatnonzero(y == c))
        fold[rows] = np.arange(len(rows)) % FOLDS
    brier = np.zeros(len(LAMBDAS))
    for k in range(FOLDS):
        fits = fit_path(x[fold != k], y[fold != k], classes=CLASSES, strengths=LAMBDAS, tolerance=TOLERANCE)
        out, rare = x[fold == k], y[fold == k] == CLASSES - 1
        brier += [np.square(f.last_class(out) - rare).sum() for f in fits]
    best = int(np.argmin(brier))  # the first of equals, the largest λ
    return fit_path(x, y, classes=CLASSES, strengths=LAMBDAS[: best + 1], tolerance=TOLERANCE)[-1].last_class(
        x
    ), LAMBDAS[best]


def logistic(x: np.ndarray, rare: np.ndarray) -> np.ndarray:
    """Newton's method on the rare outcome alone."""
    design, w = np.column_stack([np.ones(len(x)), x]), np.zeros(WIDTH + 1)
    for _ in range(50):
        p = sigmoid(design @ w)
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-8 * np.eye(WIDTH + 1)
        step = np.linalg.solve(hessian, design.T @ (rare - p))
        w += step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
    return sigmoid(design @ w)


def measure(cell: str, *, seed: int) -> dict[str, float]:
    x, y, truth = drawn(cell, seed=seed)
    ours, chosen = presto(x, y, seed=seed)
    odds = fit_ordinal(x, y, classes=CLASSES, strength=np.array([0.0, np.inf, np.inf])).last_class(x)
    guesses = {"presto": ours, "proportional": odds, "logit": logistic(x, y == CLASSES - 1)}
    errors = {name: float(np.square(p - truth).mean()) for name, p in guesses.items()}
    return errors | {"rate": float(truth.mean()), "lambda": float(chosen)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6, help="replications of each cell")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=[c for c in CELLS if "3.5" not in c])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, list] = {}
    print("| cell | rare rate | PRESTO | proportional odds | logit | PRESTO below: odds, logit |")
    print("|---|---|---|---|---|---|")
    for cell in args.cells:
        results[cell] = []
        for seed in range(args.seeds):
            results[cell].append(measure(cell, seed=seed))
            print(cell, seed, results[cell][-1], file=sys.stderr, flush=True)
        mean = {k: statistics.mean(r[k] for r in results[cell]) for k in results[cell][0]}
        wins = [sum(r["presto"] < r[other] for r in results[cell]) for other in ("proportional", "logit")]
        errors = " | ".join(f"{mean[k]:.2e}" for k in ("presto", "proportional", "logit"))
        print(f"| {cell} | {mean['rate']:.4f} | {errors} | {wins[0]}, {wins[1]} of {args.seeds} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
