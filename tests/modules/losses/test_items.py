"""Losses of next-item models against numpy, and the chunked softmax against the whole one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.items import full_softmax, gbce_beta, sampled_bce, sampled_softmax

B, T, V, D, N = 3, 7, 11, 4, 5


@pytest.fixture
def arrays(rng):
    hidden = rng.normal(size=(B, T, D)).astype(np.float32)
    items = rng.normal(size=(V, D)).astype(np.float32)
    targets = rng.integers(2, V, (B, T)).astype(np.int32)
    where = rng.random((B, T)) < 0.6
    return hidden, items, targets, where


def test_full_softmax_equals_numpy_and_never_sees_the_reserved_ids(arrays):
    hidden, items, targets, where = arrays
    logits = hidden @ items[2:].T
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None] - 2, -1)[..., 0]
    loss = full_softmax(hidden, items, targets, where=where, first=2)
    assert float(loss) == pytest.approx(nll[where].mean(), rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
def test_chunked_softmax_is_exact_in_value_and_gradient(arrays, chunk):
    hidden, items, targets, where = arrays

    def run(hidden, items, chunk=None):
        return full_softmax(hidden, items, targets, where=where, first=2, chunk=chunk)

    whole = jax.value_and_grad(run, argnums=(0, 1))(hidden, items)
    parts = jax.jit(jax.value_and_grad(lambda h, i: run(h, i, chunk), argnums=(0, 1)))(hidden, items)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, parts)


def test_chunked_softmax_of_scores_whose_powers_overflow_is_exact(arrays):
    hidden, items, targets, where = arrays

    def run(hidden, items, chunk=None):
        return full_softmax(100 * hidden, items, targets, where=where, first=2, chunk=chunk)

    whole, parts = (jax.value_and_grad(run, argnums=(0, 1))(hidden, items, chunk) for chunk in (None, 3))
    assert np.isfinite(whole[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), whole, parts)


def test_chunked_softmax_holds_no_logits_of_all_positions(arrays):
    hidden, items, targets, where = arrays
    grad = jax.grad(lambda h: full_softmax(h, items, targets, where=where, chunk=1))
    text = str(jax.make_jaxpr(grad)(hidden))
    assert f"[{B},{V}]" in text
    assert f"[{B * T},{V}]" not in text
    assert f"{B},{T},{V}]" not in text


def test_chunked_softmax_of_a_batch_on_four_devices_stays_there(rng):
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    hidden, items = rng.normal(size=(8, T, D)).astype(np.float32), rng.normal(size=(V, D)).astype(np.float32)
    targets, where = rng.integers(2, V, (8, T)).astype(np.int32), rng.random((8, T)) < 0.6

    def run(hidden, items, targets, where):
        return full_softmax(hidden, items, targets, where=where, first=2, chunk=3)

    graded = jax.jit(jax.value_and_grad(run, argnums=(0, 1)))
    on_one = graded(hidden, items, targets, where)
    spread = [jax.device_put(x, rows) for x in (hidden, targets, where)]
    given = spread[0], jax.device_put(items, jax.NamedSharding(mesh, jax.P())), *spread[1:]
    assert "all-gather" not in graded.lower(*given).compile().as_text()
    on_four = graded(*given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), on_one, on_four)
    assert on_four[1][0].sharding.is_equivalent_to(rows, 3)


def test_sampled_losses_equal_numpy_and_skip_hits(rng):
    positive, negative = rng.normal(size=(B, T)), rng.normal(size=(B, T, N))
    where, hits = rng.random((B, T)) < 0.7, rng.random((B, T, N)) < 0.3

    def log_sigmoid(x):
        return -np.log1p(np.exp(-x))

    bce = -0.4 * log_sigmoid(positive) - np.where(hits, 0, log_sigmoid(-negative)).sum(-1)
    given = {"where": jnp.asarray(where), "hits": jnp.asarray(hits)}
    positive_, negative_ = jnp.asarray(positive), jnp.asarray(negative)
    assert float(sampled_bce(positive_, negative_, beta=0.4, **given)) == pytest.approx(bce[where].mean(), rel=1e-5)

    pq, nq = np.log(rng.random((B, T))), np.log(rng.random((B, T, N)))
    mass = np.exp(positive - pq) + np.where(hits, 0, np.exp(negative - nq)).sum(-1)
    expected = (np.log(mass) - (positive - pq))[where].mean()
    loss = sampled_softmax(positive_, negative_, positive_logq=jnp.asarray(pq), negative_logq=jnp.asarray(nq), **given)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_sampled_softmax_over_all_items_is_the_full_softmax(arrays):
    hidden, items, targets, where = arrays
    every = np.broadcast_to(np.arange(V), (B, T, V))
    positive = np.einsum("btd,btd->bt", hidden, items[targets])
    loss = sampled_softmax(positive, hidden @ items.T, where=where, hits=every == targets[..., None])
    assert float(loss) == pytest.approx(float(full_softmax(hidden, items, targets, where=where)), rel=1e-5)


def test_gbce_beta_goes_from_plain_to_calibrated():
    assert gbce_beta(negatives=8, items=101, calibration=0) == pytest.approx(1)
    assert gbce_beta(negatives=8, items=101, calibration=1) == pytest.approx(0.08)


def test_a_batch_without_targets_has_loss_zero(arrays):
    hidden, items, targets, where = arrays
    assert float(full_softmax(hidden, items, targets, where=np.zeros_like(where), chunk=2)) == 0
