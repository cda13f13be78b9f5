"""Contrastive losses against numpy, and the form that travels round the mesh against the dense one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.contrastive import Outside, scale_of, sigmoid_contrastive, softmax_contrastive

N, D, HARD, BANK = 16, 6, 3, 5
OPTIONS = {
    "plain": {},
    "false negatives": {"labels": True},
    "multi-positive": {"labels": True, "positives": "all"},
    "smoothing": {"labels": True, "smoothing": 0.1},
    "one way, logq": {"labels": True, "logq": True, "symmetric": False},
    "missing rows": {"labels": True, "where": True, "positives": "all"},
    "duplicates": {"duplicate": 0.9, "negatives": True, "bank": True, "symmetric": False},
    "hard negatives": {"negatives": True, "where": True, "smoothing": 0.1},
    "bank": {"bank": True, "labels": True, "logq": True},
}
SIGMOID = {n: o for n, o in OPTIONS.items() if not {"smoothing", "logq", "symmetric"} & o.keys()}
SIGMOID |= {"all negatives": {"negatives": True, "bank": True, "duplicate": 0.9, "where": True}}


@pytest.fixture
def arrays(rng):
    query, item = rng.normal(size=(2, N, D)).astype(np.float32)
    item[3], item[9] = 2 * item[0], item[5] + 0.1  # as one product listed twice
    negatives = Outside(rng.normal(size=(N, HARD, D)).astype(np.float32), rng.random((N, HARD)) < 0.7)
    negatives.x[4, 1], negatives.where[4, 1] = 3 * item[4], True
    bank = Outside(rng.normal(size=(BANK, D)).astype(np.float32), np.arange(BANK) < 4)
    bank.x[2] = item[7]
    return {
        **{"query": query, "item": item, "labels": rng.integers(0, 6, N), "logq": np.log(rng.random(N, np.float32))},
        **{"where": rng.random(N) < 0.7, "negatives": negatives, "bank": bank},
    }


def given(options, arrays):
    return {k: arrays[k] if v is True else v for k, v in options.items()}


def length_1(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pairs(item, *, labels=None, positives="one", where=None, duplicate=None):
    """Which pairs are positive and which count, both [N, N]; and the rows that count."""
    labels = np.arange(N) if labels is None else labels
    where = np.ones(N, bool) if where is None else where
    same, pair = labels[:, None] == labels[None], np.eye(N, dtype=bool)
    both = where[:, None] & where[None]
    far = both if duplicate is None else both & (length_1(item) @ length_1(item).T <= duplicate)
    if positives == "all":
        return pair | (same & both), pair | (same & both) | far, where
    return pair, pair | (far & ~same), where


def outside(query, item, *, negatives=None, bank=None, duplicate=None):
    """Logits and masks of the columns that are not items of the batch."""
    logits, allowed = [np.zeros((N, 0))], [np.zeros((N, 0), bool)]
    for i in range(N):
        for these in (negatives, bank):
            x = np.zeros((0, D)) if these is None else these.x if these.x.ndim == 2 else these.x[i]
            keep = np.zeros(0, bool) if these is None else these.where if these.x.ndim == 2 else these.where[i]
            near = duplicate is not None and length_1(x) @ length_1(item[i]) > duplicate
            logits.append(x @ query[i].astype(np.float64))
            allowed.append(keep & ~np.asarray(near))
    rows = [np.concatenate(part) for part in zip(logits[1::2], logits[2::2], strict=True)]
    masks = [np.concatenate(part) for part in zip(allowed[1::2], allowed[2::2], strict=True)]
    return np.stack(rows), np.stack(masks)


def oracle(query, item, *, scale, smoothing=0.0, logq=None, symmetric=True, negatives=None, bank=None, **masks):
    target, allowed, where = pairs(item, **masks)

    def one_way(logits, target, allowed):
        p = np.where(allowed, np.exp(logits), 0)
        logp = logits - np.log(p.sum(1, keepdims=True))
        hit = (logp * target).sum(1) / target.sum(1)
        return -((1 - smoothing) * hit + smoothing * (logp * allowed).sum(1) / allowed.sum(1))[where].mean()

    more, counts = outside(query, item, negatives=negatives, bank=bank, duplicate=masks.get("duplicate"))
    logits = scale * query.astype(np.float64) @ item.T
    less = logits if logq is None else logits - logq[None]
    forth = one_way(
        np.concatenate([less, scale * more], 1),
        np.concatenate([target, np.zeros_like(counts)], 1),
        np.concatenate([allowed, counts], 1),
    )
    return (forth + one_way(logits.T, target.T, allowed.T)) / 2 if symmetric else forth


@pytest.mark.parametrize("name", OPTIONS)
def test_softmax_equals_numpy(arrays, name):
    options = given(OPTIONS[name], arrays)
    loss = softmax_contrastive(arrays["query"], arrays["item"], scale=1.5, **options)
    assert float(loss) == pytest.approx(oracle(arrays["query"], arrays["item"], scale=1.5, **options), rel=1e-5)


@pytest.mark.parametrize("name", SIGMOID)
def test_sigmoid_equals_numpy(arrays, name):
    options = given(SIGMOID[name], arrays)
    beyond = {n: options[n] for n in ("negatives", "bank") if n in options}
    query, item = arrays["query"], arrays["item"]
    positive, allowed, where = pairs(item, **{n: v for n, v in options.items() if n not in beyond})
    logits = 1.5 * query.astype(np.float64) @ item.T - 2
    each = np.where(allowed, np.log1p(np.exp(np.where(positive, -1, 1) * logits)), 0).sum(1)
    more, counts = outside(query, item, duplicate=options.get("duplicate"), **beyond)
    each += np.where(counts, np.log1p(np.exp(1.5 * more - 2)), 0).sum(1)
    loss = sigmoid_contrastive(query, item, scale=1.5, bias=-2.0, **options)
    assert float(loss) == pytest.approx(each[where].mean(), rel=1e-5)


@functools.cache
def mesh(data, model):
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


AROUND = [(name, (4, 1)) for name in [*OPTIONS, "sigmoid", "sigmoid, all negatives"]]
AROUND += [(name, (2, 2)) for name in ("plain", "hard negatives", "sigmoid")]


@pytest.mark.parametrize(("name", "shape"), AROUND, ids=str)
def test_round_the_mesh_equals_dense_in_value_and_gradient(arrays, name, shape):
    if name == "sigmoid":
        loss = functools.partial(sigmoid_contrastive, labels=arrays["labels"], bias=-1.0)
    elif name.startswith("sigmoid"):
        loss = functools.partial(sigmoid_contrastive, bias=-1.0, **given(SIGMOID["all negatives"], arrays))
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


def test_a_batch_in_which_nothing_counts_loses_nothing(arrays):
    nothing = np.zeros(N, bool)
    for loss in (softmax_contrastive, sigmoid_contrastive):
        run = functools.partial(loss, scale=1.0, where=nothing, negatives=arrays["negatives"])
        value, grad = jax.value_and_grad(run)(np.zeros((N, D), np.float32), arrays["item"])
        assert float(value) == 0
        np.testing.assert_array_equal(grad, 0)


def test_a_clamped_scale_can_still_come_down():
    assert float(scale_of(jnp.asarray(9.0))) == pytest.approx(100, rel=1e-5)
    up, down = (jax.grad(lambda s, sign=sign: sign * scale_of(s))(jnp.asarray(9.0)) for sign in (-1.0, 1.0))
    assert float(up) == 0  # descent would raise it further
    assert float(down) > 0
    assert float(jax.grad(scale_of)(jnp.asarray(1.0))) == pytest.approx(np.e, rel=1e-5)
