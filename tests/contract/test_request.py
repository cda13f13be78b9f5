"""One user with many candidates scores as the same rows written out, in every click tower."""

import jax
import numpy as np
import pytest

from serve.export import held_once
from serve.trained import Served
from tests.contract.cases import ROWS
from tests.contract.test_contract import assert_close, both, get

TOWERS = ("modules.ctr.", "modules.behavior.")


@both
def test_a_request_scores_as_its_rows(name):
    c = get(name)
    if not type(c.experiment.model).__module__.startswith(TOWERS):
        pytest.skip("not a click tower")
    shared = [n for n in held_once(c.on_one.features) if n in c.inputs()]
    if not shared or len(shared) == len(c.inputs()):
        pytest.skip("its rows are not of users and items: there is no request to speak of")
    with jax.set_mesh(c.on_one.mesh):
        weights = jax.device_get(c.on_one.weights(c.on_one.init(0)))
    # As large as training makes them: at the start all histories score nearly alike.
    weights["params"] = {n: w * 30 if "/table_" in n else w for n, w in weights["params"].items()}
    model = Served(c.on_one, weights=weights)
    serve = jax.jit(model.serve)
    scores = []
    for user in (1, 3):
        request = {n: a[user : user + 1] if n in shared else a for n, a in c.inputs().items()}
        tiled = {n: np.repeat(a, ROWS, axis=0) if n in shared else a for n, a in request.items()}
        found, wanted = jax.device_get((serve(model.weights, request), serve(model.weights, tiled)))
        assert_close(found, wanted, tol=1e-5)
        scores.append(next(iter(wanted.values())))
    assert np.abs(scores[0] - scores[1]).max() > 1e-4, "the user changes nothing, so this test sees nothing"
