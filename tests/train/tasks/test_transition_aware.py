"""TransitionAware adds its weight of the distillation of the places drawn, and says what it lacks."""

import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.transforms.transitions import NEXT, PLACE, STRENGTH
from modules.losses.transitions import transition_distillation
from train.tasks.next_item import NextItem
from train.tasks.transition_aware import TransitionAware

B, T, V, D, N, K = 2, 3, 7, 4, 2, 2


@pytest.fixture
def given(rng):
    outputs = {name: jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32) for name in ("hidden", "inputs")}
    outputs["items"] = jnp.asarray(rng.normal(size=(V, D)), jnp.float32)
    batch = {
        "targets": jnp.asarray(rng.integers(2, V, (B, T))),
        PLACE: jnp.array([[2, 0], [1, 1]]),
        NEXT: jnp.array([[[3, 4], [0, 0]], [[5, 0], [6, 2]]]),
        STRENGTH: jnp.array([[[1.0, 0.5], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.2]]]),
    }
    return outputs, batch


def test_the_loss_is_that_of_next_items_and_a_share_of_the_teacher_s(given):
    outputs, batch = given
    student = jnp.stack([outputs["inputs"][0, 2], outputs["inputs"][1, 1], outputs["inputs"][1, 1]])
    taught = transition_distillation(
        student,
        outputs["items"],
        successors=jnp.array([[3, 4], [5, 0], [6, 2]]),
        strengths=jnp.array([[1.0, 0.5], [1.0, 0.0], [1.0, 0.2]]),
        where=jnp.ones(3, bool),
        temperature=0.2,
        first=2,
    )
    plain, _ = NextItem().loss(outputs, batch)
    loss, logs = TransitionAware(distil=0.5, teacher_temperature=0.2).loss(outputs, batch)
    assert float(loss) == pytest.approx(float(plain + 0.5 * taught), rel=1e-5)
    np.testing.assert_allclose([logs["next_loss"], logs["transition_loss"]], [plain, taught], rtol=1e-5)
    assert float(TransitionAware(distil=0.0).loss(outputs, batch)[0]) == float(plain)


def test_it_names_the_transform_that_it_needs(given):
    outputs, batch = given
    with pytest.raises(UserError, match="data/transforms"):
        TransitionAware().loss(outputs, {"targets": batch["targets"]})
