"""The dense all-action loss: its sum written out, and InfoNCE as its smallest case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modules.losses.all_actions import all_actions
from modules.losses.contrastive import softmax_contrastive

B, H, T, D = 5, 3, 4, 6


@pytest.fixture
def case(rng):
    states, targets = rng.normal(size=(B, H, D)), rng.normal(size=(B, T, D))
    known_states = rng.random((B, H)) < 0.8
    known_targets = rng.random((B, T)) < 0.8
    ids = rng.integers(2, 9, (B, T))
    return states, targets, known_states, known_targets, ids


def written_out(states, targets, known_states, known_targets, ids, *, scale):
    losses = []
    for i in range(B):
        for j in np.flatnonzero(known_states[i]):
            for k in np.flatnonzero(known_targets[i]):
                own = np.exp(scale * states[i, j] @ targets[i, k])
                others = sum(
                    np.exp(scale * states[i, j] @ targets[z, m])
                    for z in range(B)
                    for m in range(T)
                    if z != i and known_targets[z, m] and (ids is None or ids[z, m] != ids[i, k])
                )
                losses.append(-np.log(own / (own + others)))
    return np.mean(losses)


@pytest.mark.parametrize("with_ids", [False, True])
def test_the_loss_is_the_sum_written_out(case, with_ids):
    states, targets, known_states, known_targets, ids = case
    ids = ids if with_ids else None
    found = jax.jit(all_actions, static_argnames="scale")(
        jnp.asarray(states, jnp.float32),
        jnp.asarray(targets, jnp.float32),
        scale=0.7,
        known_states=known_states,
        known_targets=known_targets,
        ids=None if ids is None else jnp.asarray(ids),
    )
    np.testing.assert_allclose(found, written_out(*case[:4], ids, scale=0.7), rtol=1e-5)


def test_one_state_and_one_target_are_info_nce(rng):
    query, item = (jnp.asarray(rng.normal(size=(B, D)), jnp.float32) for _ in range(2))
    yes = jnp.ones((B, 1), bool)
    found = all_actions(query[:, None], item[:, None], scale=2.0, known_states=yes, known_targets=yes)
    np.testing.assert_allclose(found, softmax_contrastive(query, item, scale=2.0, symmetric=False), rtol=1e-5)


def test_nothing_comes_back_from_what_is_no_negative(case):
    """Neither a person's other targets nor unknown ones pull at a state."""
    states, targets, *_ = (jnp.asarray(x, jnp.float32) for x in case)
    known = np.ones((B, T), bool)
    known[1, 0] = False
    one = np.zeros((B, H), bool)
    one[0, 0] = True

    def loss(targets, chosen):
        return all_actions(states, targets, scale=1.0, known_states=one, known_targets=jnp.asarray(known & chosen))

    chosen = np.ones((B, T), bool)
    chosen[0, 1:] = False  # person 0 has one target
    grad = jax.grad(loss)(targets, chosen)
    np.testing.assert_array_equal(grad[0, 1:], 0)
    np.testing.assert_array_equal(grad[1, 0], 0)
    assert np.abs(grad[2]).min() > 0 and np.abs(grad[0, 0]).min() > 0


def test_products_as_large_as_cosines_of_scale_100_stay_finite(rng):
    x = jnp.asarray(rng.normal(size=(B, 1, D)), jnp.float32)
    x /= jnp.linalg.norm(x, axis=-1, keepdims=True)
    yes = jnp.ones((B, 1), bool)

    def loss(x):
        return all_actions(x, -x, scale=40.0, known_states=yes, known_targets=yes)

    value, grad = jax.value_and_grad(loss)(x)
    assert np.isfinite(value) and np.isfinite(grad).all()
