"""Row rules: equal to dense rules where both are defined alike, still where a row is not visited, and sharded."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.rowwise import LazyAdam, RowwiseAdagrad, merge_rows
from train.sharding import Mesh

ROWS, WIDTH = 24, 4
RULES = [LazyAdam(b1=0.8), RowwiseAdagrad()]


def one_step(rule):
    def step(table, slots, ids, grads):
        return rule.update(table, slots, merge_rows(slots, ids=ids, grads=grads), lr=0.1)

    return step


@pytest.fixture
def table(rng):
    return jnp.asarray(rng.normal(size=(ROWS, WIDTH)), jnp.float32)


def batches(rng, *, steps, rows=ROWS, reads=32):
    for _ in range(steps):
        yield (rng.integers(0, rows, reads).astype(np.int32), rng.normal(size=(reads, WIDTH)).astype(np.float32))


def summed(ids, grads):
    dense = np.zeros((ROWS, WIDTH), np.float32)
    np.add.at(dense, ids, grads)
    return dense


def test_lazy_adam_is_adam_where_every_row_is_visited(table, rng):
    rule, tx = LazyAdam(b1=0.8), optax.adam(0.1, b1=0.8)
    step = jax.jit(one_step(rule))
    ours, slots, dense, opt = table, rule.init(table), table, tx.init(table)
    for ids, grads in batches(rng, steps=5):
        ids = np.concatenate([ids, rng.permutation(ROWS).astype(np.int32)])
        grads = np.concatenate([grads, rng.normal(size=(ROWS, WIDTH)).astype(np.float32)])
        ours, slots = step(ours, slots, ids, grads)
        updates, opt = tx.update(jnp.asarray(summed(ids, grads)), opt, dense)
        dense = optax.apply_updates(dense, updates)
    np.testing.assert_allclose(ours, dense, atol=1e-6)
    np.testing.assert_allclose(slots["nu"], opt[0].nu, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(slots["count"], 5)


def test_lazy_adam_corrects_bias_by_the_visits_of_a_row(table):
    """A row visited at every other step follows the path of one visited as often in fewer steps."""
    rule = LazyAdam()
    step = jax.jit(one_step(rule))
    table = table.at[1].set(table[0])
    slots = rule.init(table)
    grad = jnp.ones((1, WIDTH))
    for i in range(6):
        table, slots = step(table, slots, jnp.array([0 if i % 2 else 2]), grad * (i // 2 + 1))
    for i in range(3):
        # Row 2 has been visited more often, and must not lend its count.
        table, slots = step(table, slots, jnp.array([1, 2]), jnp.repeat(grad * (i + 1), 2, axis=0))
    np.testing.assert_allclose(table[0], table[1], atol=1e-6)


def test_rowwise_adagrad_against_numpy(table, rng):
    rule = RowwiseAdagrad(eps=1e-3, initial=0.5)
    step = jax.jit(one_step(rule))
    ours, slots = table, rule.init(table)
    expected, square = np.asarray(table, np.float64), np.full(ROWS, 0.5)
    for ids, grads in batches(rng, steps=4):
        ours, slots = step(ours, slots, ids, grads)
        dense = summed(ids, grads).astype(np.float64)
        square += (dense**2).mean(-1)
        expected -= 0.1 * dense / (np.sqrt(square)[:, None] + 1e-3)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_other_rows_do_not_change_by_a_bit(rule, table, rng):
    step = jax.jit(one_step(rule))
    slots = rule.init(table)
    for ids, grads in batches(rng, steps=2):
        table, slots = step(table, slots, ids, grads)
    ids = np.array([3, 7, 3, ROWS, -1, 2**31 - 1], np.int32)  # the last three lie outside and are dropped
    new, new_slots = step(table, slots, ids, np.ones((6, WIDTH), np.float32))
    same = np.setdiff1d(np.arange(ROWS), [3, 7])
    before, after = {"table": table, **slots}, {"table": new, **new_slots}
    for name in before:
        np.testing.assert_array_equal(np.asarray(before[name])[same], np.asarray(after[name])[same], err_msg=name)
    assert (np.asarray(new)[[3, 7]] != np.asarray(table)[[3, 7]]).all()
    assert np.isfinite(new).all()


def test_merged_gradients_give_the_norm_of_the_dense_gradient(table, rng):
    slots = LazyAdam().init(table)
    (ids, grads), (fewer_ids, fewer) = next(batches(rng, steps=1)), next(batches(rng, steps=1, reads=5))
    merge = jax.jit(lambda slots, ids, grads: merge_rows(slots, ids=ids, grads=grads))
    merged = merge(slots, ids, grads)
    np.testing.assert_allclose(merged.squared_norm(), (summed(ids, grads) ** 2).sum(), rtol=1e-5)
    # The scratch still holds marks of the larger batch.
    again = merge({**slots, "owner": merged.owner}, fewer_ids, fewer)
    np.testing.assert_allclose(again.scaled(2.0).squared_norm(), 4 * (summed(fewer_ids, fewer) ** 2).sum(), rtol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_sharded_by_row_is_the_same(rule, table, rng):
    """On 2 x 2 devices: equal result, the same placement after as before, and no collective of a table's size."""
    config = Mesh(data=2, model=2)
    mesh = config.make()
    state = {"params": {"table": table}, "rows": {"table": rule.init(table)}}
    placement = config.shardings(state, mesh=mesh)

    def step(state, ids, grads):
        new, slots = one_step(rule)(state["params"]["table"], state["rows"]["table"], ids, grads)
        return {"params": {"table": new}, "rows": {"table": slots}}

    plain = jax.jit(step)
    batch = jax.NamedSharding(mesh, jax.P("data"))
    with jax.set_mesh(mesh):
        sharded = jax.jit(step, donate_argnums=0)
        split, expected = jax.device_put(state, placement, may_alias=False), state
        for i, (ids, grads) in enumerate(batches(rng, steps=3, reads=10)):
            inputs = jax.device_put((ids, grads), batch)
            if i == 0:
                hlo = sharded.lower(split, *inputs).compile().as_text()
            split = sharded(split, *inputs)
            expected = plain(expected, ids, grads)
    assert all(
        leaf.sharding.is_equivalent_to(where, leaf.ndim)
        for leaf, where in zip(jax.tree.leaves(split), jax.tree.leaves(placement), strict=True)
    )
    del split["rows"]["table"]["owner"], expected["rows"]["table"]["owner"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), split, expected)
    moved = [line for line in hlo.splitlines() if re.search(r" (all-reduce|all-gather|all-to-all)(-start)?\(", line)]
    assert moved, "expected collectives of the batch's size"
    assert not [line for line in moved if re.search(rf"\[({ROWS}|{ROWS // 2})[,\]]", line)], moved


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_donated_step_copies_no_table(rule):
    rows = 5_000_011
    table = jax.ShapeDtypeStruct((rows, WIDTH), jnp.float32)
    slots = jax.eval_shape(rule.init, table)
    ids = jax.ShapeDtypeStruct((64,), jnp.int32)

    def step(table, slots, ids):
        grads = jax.grad(lambda rows: jnp.sum(jnp.sin(rows)))(table[ids])
        return one_step(rule)(table, slots, ids, grads)

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(table, slots, ids).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**20
    assert not re.findall(rf"= \w+\[{rows}[,\]]\S* copy\(", compiled.as_text())
