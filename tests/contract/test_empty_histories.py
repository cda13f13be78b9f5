"""A batch in which nobody has a past, and nothing stands in any list, trains and scores every click tower."""

import jax
import numpy as np
import pytest

from tests.contract.test_contract import both, get
from tests.contract.test_request import TOWERS
from train.sharding import put_batch


@both
def test_a_batch_of_padding_alone_gives_finite_losses_and_scores(name):
    c = get(name)
    lists = [f.name for f in c.on_one.features if f.max_len]
    if not type(c.experiment.model).__module__.startswith(TOWERS) or not lists:
        pytest.skip("not a click tower with lists")
    nothing = {f"{n}/length": np.zeros_like(c.batch[f"{n}/length"]) for n in lists}
    batch = {n: np.array(a) for n, a in {**c.batch, **nothing}.items()}
    with jax.set_mesh(c.on_one.mesh):
        state, logs = c.on_one.train_step(c.on_one.init(0), put_batch(batch, mesh=c.on_one.mesh))
        assert np.isfinite(float(logs["loss"])) and np.isfinite(float(logs["grad_norm"]))
        scores = c.on_one.predict(c.on_one.weights(state), {n: batch[n] for n in c.inputs()})
        found = jax.device_get((state["params"], state["stats"], scores))
    assert all(np.isfinite(a).all() for part in found for a in part.values())
