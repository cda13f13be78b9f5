"""The global user's losses: sampled softmax that tends to the full one, classes known, tags of those read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.features import FIRST
from train.tasks.global_user import GlobalUserLoss

B, T, V, D, C = 6, 3, 40, 5, 4


@pytest.fixture
def case(rng):
    outputs = {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in {
        "hidden": (B, T, D), "items": (V, D), "last": (B, D), "user": (B, D), "interests": (B, C),
    }.items()}  # fmt: skip
    for name in ("aligned", "tags"):
        x = rng.normal(size=(B, D))
        outputs[name] = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32)
    batch = {
        "targets": np.where(rng.random((B, T)) < 0.7, rng.integers(FIRST, V, (B, T)), 0),
        "interests": (rng.random((B, C)) < 0.4).astype(np.float32),
        "interests/known": np.array([1, 1, 0, 1, 0, 1], np.float32),
        "tagged": np.array([1, 0, 1, 1, 1, 0], np.float32),
    }
    return outputs, batch


ONLY = {"interests": 0.0, "align": 0.0, "scale": 3.0}


def drawn(ids, share):
    count = -(-len(ids) // B) * B
    ids = np.pad(ids, (0, count - len(ids)))
    return {"negatives": ids.reshape(B, -1), "negatives/logq": np.log(share[ids]).reshape(B, -1).astype(np.float32)}


def test_all_tokens_as_negatives_are_the_full_softmax(case):
    outputs, batch = case
    ids = np.arange(FIRST, V)
    ids = np.concatenate([ids, np.zeros(-len(ids) % B, int)])  # 0 is no token and does not count
    even = np.full(V, 1 / len(ids))
    sampled = GlobalUserLoss(**ONLY).loss(outputs, {**batch, **drawn(ids, even)})[0]
    full = GlobalUserLoss(**ONLY, objective="full").loss(outputs, batch)[0]
    np.testing.assert_allclose(sampled, full, rtol=1e-5)


def test_the_gradient_tends_to_the_full_one_and_without_the_rates_it_does_not(case, rng):
    outputs, batch = case
    share = np.zeros(V)
    share[FIRST:] = 1 / np.arange(1, V - FIRST + 1)
    share /= share.sum()
    ids = rng.choice(V, p=share, size=12_000)

    def grad(extra, **options):
        return jax.grad(
            lambda h: GlobalUserLoss(**ONLY, **options).loss({**outputs, "hidden": h}, {**batch, **extra})[0]
        )(outputs["hidden"])

    full = grad({}, objective="full")
    few, many = (np.abs(grad(drawn(ids[:n], share)) - full).max() for n in (60, 12_000))
    raw = np.abs(grad(drawn(ids, share), logq=False) - full).max()
    size = np.abs(full).max()
    assert many < 0.05 * size < few and raw > 4 * many


def test_the_sum_of_the_losses_written_out(case):
    outputs, batch = case
    task = GlobalUserLoss(objective="full", scale=3.0, interests=0.5, align=0.1, temperature=0.2, alike=2.0)
    total, logs = task.loss(outputs, batch)

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    logits = 3.0 * np.einsum("btd,vd->btv", unit(np.asarray(outputs["hidden"])), unit(np.asarray(outputs["items"])))
    logits = logits[..., FIRST:]
    where = batch["targets"] >= FIRST
    own = np.take_along_axis(logits, np.maximum(batch["targets"] - FIRST, 0)[..., None], -1)[..., 0]
    masked = (np.log(np.exp(logits).sum(-1)) - own)[where].mean()
    z, y = np.asarray(outputs["interests"]), batch["interests"]
    bce = (np.log1p(np.exp(z)) - y * z).mean(1)[batch["interests/known"] > 0].mean()
    rows = batch["tagged"] > 0
    s = np.asarray(outputs["aligned"])[rows] @ np.asarray(outputs["tags"])[rows].T / 0.2
    nce = -(np.diag(s) - np.log(np.exp(s).sum(1))).mean() / 2 - (np.diag(s) - np.log(np.exp(s).sum(0))).mean() / 2
    np.testing.assert_allclose([logs["masked"], logs["interests"], logs["align"]], [masked, bce, nce], rtol=1e-4)
    np.testing.assert_allclose(total, masked + 0.5 * bce + 0.1 * nce, rtol=1e-4)


def test_people_of_like_tags_are_no_negatives(case):
    outputs, batch = case
    tags = outputs["tags"].at[2].set(outputs["tags"][0])
    options = {"objective": "full", "scale": 3.0, "interests": 0.0}

    def pull(alike):
        def loss(aligned):
            found = {**outputs, "tags": tags, "aligned": aligned}
            return GlobalUserLoss(**options, alike=alike).loss(found, {**batch, "tagged": np.eye(B)[0] + np.eye(B)[2]})[
                1
            ]

        return jax.grad(lambda a: loss(a)["align"])(outputs["aligned"])

    np.testing.assert_allclose(pull(0.9), 0, atol=1e-6)
    assert np.abs(outputs["aligned"][0] - outputs["aligned"][2]).max() > 0.1 and pull(2.0) is not None


def test_predictions_rank_tokens_and_classes_and_serving_has_no_more(case):
    outputs, batch = case
    found = GlobalUserLoss().predict(outputs, batch)
    assert (found["scores"][:, :FIRST] < -1e8).all() and found["scores"].shape == (B, V)
    np.testing.assert_allclose(found["interests"][:, FIRST:], outputs["interests"])
    assert set(GlobalUserLoss().serve(found)) == {"user", "interests"}
    with pytest.raises(UserError, match="targets"):
        GlobalUserLoss().loss(outputs, {})
