"""ICSRec: its encoder is SASRec's, and in training a second history goes through it too."""

import chz
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data.errors import UserError
from data.features import Categorical, Features, Sequence
from modules.losses.intents import coarse_intents, fine_intents
from modules.sequential.icsrec import ICSRec
from modules.sequential.sasrec import SASRec
from train.tasks.intent_contrast import IntentContrast
from train.tasks.next_item import NextItem

V, T, D, B = 21, 5, 8, 4
ITEM = Categorical(name="item", rows=V)
FEATURES = Features(all=tuple(Sequence(name=name, of=ITEM, length=T) for name in ("history", "other_history")))
CONFIG = ICSRec(encoder=SASRec(dim=D, depth=1, dropout=0.0, norm="post"), intents=3)


@pytest.fixture(scope="module")
def model():
    return CONFIG.make(FEATURES, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    found = {"target": np.array([3, 5, 3, 0], np.int32)}
    for name, lengths in (("history", [5, 2, 1, 3]), ("other_history", [1, 5, 5, 3])):
        length = np.array(lengths, np.int32)
        found[name] = np.where(np.arange(T) < length[:, None], rng.integers(2, V, (B, T)), 0).astype(np.int32)
        found[f"{name}/length"] = length
    return found


@pytest.fixture(scope="module")
def outputs(model, batch):
    return model(batch, rngs=nnx.Rngs(1))


def test_both_histories_go_through_one_encoder(model, batch, outputs):
    other = {"history": batch["other_history"], "history/length": batch["other_history/length"]}
    np.testing.assert_allclose(outputs["last"], model(batch)["last"], atol=1e-5)
    np.testing.assert_allclose(outputs["other"], model(other)["last"], atol=1e-5)
    np.testing.assert_array_equal(outputs["hidden"].shape, (B, T, D))
    assert "other" not in model(batch) and "centres" not in model(batch)


def test_the_loss_is_the_sum_of_three(batch, outputs):
    task = IntentContrast(coarse=0.3, fine=0.2, temperature=0.5)
    where, target = jnp.asarray(batch["target"]) >= 2, jnp.asarray(batch["target"])
    given = {"temperature": 0.5, "where": where}
    plain, _ = NextItem().loss(
        {"hidden": outputs["last"][:, None], "items": outputs["items"]}, {"targets": target[:, None]}
    )
    coarse = coarse_intents(outputs["last"], outputs["other"], target, **given)
    centres = jnp.eye(3, D)
    fine = fine_intents(outputs["last"], centres, **given) + fine_intents(outputs["other"], centres, **given)
    total, logs = task.loss({**outputs, "centres": centres, "centres/made": jnp.array(True)}, batch)
    assert float(total) == pytest.approx(float(plain + 0.3 * coarse + 0.2 * fine), rel=1e-5)
    assert float(logs["coarse_loss"]) == pytest.approx(float(coarse), rel=1e-5)
    assert float(chz.replace(task, mask_false=False).loss(outputs, batch)[1]["fine_loss"]) == 0  # nothing is clustered
    before, logs = task.loss(outputs, batch)
    assert float(logs["fine_loss"]) == 0
    assert float(before) == pytest.approx(float(plain + 0.3 * coarse), rel=1e-5)
    control, _ = chz.replace(task, coarse=0.0, fine=0.0).loss({n: outputs[n] for n in ("last", "items")}, batch)
    assert float(control) == pytest.approx(float(plain), rel=1e-5)


def test_without_the_mask_rows_of_the_same_target_push_each_other_away(batch, outputs):
    masked, unmasked = (IntentContrast(fine=0.0, mask_false=mask).loss(outputs, batch)[0] for mask in (True, False))
    assert float(unmasked) > float(masked)


def test_what_it_refuses(model, batch):
    with pytest.raises(UserError, match="train on Prefixes"):
        IntentContrast().loss(model(batch), {})
    with pytest.raises(UserError, match="SameTarget"):
        IntentContrast().loss(model(batch), batch)
    with pytest.raises(ValueError, match="at least one cluster"):
        ICSRec(intents=0)
