"""Coupled L2 of dense parameters, lazy decay of row-sparse tables and mini-batch aware L2, against numpy."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from tests.train.test_program import TABLE, PlainSGD, assert_same, run
from tests.train.tiny import tiny
from train.experiment import Plateau
from train.optim import Optimizer
from train.program import Program
from train.rowwise import LazyAdam, RowwiseAdagrad, _added, merge_rows, settle
from train.sharding import Mesh, put_batch

ROWS, WIDTH, LR = 24, 4, 0.5
L2 = (("table", 0.3), ("kernel", 0.1))


def sgd(**fields):
    return Optimizer(algorithm="sgd", lr=LR, **fields)


def host(tree):
    return jax.tree.map(np.asarray, jax.device_get(tree))


# -- coupled L2 ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    """Parameters before and after a step without L2."""
    program, state, _ = run(tiny(optimizer=sgd()), steps=1)
    return host(program.init(0)["params"]), host(state["params"])


def strength(path):
    return 0.3 if "table" in path else 0.1 if path.endswith("kernel") else 0.0


@pytest.mark.parametrize("accumulate", [1, 4])
def test_coupled_l2_adds_lambda_w_to_the_gradient(plain, accumulate):
    before, after = plain
    _, state, logs = run(tiny(optimizer=sgd(l2=L2, accumulate=accumulate)), steps=1)
    grads = {path: (before[path] - after[path]) / LR + strength(path) * before[path] for path in before}
    assert_same(state["params"], {path: before[path] - LR * g for path, g in grads.items()})
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    assert logs[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_coupled_l2_is_clipped_with_the_loss(plain):
    before, after = plain
    _, state, _ = run(tiny(optimizer=sgd(l2=L2, clip_norm=0.01)), steps=1)
    grads = {path: (before[path] - after[path]) / LR + strength(path) * before[path] for path in before}
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grads.values()))
    moved = np.sqrt(sum(((before[p] - np.asarray(state["params"][p])).astype(np.float64) ** 2).sum() for p in before))
    assert norm > 0.01 and moved == pytest.approx(LR * 0.01, rel=1e-3)


def test_the_first_match_of_l2_wins():
    shapes = {"embed/table_2": np.zeros((6, 2)), "mlp/kernel": np.zeros((2, 3)), "mlp/bias": np.zeros(3)}
    assert Optimizer(l2=(("mlp/k", 0.5), ("mlp/", 0.1))).l2_of(shapes) == {"mlp/kernel": 0.5, "mlp/bias": 0.1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"l2": (("tabel", 0.1),)}, r"optimizer\.l2: 'tabel' matches no parameter; the nearest is embed/table_4"),
        ({"l2": (("table", 0.1),), "rows": ("table",)}, r"row-sparse: use optimizer\.row_rule\.decay"),
    ],
)
def test_l2_that_cannot_be_had_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        run(tiny(optimizer=Optimizer(**fields)), steps=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"l2": (("table", -0.1),)}, "negative lambda"),
        ({"row_rule": LazyAdam(decay=0.1)}, r"row_rule\.decay is of row-sparse tables"),
        ({"row_rule": LazyAdam(mini_batch_aware=0.1)}, r"row_rule\.mini_batch_aware is of row-sparse tables"),
        ({"row_rule": LazyAdam(decay=2.0), "rows": ("table",), "lr": 0.5}, "is 1 or more"),
    ],
)
def test_settings_without_a_meaning_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(**fields)


# -- lazy decay ------------------------------------------------------------------------------------------------


def test_lazy_decay_is_dense_decay_through_the_whole_program():
    """50 steps of 8 rows: what is not visited decays as much, what is read is read decayed, for a falling rate."""
    schedule = {"lr_schedule": "cosine", "warmup_steps": 5}
    experiment = tiny(optimizer=sgd(weight_decay=0.05, decay="table", **schedule), batch_size=8, steps=50)
    _, dense, dense_logs = run(experiment, steps=50)
    lazy = sgd(rows=("table",), row_rule=PlainSGD(decay=0.05), **schedule)
    program, state, logs = run(chz.replace(experiment, optimizer=lazy), steps=50)
    assert_same(program.weights(state)["params"], dense["params"], tol=1e-6)
    np.testing.assert_allclose([x["loss"] for x in logs], [x["loss"] for x in dense_logs], atol=1e-6)
    owed = np.abs(host(state["params"][TABLE]) - host(dense["params"][TABLE])).max(axis=1)
    assert (owed > 1e-4).any(), "every row was visited at the last steps: this test sees no debt"


@pytest.mark.parametrize(
    "rule", [LazyAdam(b1=0.8, decay=0.3), RowwiseAdagrad(decay=0.3)], ids=lambda r: type(r).__name__
)
def test_lazy_decay_against_every_row_at_every_step(rule, rng):
    """The same rule without decay on the visited rows, and the decay of all rows by hand, in float64."""
    table = jnp.asarray(rng.normal(size=(ROWS, WIDTH)), jnp.float32)
    ours, slots = table, rule.init(table)
    expected = np.asarray(table, np.float64)
    bare = chz.replace(rule, decay=0.0)
    bare_slots = bare.init(table)
    step = jax.jit(lambda t, s, i, g, lr: rule.update(t, s, merge_rows(s, ids=i, grads=g), lr=lr))
    bare_step = jax.jit(lambda t, s, i, g, lr: bare.update(t, s, merge_rows(s, ids=i, grads=g), lr=lr))
    for i in range(50):
        ids, grads = rng.integers(0, ROWS, 3).astype(np.int32), rng.normal(size=(3, WIDTH)).astype(np.float32)
        lr = 0.1 / (1 + i)
        ours, slots = step(ours, slots, ids, grads, lr)
        change, bare_slots = bare_step(jnp.zeros_like(table), bare_slots, ids, grads, lr)
        expected = expected * (1 - lr * 0.3) + np.asarray(change, np.float64)
        np.testing.assert_allclose(rule.read(ours, slots, jnp.arange(ROWS)), expected, atol=1e-6)
    np.testing.assert_allclose(settle(ours, slots), expected, atol=1e-6)


def test_the_sum_of_decays_keeps_small_steps_of_long_runs():
    steps, x = 300_000, np.float32(-3e-5)
    add = jax.jit(lambda: jax.lax.fori_loop(0, steps, lambda _, s: _added(*s, x), (jnp.zeros(()), jnp.zeros(()))))
    total, rest = add()
    assert float(total) + float(rest) == pytest.approx(steps * float(x), rel=1e-9)
    naive = jax.jit(lambda: jax.lax.fori_loop(0, steps, lambda _, s: s + x, jnp.zeros(())))()
    assert float(naive) != pytest.approx(steps * float(x), rel=1e-5)


@pytest.mark.parametrize("settings", [{"decay": 0.1}, {"mini_batch_aware": 0.1}], ids=lambda s: next(iter(s)))
def test_a_step_computes_nothing_of_the_size_of_the_table(settings):
    rows, rule = 5_000_011, LazyAdam(**settings)
    table = jax.ShapeDtypeStruct((rows, WIDTH), jnp.float32)
    slots = jax.eval_shape(rule.init, table)

    def step(table, slots, ids):
        grads = jax.grad(lambda r: jnp.sum(jnp.sin(r)))(rule.read(table, slots, ids))
        merged = rule.regularised(table, slots, merge_rows(slots, ids=ids, grads=grads))
        return rule.update(table, slots, merged, lr=0.1)

    compiled = (
        jax.jit(step, donate_argnums=(0, 1)).lower(table, slots, jax.ShapeDtypeStruct((64,), jnp.int32)).compile()
    )
    assert compiled.memory_analysis().temp_size_in_bytes < 2**20
    assert compiled.cost_analysis()["flops"] < 100_000
    assert compiled.cost_analysis().get("transcendentals", 0) < 100_000


def test_four_devices_decay_as_one():
    optimizer = Optimizer(rows=("table",), row_rule=LazyAdam(decay=0.5, mini_batch_aware=0.1))
    program, a, _ = run(tiny(optimizer=optimizer, batch_size=8))
    other, b, _ = run(tiny(optimizer=optimizer, batch_size=8), mesh=Mesh(data=2, model=2).make())
    assert_same(program.weights(a)["params"], other.weights(b)["params"], tol=2e-5)
    assert other.weights(b)["params"][TABLE].sharding.spec == jax.P("model")


# -- mini-batch aware L2 -----------------------------------------------------------------------------------------


def test_mini_batch_aware_l2_is_the_formula_of_din(rng):
    """w_j <- w_j - lr (g_j + lambda alpha_j / n_j w_j), where alpha_j tells whether the batch has j."""
    rule = PlainSGD(mini_batch_aware=0.7)
    table = jnp.asarray(rng.normal(size=(ROWS, WIDTH)), jnp.float32)
    count = rng.integers(1, 9, ROWS).astype(np.float32)
    slots = {**rule.init(table), "occurrences": jnp.asarray(count)}
    ids = np.array([3, 7, 3, ROWS, -1, ROWS - 1], np.int32)  # ROWS and -1 lie outside
    grads = rng.normal(size=(6, WIDTH)).astype(np.float32)
    merged = rule.regularised(table, slots, merge_rows(slots, ids=ids, grads=grads))
    new, after = rule.update(table, slots, merged, lr=0.1)
    w = np.asarray(table, np.float64)
    expected, norm = w.copy(), 0.0
    for j in (3, 7, ROWS - 1):
        g = grads[ids == j].sum(0) + 0.7 / count[j] * w[j]
        expected[j], norm = w[j] - 0.1 * g, norm + (g**2).sum()
    np.testing.assert_allclose(new, expected, atol=1e-6)
    assert float(merged.squared_norm()) == pytest.approx(norm, rel=1e-5)
    absent = np.setdiff1d(np.arange(ROWS), ids)
    np.testing.assert_array_equal(np.asarray(new)[absent], np.asarray(table)[absent])
    np.testing.assert_array_equal(after["occurrences"], count)


def test_mini_batch_aware_l2_leaves_absent_rows_through_the_program():
    optimizer = sgd(rows=("table",), row_rule=PlainSGD(mini_batch_aware=0.5))
    program, state, _ = run(tiny(optimizer=optimizer, batch_size=8), steps=1)
    before, after = host(program.init(0)["params"][TABLE]), host(state["params"][TABLE])
    batch = next(tiny(batch_size=8).loader.open(tiny().source.make()))
    read = np.unique(np.concatenate([batch["user"], 40 + batch["item"]]))
    absent = np.setdiff1d(np.arange(len(before)), read)
    np.testing.assert_array_equal(after[absent], before[absent])
    assert (after[read] != before[read]).all()


# -- the learning rate's factor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [(), ("table",)], ids=["dense", "rows"])
def test_the_scale_of_the_learning_rate_is_state_and_compiles_nothing(rows):
    rule = {"row_rule": PlainSGD(decay=0.05), "rows": rows} if rows else {}
    base = chz.replace(tiny(optimizer=sgd(**rule)), plateau=Plateau(metric="valid/auc"))
    mesh = Mesh(data=1).make(devices=jax.devices()[:1])
    batches = base.loader.open(base.source.make())
    batch = put_batch(next(batches), mesh=mesh)
    program = Program(base, features=batches.features, mesh=mesh)
    with jax.set_mesh(mesh):
        state, logs = program.train_step(program.init(0), batch)
        assert float(logs["lr"]) == LR
        state = program.with_lr_scale(program.init(0), 0.1)
        state, logs = program.train_step(state, batch)
        assert float(logs["lr"]) == pytest.approx(0.1 * LR)
        assert program._train_step._cache_size() == 1
        slower = chz.replace(base, optimizer=chz.replace(base.optimizer, lr=0.1 * LR), plateau=None)
        other = Program(slower, features=batches.features, mesh=mesh)
        expected, _ = other.train_step(other.init(0), batch)
    assert_same(program.weights(state)["params"], other.weights(expected)["params"])
