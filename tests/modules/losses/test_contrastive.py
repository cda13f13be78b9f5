"""Contrastive losses against numpy, and the form that travels round the mesh against the dense one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.contrastive import scale_of, sigmoid_contrastive, softmax_contrastive

N, D = 16, 6
OPTIONS = {
    "plain": {},
    "false negatives": {"labels": True},
    "multi-positive": {"labels": True, "positives": "all"},
    "smoothing": {"labels": True, "smoothing": 0.1},
    "one way, logq": {"labels": True, "logq": True, "symmetric": False},
}


@pytest.fixture
def arrays(rng):
    query, item = rng.normal(size=(2, N, D)).astype(np.float32)
    return {"query": query, "item": item, "labels": rng.integers(0, 6, N), "logq": np.log(rng.random(N, np.float32))}


def given(options, arrays):
    return {k: arrays[k] if k in ("labels", "logq") else v for k, v in options.items()}


def oracle(query, item, *, scale, labels=None, positives="one", smoothing=0.0, logq=None, symmetric=True):
    labels = np.arange(N) if labels is None else labels
    same, pair = labels[:, None] == labels[None], np.eye(N, dtype=bool)
    target, allowed = (same, np.ones_like(same)) if positives == "all" else (pair, pair | ~same)

    def one_way(logits):
        p = np.where(allowed, np.exp(logits), 0)
        logp = logits - np.log(p.sum(1, keepdims=True))
        hit = (logp * target).sum(1) / target.sum(1)
        return -((1 - smoothing) * hit + smoothing * (logp * allowed).sum(1) / allowed.sum(1)).mean()

    logits = scale * query.astype(np.float64) @ item.T
    forth = one_way(logits if logq is None else logits - logq[None])
    return (forth + one_way(logits.T)) / 2 if symmetric else forth


@pytest.mark.parametrize("name", OPTIONS)
def test_softmax_equals_numpy(arrays, name):
    options = given(OPTIONS[name], arrays)
    loss = softmax_contrastive(arrays["query"], arrays["item"], scale=1.5, **options)
    assert float(loss) == pytest.approx(oracle(arrays["query"], arrays["item"], scale=1.5, **options), rel=1e-5)


@pytest.mark.parametrize("positives", ["one", "all"])
def test_sigmoid_equals_numpy(arrays, positives):
    query, item, labels = arrays["query"], arrays["item"], arrays["labels"]
    logits = 1.5 * query.astype(np.float64) @ item.T - 2
    same, pair = labels[:, None] == labels[None], np.eye(N, dtype=bool)
    positive, allowed = (same, True) if positives == "all" else (pair, pair | ~same)
    expected = np.where(allowed, np.log1p(np.exp(np.where(positive, -1, 1) * logits)), 0).sum() / N
    loss = sigmoid_contrastive(query, item, scale=1.5, bias=-2.0, labels=labels, positives=positives)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@functools.cache
def mesh(data, model):
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


@pytest.mark.parametrize("shape", [(4, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("name", [*OPTIONS, "sigmoid"])
def test_round_the_mesh_equals_dense_in_value_and_gradient(arrays, name, shape):
    if name == "sigmoid":
        loss = functools.partial(sigmoid_contrastive, labels=arrays["labels"], bias=-1.0)
    else:
        loss = functools.partial(softmax_contrastive, **given(OPTIONS[name], arrays))

    def run(query, item, scale, chunk=None):
        return loss(query, item, scale=scale, chunk=chunk)

    sides = (arrays["query"], arrays["item"])
    dense = jax.value_and_grad(run, argnums=(0, 1, 2))(*sides, 1.5)
    with jax.set_mesh(mesh(*shape)):
        split = jax.device_put(sides, jax.NamedSharding(mesh(*shape), jax.P("data")))
        chunked = jax.jit(jax.value_and_grad(functools.partial(run, chunk=2), argnums=(0, 1, 2)))
        around = chunked(*split, 1.5)
        text = chunked.lower(*split, 1.5).as_text()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), dense, around)
    assert f"tensor<{N // shape[0]}x2x" in text
    assert f"tensor<{N}x{N}x" not in text


def test_chunks_without_a_mesh(arrays):
    sides = (arrays["query"], arrays["item"])
    whole = softmax_contrastive(*sides, scale=1.0)
    assert float(softmax_contrastive(*sides, scale=1.0, chunk=4)) == pytest.approx(float(whole), rel=1e-6)
    with pytest.raises(ValueError, match="16 rows per device do not divide into chunks of 5"):
        softmax_contrastive(*sides, scale=1.0, chunk=5)


def test_known_values(rng):
    one = rng.normal(size=(1, D)).astype(np.float32)
    assert float(softmax_contrastive(one, one, scale=3.0)) == pytest.approx(0, abs=1e-6)
    eye = np.eye(8, dtype=np.float32)
    assert float(softmax_contrastive(eye, eye, scale=1.0)) == pytest.approx(np.log(1 + 7 / np.e), rel=1e-6)
    far = rng.normal(size=(2, 64, 4096)).astype(np.float32)
    far /= np.linalg.norm(far, axis=-1, keepdims=True)
    assert float(softmax_contrastive(*far, scale=1.0)) == pytest.approx(np.log(64), rel=0.01)


def test_sides_are_equal_and_masked_rows_teach_nothing(arrays):
    query, item = arrays["query"], arrays["item"]
    forth = softmax_contrastive(query, item, scale=1.0, labels=arrays["labels"])
    back = softmax_contrastive(item, query, scale=1.0, labels=arrays["labels"])
    assert float(forth) == pytest.approx(float(back), rel=1e-6)
    all_the_same = jnp.zeros(N, jnp.int32)
    grad = jax.grad(lambda i: softmax_contrastive(query, i, scale=1.0, labels=all_the_same))(item)
    np.testing.assert_allclose(grad, 0, atol=1e-7)


def test_a_clamped_scale_can_still_come_down():
    assert float(scale_of(jnp.asarray(9.0))) == pytest.approx(100, rel=1e-5)
    up, down = (jax.grad(lambda s, sign=sign: sign * scale_of(s))(jnp.asarray(9.0)) for sign in (-1.0, 1.0))
    assert float(up) == 0  # descent would raise it further
    assert float(down) > 0
    assert float(jax.grad(scale_of)(jnp.asarray(1.0))) == pytest.approx(np.e, rel=1e-5)
