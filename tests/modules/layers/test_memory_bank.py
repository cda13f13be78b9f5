"""The bank: newest first, old ones out, no gradient, nothing at inference, nothing of size 0."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modules.layers.memory_bank import MemoryBank
from modules.losses.contrastive import Outside, softmax_contrastive

D = 3


def test_first_in_first_out():
    bank, rngs = MemoryBank(5, dim=D), nnx.Rngs(0)
    batches = [jnp.full((2, D), float(i)) for i in (1, 2, 3)]
    held = [bank(x, rngs=rngs) for x in batches]
    assert not held[0][1].any()
    assert held[1][1].tolist() == [True, True, False, False, False]
    now, filled, _ = bank(batches[0], rngs=None)
    assert now[:, 0].tolist() == [3, 3, 2, 2, 1] and filled.all()
    np.testing.assert_array_equal(bank(batches[0], rngs=None)[0], now)


def test_what_it_holds_teaches_nothing_and_none_of_it_changes_nothing(rng):
    query, item, old = rng.normal(size=(3, 4, D)).astype(np.float32)

    def loss(x):
        bank = MemoryBank(8, dim=D)
        bank(x * old, rngs=nnx.Rngs(0))
        return softmax_contrastive(query, item, scale=1.0, bank=Outside(*bank(item, rngs=nnx.Rngs(0))))

    value, grad = jax.value_and_grad(loss)(1.0)
    assert float(grad) == 0
    plain = softmax_contrastive(query, item, scale=1.0)
    assert float(value) > float(plain)
    empty = Outside(*MemoryBank(0, dim=D)(item, rngs=nnx.Rngs(0)))
    assert float(softmax_contrastive(query, item, scale=1.0, bank=empty)) == float(plain)


def test_what_shows_a_querys_product_is_no_negative_of_it(rng):
    old, query, item = rng.normal(size=(3, 4, D)).astype(np.float32)
    bank, rngs = MemoryBank(6, dim=D), nnx.Rngs(0)
    bank(jnp.asarray(old), labels=jnp.array([5, 6, 7, 8]), rngs=rngs)
    held = bank(jnp.asarray(item), labels=jnp.array([7, 1, 2, 6]), rngs=rngs)
    found = softmax_contrastive(
        query, item, scale=1.0, labels=jnp.array([7, 1, 2, 6]), bank=Outside(*held), symmetric=False
    )
    losses = []
    for row, label in enumerate([7, 1, 2, 6]):
        kept = old[[place for place, other in enumerate([5, 6, 7, 8]) if other != label]]
        logits = np.concatenate([item, kept]) @ query[row]
        losses.append(np.log(np.exp(logits).sum()) - logits[row])
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
    assert bank(jnp.asarray(item), rngs=None)[2].tolist() == [7, 1, 2, 6, 5, 6]
    bank(jnp.asarray(item), rngs=rngs)  # without labels nothing is left out
    assert (bank(jnp.asarray(item), rngs=None)[2][:4] < 0).all()


def test_a_bank_may_wait_until_vectors_move_slowly():
    bank, rngs = MemoryBank(4, dim=D, after=2), nnx.Rngs(0)
    counts = [bank(jnp.ones((2, D)), rngs=rngs)[1].sum() for _ in range(4)]
    assert counts == [0, 0, 4, 4]
