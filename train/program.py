"""A run's computations as pure functions of plain dicts, each jitted once.

State is {"step", "key", "params", "stats", "opt", "rows", "ema"}, and "lr_scale" where a plateau lowers the learning
rate; params and stats are flat dicts from a parameter's path to its array, since plain dicts cost a twentieth of the
dispatch of module objects.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import multihost_utils

from data.errors import UserError
from data.features import Features
from modules.base import Batch, Outputs
from modules.layers.rows import RowTape, use_tape
from train.experiment import Experiment
from train.gradient_cache import Cotangents, cotangents, in_parts, pulled
from train.graph import filled_padding, name_of, split, values_of, with_values
from train.rowwise import OWED, Absent, merge_rows, settle
from train.tasks.base import Logs, Predictions

State = dict[str, Any]
Weights = Mapping[str, Mapping[str, jax.Array]]
Reads = list[tuple[str, jax.Array]]
"""Table and ids of each read."""
RowGrads = list[tuple[str, jax.Array, jax.Array]]
"""Table, ids and gradients of their rows."""


class Program:
    """init, train_step and predict of one experiment, on one mesh."""

    def __init__(self, experiment: Experiment, *, features: Features, mesh: jax.sharding.Mesh):
        self.experiment, self.features, self.mesh = experiment, features, mesh
        self.optimizer = experiment.optimizer
        abstract = nnx.eval_shape(lambda: experiment.model.make(features, rngs=nnx.Rngs(0)))
        for path, node in nnx.iter_graph(abstract):
            if isinstance(node, nnx.Variable):
                node.set_metadata(path=name_of(path))
        self._graph, self._params, self._stats = split(abstract)
        shapes = values_of(self._params)
        self._row_lr = self.optimizer.lr_scales(shapes)
        self.frozen = frozenset(path for path, factor in self._row_lr.items() if not factor)
        self.row_tables = frozenset(self.optimizer.row_params(shapes)) - self.frozen
        self.tx = self.optimizer.make(self._dense(shapes), steps=experiment.steps, among=shapes)
        self._schedule = self.optimizer.schedule(experiment.steps)
        self._l2 = {path: s for path, s in self.optimizer.l2_of(shapes).items() if path not in self.frozen}
        held = experiment.held_out
        self._held_out = frozenset() if held is None else held.chosen(shapes, tables=self.row_tables)
        self.abstract_state: State = jax.eval_shape(self._init, jax.random.key_data(jax.random.key(0)))
        self.state_sharding = experiment.mesh.shardings(self.abstract_state, mesh=mesh)
        self._train_step = jax.jit(self._step, donate_argnums=0, out_shardings=(self.state_sharding, None))
        self.predict = jax.jit(self._predict)

    # -- state ---------------------------------------------------------------------------------------------

    def init(self, seed: int) -> State:
        """A fresh state, made where it will live."""
        key = jax.random.key_data(jax.random.key(seed))
        return jax.jit(self._init, out_shardings=self.state_sharding)(key)

    def target(self) -> State:
        """Shapes and placement of the state, for restoring into."""
        return jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), self.abstract_state, self.state_sharding
        )

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return {path: tuple(a.shape) for path, a in self.abstract_state["params"].items()}

    def weights(self, state: State) -> dict[str, dict[str, jax.Array]]:
        """What evaluation and serving read: averaged parameters where the run keeps an average, no decay owed."""
        params = dict(state["params"])
        for path, slots in state.get("rows", {}).items():
            if "decayed" in slots:
                params[path] = settle(params[path], {name: slots[name] for name in OWED})
        return {"params": {**params, **state["ema"]}, "stats": state["stats"]}

    @property
    def counts_rows(self) -> bool:
        """Whether the state wants `with_occurrences` before the first step."""
        return bool(self.row_tables) and bool(self.optimizer.row_rule.mini_batch_aware)

    def weights_target(self) -> State:
        """The part of `target` that `weights` reads."""
        target = self.target()
        rows = {path: {n: slots[n] for n in OWED if n in slots} for path, slots in target["rows"].items()}
        return {name: target[name] for name in ("params", "stats", "ema")} | {"rows": rows}

    def with_lr_scale(self, state: State, scale: float) -> State:
        """The state with another factor of every learning rate, in place of the plateau's last."""
        placed = jax.device_put(np.float32(scale), self.state_sharding["lr_scale"])
        return {**state, "lr_scale": placed}

    def with_occurrences(self, state: State, counts: Mapping[str, np.ndarray]) -> State:
        """The state with the occurrences of each row of each row-sparse table in the training rows."""
        rows = dict(state["rows"])
        for path, count in counts.items():
            where, host = self.state_sharding["rows"][path]["occurrences"], count.astype(np.float32)
            placed = jax.make_array_from_callback(host.shape, where, host.__getitem__)
            rows[path] = {**rows[path], "occurrences": placed}
        return {**state, "rows": rows}

    def _init(self, key: jax.Array) -> State:
        init_key, run_key = jax.random.split(jax.random.wrap_key_data(key))
        model = self.experiment.model.make(self.features, rngs=nnx.Rngs(init_key))
        _, parameters, stats = split(model)
        params = values_of(parameters)
        dense = self._dense(params)
        return {
            "step": jnp.zeros((), jnp.int32),
            "key": jax.random.key_data(run_key),
            "params": params,
            "stats": values_of(stats),
            "opt": self.tx.init(dense),
            "rows": {path: self.optimizer.row_rule.init(params[path]) for path in sorted(self.row_tables)},
            "ema": dict(dense) if self.optimizer.ema is not None else {},
            **({"lr_scale": jnp.ones(())} if self.experiment.plateau is not None else {}),
        }

    def _dense(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Those that get a gradient as a whole: neither frozen nor row-sparse."""
        return {path: p for path, p in params.items() if path not in self.row_tables | self.frozen}

    # -- forward -------------------------------------------------------------------------------------------

    def _forward(self, params: Mapping[str, Any], stats: Mapping[str, Any], batch: Batch, key) -> tuple[Outputs, dict]:
        """Outputs, and the running statistics after them."""
        cast = functools.partial(_cast, dtype=jnp.dtype(self.experiment.precision))
        model = nnx.merge(self._graph, with_values(self._params, cast(params)), with_values(self._stats, stats))
        rngs = None if key is None else nnx.Rngs(key)
        outputs = model(cast(batch), rngs=rngs)
        _, _, after = split(model)
        return _cast(outputs, dtype=jnp.dtype("float32")), values_of(after)

    def _predict(self, weights: Weights, batch: Batch) -> Predictions:
        outputs, _ = self._forward(weights["params"], weights["stats"], batch, None)
        return self.experiment.task.predict(outputs, batch)

    # -- training ------------------------------------------------------------------------------------------

    def train_step(self, state: State, batch: Batch) -> tuple[State, Logs]:
        """One update. The state is donated: use the one that comes back."""
        return self._train_step(state, batch)

    def _step(self, state: State, batch: Batch) -> tuple[State, Logs]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
        grads, reads, stats, logs = self._gradients(state, batch, key)
        merged = self._merge_reads(state, reads)
        for path, strength in self._l2.items():
            grads[path] = grads[path] + strength * state["params"][path]
        clip = self.optimizer.clip_norm
        squares = optax.tree.norm(grads, squared=True) + sum(jnp.sum(jnp.square(m.grads)) for m in merged.values())
        norm = jnp.sqrt(squares)
        if clip is not None:
            factor = jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12))
            grads = jax.tree.map(lambda g: g * factor, grads)
            merged = {path: m.scaled(factor) for path, m in merged.items()}
        dense = self._dense(state["params"])
        updates, opt = self.tx.update(grads, state["opt"], dense)
        lr = self._schedule(state["step"])
        if "lr_scale" in state:
            # Every chain ends with the learning rate, decay included, so that this scales just that.
            lr, updates = lr * state["lr_scale"], jax.tree.map(lambda u: u * state["lr_scale"], updates)
        params, rows = {**state["params"], **optax.apply_updates(dense, updates)}, {}
        ema = self._average(state["ema"], params)
        for path, row_grads in merged.items():
            params[path], rows[path] = self.optimizer.row_rule.update(
                state["params"][path], state["rows"][path], row_grads, lr=lr * self._row_lr[path]
            )
        new = {
            **state,
            "step": state["step"] + 1,
            "params": params,
            "stats": stats,
            "opt": opt,
            "rows": rows,
            "ema": ema,
        }
        return new, {**logs, "grad_norm": norm, "lr": lr}

    def _average(self, ema: dict[str, jax.Array], params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        decay = self.optimizer.ema
        if decay is None:
            return {}
        return {path: decay * old + (1 - decay) * params[path] for path, old in ema.items()}

    def _gradients(self, state: State, batch: Batch, key) -> tuple[dict, RowGrads, dict, Logs]:
        """Dense gradients, row gradients of every read, new statistics, logs."""
        parts = self.optimizer.accumulate
        if parts == 1:
            return self._split_gradients(state, state["stats"], batch, key)
        size = next(iter(batch.values())).shape[0]
        if size % parts:
            raise UserError(f"batch of {size} does not divide into optimizer.accumulate={parts} micro-batches")
        micro = in_parts(batch, parts)
        cached, whole_logs = self._cached(state, batch, micro, key)

        def body(carry, part):
            (inputs, pulls), (grads, stats, index) = part, carry
            new, reads, stats, logs = self._split_gradients(
                state, stats, inputs, jax.random.fold_in(key, index), cotangents=pulls
            )
            carry = (jax.tree.map(jnp.add, grads, new), stats, index + 1)
            return carry, ({str(i): read[1:] for i, read in enumerate(reads)}, logs)

        paths = [
            path for path, _ in self._record(state["params"], state["stats"], {n: a[0] for n, a in micro.items()}, key)
        ]
        zero = (jax.tree.map(jnp.zeros_like, self._dense(state["params"])), state["stats"], 0)
        (grads, stats, _), (stacked, logs) = jax.lax.scan(body, zero, (micro, cached))
        share = parts if cached is None else 1
        grads = jax.tree.map(lambda g: g / share, grads)
        reads = [
            (path, ids.reshape(-1), g.reshape(-1, g.shape[-1]) / share)
            for path, (ids, g) in zip(paths, (stacked[str(i)] for i in range(len(paths))), strict=True)
        ]
        return grads, reads, stats, jax.tree.map(lambda v: v.mean(0), logs) if cached is None else whole_logs

    def _cached(self, state: State, batch: Batch, micro: Batch, key) -> tuple[Cotangents | None, Logs]:
        """Where rows are compared: what the whole batch's loss asks of each micro-batch's outputs, and its logs."""
        if not self.experiment.task.compares_rows:
            return None, {}
        if self.experiment.held_out is not None:
            raise UserError("held_out and optimizer.accumulate do not go together where rows are compared: drop one")

        def forward(part, stats, index):
            part_key = jax.random.fold_in(key, index)
            _, dense, rows = self._read(state, stats, part, part_key)
            return self._forward_read(state["params"], dense, rows, stats, part, part_key)

        return cotangents(forward, self.experiment.task.loss, batch, micro=micro, stats=state["stats"])

    def _split_gradients(
        self, state: State, stats, batch: Batch, key, *, cotangents: Cotangents | None = None
    ) -> tuple[dict, RowGrads, dict, Logs]:
        """As `_micro_gradients`, with those of some parameters from rows that the others do not see."""
        if self.experiment.held_out is None:
            return self._micro_gradients(state, stats, batch, key, cotangents=cotangents)
        learn, held = self.experiment.held_out.split(batch)
        grads, reads, new_stats, logs = self._micro_gradients(state, stats, learn, key)
        others, _, _, held_logs = self._micro_gradients(state, stats, held, jax.random.fold_in(key, 1))
        grads = {path: others[path] if path in self._held_out else g for path, g in grads.items()}
        return grads, reads, new_stats, {**logs, "held_out_loss": held_logs["loss"]}

    def _micro_gradients(
        self, state: State, stats, batch: Batch, key, *, cotangents: Cotangents | None = None
    ) -> tuple[dict, RowGrads, dict, Logs]:
        params, rule = state["params"], self.optimizer.row_rule
        recorded, dense, rows = self._read(state, stats, batch, key)

        def loss_fn(dense, rows):
            outputs, new_stats = self._forward_read(params, dense, rows, stats, batch, key)
            if cotangents is not None:
                return pulled(outputs, cotangents), (new_stats, {})
            loss, logs = self.experiment.task.loss(outputs, batch)
            return loss, (new_stats, logs)

        (grads, row_grads), (new_stats, logs) = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)(dense, rows)
        # Padding reads rows too; under mini-batch aware L2 it must not pull at them.
        visited = self.occurrences(params, stats, batch, key) if rule.mini_batch_aware else recorded
        reads = [
            (path, ids.reshape(-1), g.reshape(-1, g.shape[-1]))
            for (path, ids), g in zip(visited, row_grads, strict=True)
        ]
        return grads, reads, new_stats, logs

    def _read(self, state: State, stats, batch: Batch, key) -> tuple[Reads, dict, list]:
        """The reads of row-sparse tables, the dense parameters, and the rows read."""
        params = state["params"]
        recorded = self._record(params, stats, batch, key)
        rows = [self.optimizer.row_rule.read(params[path], state["rows"][path], ids) for path, ids in recorded]
        return recorded, self._dense(params), rows

    def _forward_read(self, params, dense, rows, stats, batch: Batch, key) -> tuple[Outputs, dict]:
        """As `_forward`, with `rows` in place of what is read of the row-sparse tables."""
        absent = {path: Absent(params[path], path) for path in self.row_tables}
        with use_tape(RowTape(self.row_tables, rows=_cast(rows, dtype=jnp.dtype(self.experiment.precision)))):
            return self._forward({**params, **dense, **absent}, stats, batch, key)

    def occurrences(self, params, stats, batch: Batch, key) -> Reads:
        """As `_record`, with ids past the table where it is padding that is read."""
        # However a model makes rows of ids (hashed, stacked, shared), those of padding change with what stands there.
        reads = [self._record(params, stats, filled_padding(batch, self.features, filler=i), key) for i in (0, 1)]
        return [
            (path, jnp.where(ids == other, ids, params[path].shape[0]))
            for (path, ids), (_, other) in zip(*reads, strict=True)
        ]

    def _record(self, params, stats, batch: Batch, key) -> Reads:
        """The ids that the forward pass reads of each row-sparse table; its arithmetic is dead code to XLA."""
        if not self.row_tables:
            return []
        with use_tape(RowTape(self.row_tables)) as tape:
            self._forward(params, stats, batch, key)
        return tape.reads

    def _merge_reads(self, state: State, reads: RowGrads) -> dict[str, Any]:
        """Per table, the gradients of all its reads with those of equal ids summed."""
        merged = {}
        for path in sorted(self.row_tables):
            ids = [i for p, i, _ in reads if p == path]
            if not ids:
                raise UserError(f"optimizer.rows names {path!r}, but the model never reads its rows")
            grads = jnp.concatenate([g for p, _, g in reads if p == path])
            slots = state["rows"][path]
            summed = merge_rows(slots, ids=jnp.concatenate(ids), grads=grads)
            merged[path] = self.optimizer.row_rule.regularised(state["params"][path], slots, summed)
        return merged


def make_predict(
    program: Program, weights: Weights, *, run: Callable[[Weights, Batch], Predictions] | None = None
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Host batch to host predictions, by the one forward that evaluation, export and scoring share; or by `run`.

    With several processes each gives the same batch and gets the whole answer.
    """
    run = run or program.predict
    offered = program.features.arrays(inputs_only=True)
    shards = program.mesh.shape["data"]

    def predict(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        inputs = {name: np.asarray(array) for name, array in batch.items() if name in offered}
        rows = len(next(iter(inputs.values())))
        split = jax.P("data") if rows % shards == 0 else jax.P()
        placement = jax.sharding.NamedSharding(program.mesh, split)
        if jax.process_count() == 1:
            return jax.device_get(run(weights, jax.device_put(inputs, placement)))
        parts = {n: jax.make_array_from_callback(a.shape, placement, a.__getitem__) for n, a in inputs.items()}
        return multihost_utils.process_allgather(run(weights, parts), tiled=True)

    return predict


def _cast(tree: Any, *, dtype: jnp.dtype) -> Any:
    """Floating arrays as `dtype`, everything else as it is."""

    def one(leaf):
        floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if floating and leaf.dtype != dtype and not isinstance(leaf, Absent) else leaf

    return jax.tree.map(one, tree)
