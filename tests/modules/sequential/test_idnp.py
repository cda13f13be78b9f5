"""IDNP: its windows, its encoder in numpy, what may know of what, and a latent path that stays in use."""

import chz
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from data.errors import UserError
from data.features import Categorical, Features, Numeric, Sequence
from modules.base import AUX_LOSS
from modules.sequential.idnp import IDNP
from train.graph import split, values_of, with_values
from train.tasks.interest_dynamics import InterestDynamics
from train.tasks.next_item import NextItem

V, T, D, L = 21, 11, 8, 3
FEATURES = Features(
    all=(
        Sequence(name="history", of=Categorical(name="item", rows=V), length=T),
        Categorical(name="person", rows=5, role="user"),
    )
)
CONFIG = IDNP(dim=D, window=L, scales=2, dropout=0.0)
LENGTH = np.array([11, 8, 4, 1, 0], np.int32)


def make(**options):
    return chz.replace(CONFIG, **options).make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    ids = np.where(np.arange(T) < LENGTH[:, None], rng.integers(2, V, (len(LENGTH), T)), 0).astype(np.int32)
    target = np.array([3, 4, 5, 6, 0], np.int32)
    return {"history": ids, "history/length": LENGTH, "person": np.arange(5, dtype=np.int32), "target": target}


def jitted(model):
    graph, state = nnx.split(model)
    return jax.jit(lambda batch, key: nnx.merge(graph, state)(batch, rngs=None if key is None else nnx.Rngs(key)))


def test_windows_end_where_the_item_to_come_does(batch):
    ids, held = make()._windows(jnp.asarray(batch["history"]), jnp.asarray(LENGTH))
    for row, length in enumerate(LENGTH):
        history = [0] * T + batch["history"][row, :length].tolist() + [0]  # the last is to come
        expected = np.array(history[len(history) - 4 * L :]).reshape(4, L)
        np.testing.assert_array_equal(ids[row], expected)
        assert int(held[row].sum()) == min(length, 4 * L - 1) and not held[row, -1, -1]


def test_the_encoder_reads_a_window_at_two_scales(rng):
    model = make()
    x = rng.normal(size=(1, 1, L, D)).astype(np.float32)
    where = np.array([[[False, True, True]]])
    encoder = model.encoder

    def value(p):
        return np.asarray(p.get_value(), np.float64)

    def softmax(v):
        e = np.exp(v - v.max())
        return e / e.sum()

    y = (x[0, 0] + value(encoder.positions.vectors)) * where[0, 0][:, None]
    before = np.concatenate([np.zeros((1, D)), y[:-1]])
    read = []
    for n, inputs in enumerate((y, np.concatenate([y, before], axis=1))):
        h = np.maximum(inputs @ value(encoder.kernels[n].kernel) + value(encoder.kernels[n].bias), 0)
        read.append(softmax(h[1:] @ value(encoder.places)[n]) @ h[1:])
    read = np.stack(read)
    expected = softmax(read @ value(encoder.scales)) @ read
    np.testing.assert_allclose(encoder(jnp.asarray(x), where=jnp.asarray(where))[0, 0], expected, atol=1e-5)
    assert not np.asarray(encoder(jnp.asarray(x), where=jnp.zeros((1, 1, L), bool))).any()


def changed(batch, row, place):
    other = {**batch, "history": batch["history"].copy()}
    other["history"][row, place] = 2 + (batch["history"][row, place] - 1) % (V - 2)
    return other


def test_no_window_sees_what_it_is_asked_and_each_sees_the_context(batch):
    """The same key draws the same context. Row 0 is full: windows end at 2, 5 and 8, and the one to come."""
    forward = jitted(make(paths="deterministic"))
    asked = np.zeros((0,))
    for seed in range(20):
        key = jax.random.key(seed)
        before = forward(batch, key)
        asked = np.asarray(before["asked"])[0]
        if 0 < (asked[:3] > 0).sum() < 3:
            break
    target, context = np.flatnonzero(asked[:3] > 0)[0], np.flatnonzero(asked[:3] == 0)[0]
    assert asked[target] == batch["history"][0, 3 * target + 2] and asked[3] == 0
    after = forward(changed(batch, 0, 3 * target + 2), key)
    np.testing.assert_array_equal(after["hidden"], before["hidden"])
    assert after["asked"][0, target] != asked[target]
    after = forward(changed(batch, 0, 3 * context + 2), key)
    gap = np.abs(after["hidden"][0] - before["hidden"][0]).max(axis=-1)
    assert np.delete(gap, context).min() > 1e-6  # all that ask look it up
    with_latent = jitted(make(paths="latent"))
    moved = with_latent(changed(batch, 0, 3 * target + 2), key)["hidden"][0] - with_latent(batch, key)["hidden"][0]
    assert np.abs(moved).max() > 1e-6  # q(z|C and T) knows it, which is what the KL is for


@pytest.mark.parametrize("paths", ["both", "deterministic", "latent"])
def test_to_predict_every_earlier_window_is_context_and_nothing_is_drawn(batch, paths):
    forward = jitted(make(paths=paths))
    before = forward(batch, None)
    assert before["hidden"].shape == (5, 1, D) and "asked" not in before
    np.testing.assert_array_equal(before["last"], forward(batch, None)["last"])
    for place in range(T):
        gap = np.abs(forward(changed(batch, 0, place), None)["last"] - before["last"]).max(axis=-1)
        assert gap[0] > 1e-7 and not gap[1:].any()
    spoilt = {**batch, "history": np.where(np.arange(T) < LENGTH[:, None], batch["history"], 7)}
    np.testing.assert_array_equal(forward(spoilt, None)["last"], before["last"])
    assert np.isfinite(NextItem().predict(before, batch)["scores"]).all()


def test_the_loss_asks_for_the_windows_ends_and_for_the_target(batch):
    outputs = jitted(make())(batch, jax.random.key(1))
    loss, logs = InterestDynamics().loss(outputs, batch)
    targets = np.array(outputs["asked"])
    targets[:, -1] = batch["target"]
    logits = np.asarray(outputs["hidden"], np.float64) @ np.asarray(outputs["items"], np.float64).T[:, 2:]
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, np.maximum(targets - 2, 0)[..., None], -1)[..., 0]
    expected = nll[targets > 1].mean() + float(outputs[f"{AUX_LOSS}kl"])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(logs[f"{AUX_LOSS}kl"]) > 0


def test_after_some_steps_the_latent_path_is_still_in_use(batch):
    """Whose interests differ by person: the KL goes neither to nothing nor up without end."""
    rng = np.random.default_rng(1)
    tastes = np.stack([rng.choice(np.arange(2, V), 4, replace=False) for _ in range(32)])
    many = {
        "history": np.take_along_axis(tastes, rng.integers(0, 4, (32, T)), axis=1).astype(np.int32),
        "history/length": np.full(32, T, np.int32),
        "target": tastes[np.arange(32), rng.integers(0, 4, 32)].astype(np.int32),
    }
    graph, params, stats = split(make())
    tx = optax.adam(1e-2)

    @jax.jit
    def step(values, opt, key):
        def loss_of(values):
            model = nnx.merge(graph, with_values(params, values), stats)
            return InterestDynamics().loss(model(many, rngs=nnx.Rngs(key)), many)

        (loss, logs), grads = jax.value_and_grad(loss_of, has_aux=True)(values)
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(values, updates), opt, loss, logs[f"{AUX_LOSS}kl"]

    values = values_of(params)
    opt, losses = tx.init(values), []
    for number in range(60):
        values, opt, loss, kl = step(values, opt, jax.random.key(number))
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    assert 0.01 < float(kl) / CONFIG.kl < 5


def test_a_person_may_be_known(batch):
    model = make(user="person")
    other = {**batch, "person": np.array([1, 1, 2, 3, 4], np.int32)}
    gap = np.abs(model(other)["last"] - model(batch)["last"]).max(axis=-1)
    assert gap[0] > 1e-5 and not gap[1:].any()


def test_what_it_refuses(batch):
    with pytest.raises(ValueError, match="a window has two items"):
        IDNP(window=1)
    features = Features(all=(Sequence(name="history", of=Numeric(name="price"), length=T),))
    with pytest.raises(ValueError, match="'history' is one of numbers"):
        IDNP().make(features, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="RandomPrefix"):
        InterestDynamics().loss({}, {})
    with pytest.raises(UserError, match="IDNP"):
        InterestDynamics().loss({}, batch)
