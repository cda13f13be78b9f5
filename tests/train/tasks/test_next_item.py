"""The next-item task: four losses by one word, scores for evaluators, a list for serving."""

import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from train.tasks.next_item import NextItem

B, T, V, D, N = 2, 4, 9, 3, 5


@pytest.fixture
def outputs(rng):
    hidden, items = rng.normal(size=(B, T, D)), rng.normal(size=(V, D))
    arrays = {"hidden": hidden, "items": items, "last": hidden[:, 1]}
    return {name: jnp.asarray(a, jnp.float32) for name, a in arrays.items()}


@pytest.fixture
def batch(rng):
    negatives = rng.integers(2, V, (B, T, N))
    negatives[0, 0, 0] = 4  # the target after all
    negatives[1, 1, 2] = 1  # no item
    return {
        "history": jnp.array([[3, 4, 0, 0], [5, 6, 7, 8]]),
        "history/length": jnp.array([2, 4]),
        "targets": jnp.array([[4, 5, 0, 0], [6, 7, 8, 1]]),
        "negatives": jnp.asarray(negatives),
    }


def by_hand(outputs, batch, one):
    """Mean of `one(positive, negatives)` over positions with a target that is an item."""
    hidden, items = np.asarray(outputs["hidden"], np.float64), np.asarray(outputs["items"], np.float64)
    losses = []
    for b, t in np.argwhere(np.asarray(batch["targets"]) >= 2):
        negatives = np.asarray(batch["negatives"])[b, t]
        negatives = negatives[(negatives != batch["targets"][b, t]) & (negatives >= 2)]
        losses.append(one(hidden[b, t] @ items[batch["targets"][b, t]], items[negatives] @ hidden[b, t]))
    assert len(losses) == 5
    return np.mean(losses)


def test_each_word_is_its_loss(outputs, batch):
    def softplus(x):
        return np.log1p(np.exp(x))

    beta = (N / 6) * (0.75 * (1 - 6 / N) + 6 / N)
    oracles = {
        "bce": lambda p, n: softplus(-p) + softplus(n).sum(),
        "gbce": lambda p, n: beta * softplus(-p) + softplus(n).sum(),
        "sampled_softmax": lambda p, n: np.log(np.exp(p) + np.exp(n).sum()) - p,
    }
    for objective, one in oracles.items():
        loss, logs = NextItem(objective=objective).loss(outputs, batch)
        assert float(loss) == pytest.approx(by_hand(outputs, batch, one), rel=1e-5), objective
        assert logs["loss"] is loss
    logits = np.asarray(outputs["hidden"] @ outputs["items"].T, np.float64)[..., 2:]
    full = [
        np.log(np.exp(logits[b, t]).sum()) - logits[b, t, batch["targets"][b, t] - 2]
        for b, t in np.argwhere(np.asarray(batch["targets"]) >= 2)
    ]
    for chunk in (None, 1):
        assert float(NextItem(chunk=chunk).loss(outputs, batch)[0]) == pytest.approx(np.mean(full), rel=1e-5)


def test_shared_negatives_are_those_of_each_position(outputs, batch):
    shared = {**batch, "negatives": batch["negatives"][:, 0]}
    spread = {**batch, "negatives": jnp.broadcast_to(batch["negatives"][:, :1], (B, T, N))}
    for objective in ("bce", "sampled_softmax"):
        task = NextItem(objective=objective)
        assert float(task.loss(outputs, shared)[0]) == pytest.approx(float(task.loss(outputs, spread)[0]), rel=1e-6)


def test_pooled_negatives_serve_every_row(outputs, batch):
    shared = {**batch, "negatives": batch["negatives"][:, 0]}
    everywhere = jnp.broadcast_to(shared["negatives"].reshape(1, 1, -1), (B, T, B * N))
    rates = {"targets/logq": jnp.zeros((B, T)), "negatives/logq": jnp.arange(B * N, dtype=jnp.float32).reshape(B, N)}
    spread = {"negatives": everywhere, "negatives/logq": jnp.broadcast_to(jnp.arange(B * N) * 1.0, (B, T, B * N))}
    for objective in ("bce", "sampled_softmax"):
        for pooled, whole in (({}, {"negatives": everywhere}), (rates, rates | spread)):
            found, _ = NextItem(objective=objective, pooled=True).loss(outputs, {**shared, **pooled})
            expected, _ = NextItem(objective=objective).loss(outputs, {**batch, **whole})
            assert float(found) == pytest.approx(float(expected), rel=1e-5), objective
    with pytest.raises(UserError, match="shared=True"):
        NextItem(objective="bce", pooled=True).loss(outputs, batch)


def test_sampling_rates_come_off_the_scores(outputs, batch, rng):
    rates = {"targets/logq": jnp.asarray(rng.normal(size=(B, T))), "negatives/logq": jnp.full((B, T, N), -3.0)}
    task = NextItem(objective="sampled_softmax")
    plain, corrected = task.loss(outputs, batch)[0], task.loss(outputs, {**batch, **rates})[0]
    assert float(plain) != pytest.approx(float(corrected), rel=1e-3)
    equal = {"targets/logq": jnp.full((B, T), -3.0), "negatives/logq": jnp.full((B, T, N), -3.0)}
    assert float(task.loss(outputs, {**batch, **equal})[0]) == pytest.approx(float(plain), rel=1e-5)


def test_serving_leaves_out_history_and_reserved_ids(outputs, batch):
    predictions = NextItem().predict(outputs, batch)
    served = NextItem(top_k=4).serve(predictions)
    assert served["item"].shape == (B, 4)
    scores = np.asarray(outputs["last"] @ outputs["items"].T)
    for row, seen in enumerate(({3, 4}, {5, 6, 7, 8})):
        ranked = [i for i in np.argsort(-scores[row]) if i >= 2 and i not in seen]
        count = min(4, len(ranked))
        assert served["item"][row, :count].tolist() == ranked[:count]
        np.testing.assert_allclose(served["score"][row, :count], scores[row, ranked[:count]], rtol=1e-6)
    with_history = NextItem(top_k=1, mask_history=False).serve(predictions)
    assert with_history["item"][:, 0].tolist() == (2 + scores[:, 2:].argmax(1)).tolist()


def test_prediction_reads_inputs_alone(outputs, batch):
    inputs = {name: batch[name] for name in ("history", "history/length")}
    assert NextItem().predict(outputs, inputs)["scores"].shape == (B, V)


def test_a_missing_array_names_the_transform(outputs, batch):
    del batch["negatives"]
    with pytest.raises(UserError, match=r"needs 'negatives' in the batch; add .*history.py"):
        NextItem(objective="bce").loss(outputs, batch)
