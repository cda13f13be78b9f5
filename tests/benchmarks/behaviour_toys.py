"""Planted data on which TIN's and DARE's parts must earn their place; every variant, three seeds.

    python -m tests.benchmarks.behaviour_toys [--only temporal decoupled] [--seeds 0 1 2] [--json FILE]

temporal: 20 categories, 20 behaviours; logit 1.5 Σ_i e^(-i/3) (A[c_t, c_i] + 3 [c_t = c_i]), i from 0 at the newest, A
symmetric of rank 4; 60,000 training rows, 6 epochs. One catalogue, whose Bayes AUC is near .914; seeds are the models'.

decoupled: 200 kinds, 60 behaviours; attention by a symmetric form of rank 3 less .04 per step into the past, effect by
another of rank 4; 80,000 training rows, 6 epochs. Seeds draw the data too. `share` is the true attention in the 20
behaviours that the model's search ranks first, over that in the best 20.

AUC is of 20,000 further rows after the last epoch.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import chz
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from data.features import FIRST, Categorical, Features, Label, Sequence
from modules.base import Model, ModelConfig
from modules.behavior.dare import DARE
from modules.behavior.tin import TIN
from modules.layers.mlp import MLP
from train.metrics.auc import ScoreCounts
from train.tasks.base import Task
from train.tasks.pointwise import Pointwise

BATCH, EPOCHS, TEST, KEPT = 1_000, 6, 20_000, 20
HEAD = {"mlp": MLP(widths=(64,)), "dim": 16}


@dataclasses.dataclass(frozen=True)
class Toy:
    features: Features
    batch: dict[str, np.ndarray]  # training rows, then the test rows
    truth: np.ndarray  # logit
    planted: np.ndarray  # of every behaviour: its true weight
    form: np.ndarray | None = None  # kinds by kinds


def rows_of(kinds: int, *, length: int, rows: int, rng: np.random.Generator) -> tuple[Features, np.ndarray, np.ndarray]:
    features = Features(
        all=(
            Categorical(name="item", role="item", rows=FIRST + kinds),
            Sequence(
                name="history",
                role="user",
                of=Categorical(name="h", rows=FIRST + kinds, share="item"),
                length=length,
            ),
            Label(name="click"),
        )
    )
    return features, rng.integers(0, kinds, (rows, length)), rng.integers(0, kinds, rows)


def symmetric(kinds: int, *, rank: int, rng: np.random.Generator) -> np.ndarray:
    """A form of unit variance off the diagonal."""
    factors = rng.normal(size=(kinds, rank))
    return factors @ factors.T / np.sqrt(rank)


def toy_of(features: Features, past, target, *, truth, planted, rng, form=None) -> Toy:
    click = rng.random(len(truth)) < 1 / (1 + np.exp(-truth))
    batch = {
        "item": (FIRST + target).astype(np.int32),
        "history": (FIRST + past).astype(np.int32),
        "history/length": np.full(len(past), past.shape[1], np.int32),
        "click": click.astype(np.float32),
    }
    return Toy(features, batch, truth, planted, form)


def temporal(seed: int) -> Toy:
    rng = np.random.default_rng(3)
    features, past, target = rows_of(20, length=20, rows=60_000 + TEST, rng=rng)
    form = symmetric(20, rank=4, rng=rng)
    decay = np.exp(-np.arange(19, -1, -1) / 3)[None, :]
    effect = decay * (form[target[:, None], past] + 3 * (past == target[:, None]))
    return toy_of(features, past, target, truth=1.5 * effect.sum(1), planted=effect, rng=rng, form=form)


def decoupled(seed: int) -> Toy:
    rng = np.random.default_rng(seed)
    features, past, target = rows_of(200, length=60, rows=80_000 + TEST, rng=rng)
    attention, effect = 1.5 * symmetric(200, rank=3, rng=rng), 3 * symmetric(200, rank=4, rng=rng)
    scores = attention[target[:, None], past] - 0.04 * np.arange(59, -1, -1)[None, :]
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    truth = (weights * effect[target[:, None], past]).sum(1)
    return toy_of(features, past, target, truth=truth, planted=weights, rng=rng)


def dare(dim: int = 8, **options) -> DARE:
    return DARE(**{**HEAD, "dim": dim, "attention_dim": dim, "keep": None, **options})


TOYS: dict[str, tuple[Callable[[int], Toy], float, dict[str, ModelConfig]]] = {
    "temporal": (
        temporal,
        3e-3,
        {
            "mean, no product": TIN(positions=False, attention="mean", product=False, **HEAD),
            "DIN attention": TIN(positions=False, attention="unit", product=False, **HEAD),
            "DIN attention + product": TIN(positions=False, attention="unit", **HEAD),
            "dot": TIN(positions=False, product=False, **HEAD),
            "TIN without positions": TIN(positions=False, **HEAD),
            "TIN without attention": TIN(attention="mean", **HEAD),
            "TIN without product": TIN(product=False, **HEAD),
            "TIN": TIN(**HEAD),
            "positions + DIN attention": TIN(attention="unit", product=False, **HEAD),
            "positions + DIN attention + product": TIN(attention="unit", **HEAD),
        },
    ),
    "decoupled": (
        decoupled,
        5e-3,
        {
            "shared 8": dare(tables="shared"),
            "projected 8": dare(tables="projected"),
            "decoupled 8": dare(),
            "decoupled 8 without product": dare(product=False),
            "decoupled 8, attention 4": dare(attention_dim=4),
            "decoupled 8, attention 2": dare(attention_dim=2),
            "shared 16": dare(16, tables="shared"),
            "projected 16": dare(16, tables="projected"),
            "decoupled 16": dare(16),
        },
    ),
}


def fit(
    config: ModelConfig, toy: Toy, *, lr: float, seed: int, epochs: int = EPOCHS, task: Task | None = None
) -> Model:
    """Adam for some passes over the training rows."""
    graph, params, rest = nnx.split(config.make(toy.features, rngs=nnx.Rngs(seed)), nnx.Param, ...)
    tx, task = optax.adam(lr), task or Pointwise()

    def loss_fn(params, rest, batch, key):
        # Fresh variables, since those of an outer trace may not take new running statistics.
        model = nnx.merge(graph, params, jax.tree.map(lambda x: x, rest))
        loss, _ = task.loss(model(batch, rngs=nnx.Rngs(key)), batch)
        return loss, nnx.split(model, nnx.Param, ...)[2]

    @jax.jit
    def step(params, rest, opt, batch, key):
        grads, rest = jax.grad(loss_fn, has_aux=True)(params, rest, batch, key)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), rest, opt

    opt, rng, key = tx.init(params), np.random.default_rng(seed), jax.random.key(seed)
    for epoch in range(epochs):
        for i, index in enumerate(rng.permutation(len(toy.truth) - TEST).reshape(-1, BATCH)):
            batch = {n: x[index] for n, x in toy.batch.items()}
            params, rest, opt = step(params, rest, opt, batch, jax.random.fold_in(key, 1_000 * epoch + i))
    return nnx.merge(graph, params, rest)


def on_test_rows(model: Model, toy: Toy, function: Callable[[Model, dict], jax.Array]) -> np.ndarray:
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, batch: function(nnx.merge(graph, state), batch))
    starts = range(len(toy.truth) - TEST, len(toy.truth), 2_000)
    return np.concatenate([np.asarray(run(state, {n: x[s : s + 2_000] for n, x in toy.batch.items()})) for s in starts])


def auc(score: np.ndarray, label: np.ndarray) -> float:
    counts, positive = ScoreCounts(), label.astype(np.float64)
    counts.add(score.astype(np.float64), negative=1 - positive, positive=positive)
    return float(counts.auc())


def share(model: Model, toy: Toy) -> float:
    """True attention of the 20 behaviours found, over that of the best 20."""
    scores = on_test_rows(model, toy, lambda m, batch: m.scores(batch)[0][0])
    planted = toy.planted[-TEST:]
    found = np.take_along_axis(planted, np.argsort(-scores, axis=1)[:, :KEPT], axis=1)
    return float(found.sum() / np.sort(planted, axis=1)[:, -KEPT:].sum())


def read_out(model: Model, toy: Toy) -> float:
    """Spearman correlation of what TIN reads out with the size of the planted effect, over kinds and positions."""
    kinds, length = len(toy.form), toy.batch["history"].shape[1]
    target, past = (x.ravel() for x in np.meshgrid(np.arange(kinds), np.arange(kinds), indexing="ij"))
    batch = {
        "item": jnp.asarray(FIRST + target, jnp.int32),
        "history": jnp.asarray(np.repeat(FIRST + past[:, None], length, axis=1), jnp.int32),
        "history/length": jnp.full(len(past), length, jnp.int32),
    }
    (found,) = model.correlations(batch)
    effect = np.abs(toy.form[target, past] + 3 * (target == past))
    planted = effect[:, None] * np.exp(-np.arange(length - 1, -1, -1) / 3)[None, :]
    ranks = [np.argsort(np.argsort(x.ravel())) for x in (np.asarray(found), planted)]
    return float(np.corrcoef(*ranks)[0, 1])


def conflict(model: Model, toy: Toy, *, config: DARE, rows: int = 200) -> float:
    """Of a model with shared tables: how often the gradients of a behaviour's vector in one row point apart, that
    through the attention weights and that through what is weighed."""
    # The same function of two equal tables, each with its own gradient.
    two = chz.replace(config, tables="decoupled", attention_dim=config.dim).make(toy.features, rngs=nnx.Rngs(0))
    name = f"table_{config.dim}"
    _, shared = nnx.split(model)
    graph, state = nnx.split(two)
    state = nnx.merge_state(state, shared)
    state["search"]["embed"] = state["embed"]
    state["search"]["times"] = state["times"]

    def loss(attention, representation, row):
        def put(path, x):
            where = jax.tree_util.keystr(path)
            return x if name not in where else attention if "search" in where else representation

        batch = {n: x[None] for n, x in row.items()}
        return Pointwise().loss(nnx.merge(graph, jax.tree.map_with_path(put, state))(batch), batch)[0]

    table = getattr(model.embed, name)[...]
    batch = {n: jnp.asarray(x[-rows:]) for n, x in toy.batch.items()}
    a, r = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, None, 0)))(table, table, batch)
    products = np.asarray((a * r).sum(-1))
    past = np.zeros(products.shape, bool)
    np.put_along_axis(past, np.asarray(batch["history"]), True, axis=1)
    np.put_along_axis(past, np.asarray(batch["item"])[:, None], False, axis=1)
    return float((products[past] < 0).mean())


def measure(name: str, config: ModelConfig, *, toy: Toy, lr: float, seed: int) -> dict[str, float]:
    print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
    model = fit(config, toy, lr=lr, seed=seed)
    scores = on_test_rows(model, toy, lambda m, batch: m(batch)["logit"])
    found = {"auc": auc(scores, toy.batch["click"][-TEST:])}
    if isinstance(config, DARE):
        found["share"] = share(model, toy)
        if config.tables == "shared":
            found["conflict"] = conflict(model, toy, config=config)
    elif config.attention == "dot" and config.positions and config.product:
        found["spearman"] = read_out(model, toy)
    return found


def table(results: dict) -> str:
    lines = []
    for toy, found in results.items():
        lines += [f"| {toy} (Bayes {statistics.mean(found['bayes']):.4f}) | AUC ± sd | else |", "|---|---|---|"]
        for variant, runs in found["variants"].items():
            aucs = [r["auc"] for r in runs]
            sd = statistics.stdev(aucs) if len(aucs) > 1 else 0.0
            rest = [f"{k} {statistics.mean(r[k] for r in runs):.3f}" for k in runs[0] if k != "auc"]
            lines.append(f"| {variant} | {statistics.mean(aucs):.4f} ± {sd:.4f} | {', '.join(rest)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TOYS, default=list(TOYS))
    parser.add_argument("--variants", nargs="+", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="written after every run, and added to where it exists")
    args = parser.parse_args()
    results = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    for name in args.only:
        make, lr, variants = TOYS[name]
        toys = {seed: make(seed) for seed in args.seeds}
        bayes = [auc(t.truth[-TEST:], t.batch["click"][-TEST:]) for t in toys.values()]
        found = results.setdefault(name, {})
        found |= {"seeds": args.seeds, "bayes": bayes, "variants": found.get("variants", {})}
        for variant in args.variants or variants:
            config = variants[variant]
            found["variants"][variant] = [
                measure(variant, config, toy=toy, lr=lr, seed=seed) for seed, toy in toys.items()
            ]
            if args.json:
                args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
