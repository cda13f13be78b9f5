"""Every config exports with a symbolic batch, for every platform, and the artefact scores as the program does."""

import jax
import numpy as np

from serve.artifact import load
from serve.export import export_model
from serve.trained import Served
from tests.contract.cases import trained
from tests.contract.test_contract import CASES, assert_close, both, get


@both
def test_the_artefact_scores_as_the_program(name, tmp_path):
    c = get(name)
    weights = jax.device_get(c.on_four.weights(trained(name, CASES[name])["state"]))
    model = Served(c.on_one, weights=weights)
    artifact = load(export_model(model, output=tmp_path, step=0))
    assert artifact.signature["platforms"] == ["cpu", "cuda", "tpu"]
    wanted = jax.device_get(model.serve(model.weights, c.inputs()))
    assert set(artifact.inputs) <= set(c.inputs())
    rows = slice(2, 5)
    got = artifact({n: c.batch[n][rows] for n in artifact.inputs})
    assert_close(got, {n: np.asarray(a)[rows] for n, a in wanted.items()})
