"""Two tasks that have more or less in common: what MMoE gains over a shared bottom of much the same size.

    python -m tests.benchmarks.task_relatedness [--seeds 0 1 2] [--correlations 1 0.5 0] [--json FILE]

The synthetic data of Ma et al., KDD 2018, section 3.2, as clicks: x of 100 normal inputs, weights w1 and w2 of the
given cosine, y_k = w_k x + Σ_i sin(α_i w_k x + β_i) with the same α and β, clicked with probability sigmoid(2 y_k).
600,000 training rows, two epochs of Adam. Bottom of 113 units against 8 experts of 16, towers of 8, as in the
paper: 13.3 and 14.8 thousand parameters behind the input.
Seeds draw data and models. The figure is log loss above that of the true chances, mean of both tasks, over 20,000
further rows.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import jax
import numpy as np

from data.features import Dense, Features, Label
from modules.base import ModelConfig
from modules.ctr.mmoe import MMoE
from modules.ctr.shared_bottom import SharedBottom
from modules.layers.mlp import MLP
from tests.benchmarks.behaviour_toys import TEST, Toy, fit, on_test_rows
from train.tasks.multi_task import Head, MultiTask

WIDTH, ROWS, WAVES, EPOCHS, LR = 100, 600_000, 2, 2, 5e-3
TASKS = ("one", "two")
TOWER = MLP(widths=(8,))
MODELS: dict[str, ModelConfig] = {
    "mmoe": MMoE(heads=TASKS, dim=WIDTH, experts=8, expert=MLP(widths=(16,)), tower=TOWER),
    "shared_bottom": SharedBottom(heads=TASKS, dim=WIDTH, bottom=MLP(widths=(113,)), tower=TOWER),
}


def drawn(correlation: float, *, seed: int) -> tuple[Toy, np.ndarray]:
    """Rows, and the true chances of both clicks."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(WIDTH, 2)))
    weights = basis @ np.array([[1, correlation], [0, np.sqrt(1 - correlation**2)]])
    alpha, beta = rng.uniform(1, 4, WAVES), rng.uniform(0, 2 * np.pi, WAVES)
    x = rng.normal(size=(ROWS + TEST, WIDTH)).astype(np.float32)
    line = x @ weights
    logit = 2 * (line + np.sin(line[..., None] * alpha[None, None] + beta[None, None]).sum(-1))
    chance = 1 / (1 + np.exp(-logit))
    clicks = (rng.random(chance.shape) < chance).astype(np.float32)
    features = Features(all=(Dense(name="x", dim=WIDTH), *(Label(name=t) for t in TASKS)))
    return Toy(features, {"x": x} | dict(zip(TASKS, clicks.T, strict=True)), logit[:, 0], logit), chance


def log_loss(chance: np.ndarray, label: np.ndarray) -> float:
    chance = np.clip(chance, 1e-7, 1 - 1e-7)
    return float(-np.where(label > 0, np.log(chance), np.log1p(-chance)).mean())


def measure(model: str, *, toy: Toy, chance: np.ndarray, seed: int) -> float:
    task = MultiTask(heads={t: Head(label=t) for t in TASKS})
    fitted = fit(MODELS[model], toy, lr=LR, seed=seed, epochs=EPOCHS, task=task)
    excess = []
    for k, name in enumerate(TASKS):
        guess = on_test_rows(fitted, toy, lambda m, batch, name=name: jax.nn.sigmoid(m(batch)[f"logit/{name}"]))
        label = toy.batch[name][-TEST:]
        excess.append(log_loss(guess.astype(np.float64), label) - log_loss(chance[-TEST:, k], label))
    return statistics.mean(excess)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--correlations", nargs="+", type=float, default=[1.0, 0.5, 0.0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, dict[str, list[float]]] = {}
    print("| cosine of the tasks' weights | MMoE | shared bottom | MMoE below |\n|---|---|---|---|")
    for correlation in args.correlations:
        found = results[str(correlation)] = {name: [] for name in MODELS}
        for seed in args.seeds:
            toy, chance = drawn(correlation, seed=seed)
            for name, values in found.items():
                values.append(measure(name, toy=toy, chance=chance, seed=seed))
            print(correlation, seed, {n: v[-1] for n, v in found.items()}, file=sys.stderr, flush=True)
        wins = sum(a < b for a, b in zip(*found.values(), strict=True))
        cells = " | ".join(f"{statistics.mean(v):.4f}" for v in found.values())
        print(f"| {correlation} | {cells} | {wins} of {len(args.seeds)} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
