"""The shapes that modules/ state in their signatures hold while the train step of every model and task is traced."""

import subprocess
import sys

CODE = """
import jaxtyping
with jaxtyping.install_import_hook("modules", "beartype.beartype"):
    import modules.layers.mlp, modules.losses.items
    from tests.contract.cases import config_files, experiments, lacking
import jax, json, numpy as np
from train.program import Program
from train.snapshot import dump

seen = set()
for path in config_files():
    for name, experiment in experiments(path).items():
        traced = json.dumps([dump(experiment.model), dump(experiment.task)])
        if traced in seen or lacking(experiment):
            continue
        seen.add(traced)
        batches = experiment.loader.open(experiment.source.make())
        mesh = experiment.mesh.make(devices=jax.devices()[:1])
        program = Program(experiment, features=batches.features, mesh=mesh)
        batch = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in next(batches).items()}
        batches.close()
        with jax.set_mesh(mesh):
            jax.eval_shape(program.train_step, program.abstract_state, batch)
try:
    modules.layers.mlp.linear("wide", outputs=3, rngs=None)
except jaxtyping.TypeCheckError:
    print("checked", len(seen))
"""


def test_shapes_in_signatures_hold(root):
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= 9
