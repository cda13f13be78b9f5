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
    now, filled = bank(batches[0], rngs=None)
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
