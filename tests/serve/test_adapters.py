"""What was trained through adapters is served as the plain model."""

import jax
import numpy as np

from modules.ctr.dnn import DNN
from modules.layers.lora import LoRA
from modules.layers.mlp import MLP
from serve.trained import merged
from tests.train.tiny import tiny
from train.optim import Optimizer
from train.program import Program
from train.sharding import Mesh

PAIRS = (("lora_", 1.0), ("", 0.0))


def test_adapters_are_merged_for_serving(rng):
    plain = DNN(dim=4, mlp=MLP(widths=(8,)))
    adapted = LoRA(model=plain, match=r"mlp/hidden/0/linear/kernel$", rank=2)
    experiment = tiny(model=adapted, optimizer=Optimizer(lr_scale=PAIRS))
    batches = experiment.loader.open(experiment.source.make())
    program = Program(experiment, features=batches.features, mesh=Mesh(data=1).make(devices=jax.devices()[:1]))
    shapes = program.parameter_shapes()
    assert set(shapes) - program.frozen == {name for name in shapes if "lora_" in name} != set()
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    stats = {name: np.zeros(a.shape, a.dtype) for name, a in program.abstract_state["stats"].items()}
    served, weights = merged(program, {"params": params, "stats": stats})
    assert served.experiment.model == plain and not any("lora" in name for name in served.parameter_shapes())
    assert set(weights["params"]) == set(served.parameter_shapes())
    batch = {name: array for name, array in next(batches).items() if name in batches.features.arrays(inputs_only=True)}
    batches.close()
    ours = served.predict(weights, batch)
    for name, theirs in program.predict({"params": params, "stats": stats}, batch).items():
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-4, atol=1e-4)
