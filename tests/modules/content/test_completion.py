"""What is missing, as the softmax mean of the neighbours' part."""

import jax.numpy as jnp
import numpy as np

from modules.content.completion import fill, nearest


def test_the_filling_is_the_softmax_mean_of_the_nearest(rng):
    present, keys, values = rng.normal(size=(3, 4)), rng.normal(size=(9, 4)), rng.normal(size=(9, 2))
    which, weight = nearest(jnp.asarray(present), keys=jnp.asarray(keys), count=4, temperature=0.1)
    found = np.asarray(fill(which, weight, values=jnp.asarray(values)))
    for row in range(3):
        cosine = keys @ present[row] / np.linalg.norm(keys, axis=1) / np.linalg.norm(present[row])
        best = np.argsort(-cosine)[:4]
        share = np.exp(cosine[best] / 0.1)
        np.testing.assert_allclose(found[row], share @ values[best] / share.sum(), rtol=1e-4, atol=1e-5)
    which, weight = nearest(jnp.asarray(present), keys=jnp.asarray(keys), count=40, temperature=0.1)
    assert which.shape == (3, 9)
    np.testing.assert_allclose(weight.sum(axis=1), 1, rtol=1e-5)
