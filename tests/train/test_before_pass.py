"""What a task makes of all rows before each pass: how often, of what, and the same again after a crash."""

from typing import Literal

import chz
import jax
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Sequence
from data.pipeline import Loader
from data.prefixes import Prefixes
from data.sources import InMemory, SourceConfig
from data.transforms.same_target import SameTarget
from modules.layers.kmeans import spherical_kmeans
from modules.sequential.icsrec import ICSRec
from modules.sequential.sasrec import SASRec
from tests.train.test_loop import Power, assert_equal_to_the_bit, crash_after, weights
from train import loop
from train.before_pass import BeforePass
from train.checkpoint import Checkpointing
from train.experiment import Experiment
from train.log import Logging
from train.program import Program, make_predict
from train.sharding import Mesh
from train.tasks.intent_contrast import IntentContrast

USERS, T, INTENTS, BATCH, STEPS = 24, 6, 4, 40, 6
ROWS = USERS * 4  # passes end within the third and the fifth batch
ENCODER = SASRec(dim=8, depth=1, heads=2, norm="post", dropout=0.1)

pytestmark = pytest.mark.usefixtures("storable_tests")


@chz.chz
class Histories(SourceConfig):
    def make(self):
        history = np.random.default_rng(0).integers(2, 12, (USERS, T))
        features = Features(all=(Sequence(name="history", of=Categorical(name="item", rows=12), length=T),))
        return InMemory({"history": history, "history/length": np.full(USERS, T)}, features=features)


def experiment(*, intents: int = INTENTS, model: Literal["icsrec", "sasrec"] = "icsrec", steps: int = STEPS, **task):
    return Experiment(
        model=ICSRec(encoder=ENCODER, intents=intents) if model == "icsrec" else ENCODER,
        task=IntentContrast(**task),
        source=Prefixes(of=Histories(), least=2),
        loader=Loader(batch_size=BATCH, transforms=(SameTarget(),), prefetch=0),
        steps=steps,
        checkpoint=Checkpointing(every=1),
        log=Logging(every=1, progress="none"),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, storable_tests):
    """An undisturbed run, and what it said."""
    workdir, said = tmp_path_factory.mktemp("whole") / "run", []
    loop.train(experiment(), workdir=workdir, say=said.append)
    return workdir, said


def test_it_looks_at_all_rows_once_a_pass(whole):
    workdir, said = whole
    told = [line for line in said if "centres" in line]
    assert [line.split(":")[0] for line in told] == ["step 0", "step 3", "step 5"]
    assert all(f"centres, made from {ROWS} rows" in line for line in told)
    stats = weights(workdir)["stats"]
    assert stats["made"] == 3
    np.testing.assert_allclose(np.linalg.norm(stats["centres"], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("crash", [1, 3])
def test_after_a_crash_it_ends_in_the_same_bits(whole, tmp_path, monkeypatch, crash):
    """After three steps the checkpoint is of before the second pass, which is then looked at again."""
    with monkeypatch.context() as patch, pytest.raises(Power):
        crash_after(patch, crash)
        loop.train(experiment(), workdir=tmp_path / "run", say=lambda line: None)
    loop.train(experiment(), workdir=tmp_path / "run", say=lambda line: None)
    assert_equal_to_the_bit(weights(tmp_path / "run"), weights(whole[0]))


def test_the_centres_are_those_of_every_row_s_vector():
    e = experiment()
    mesh = Mesh(data=1).make(devices=jax.devices()[:1])
    source = e.source.make()
    program = Program(e, features=e.loader.open(source).features, mesh=mesh)
    with jax.set_mesh(mesh):
        state = program.init(0)
        after = BeforePass(program, loader=e.loader, source=source, say=lambda line: None)(state, step=7)
        rows = source.take(np.arange(ROWS))
        users = make_predict(program, program.weights(state))(rows)["user"]
    _, centres = spherical_kmeans(users, clusters=INTENTS, iterations=20, seed=7)
    np.testing.assert_allclose(after["stats"]["centres"], centres, atol=1e-6)


def test_nothing_is_looked_at_where_the_task_asks_for_nothing(tmp_path):
    said = []
    loop.train(experiment(fine=0.0, steps=1), workdir=tmp_path / "run", say=said.append)
    assert not any("centres" in line for line in said)


def test_what_it_refuses(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=f"{ROWS} training rows do not make 97 clusters; lower model.intents"):
        loop.train(experiment(intents=97), workdir=tmp_path / "many", say=lambda line: None)
    with pytest.raises(UserError, match="train ICSRec"):
        loop.train(experiment(model="sasrec"), workdir=tmp_path / "other", say=lambda line: None)
    monkeypatch.setattr(IntentContrast, "before_pass", lambda self, rows, *, stats, step: {"elsewhere": np.zeros(2)})
    with pytest.raises(UserError, match="the task makes elsewhere of all rows, which the model does not keep"):
        loop.train(experiment(), workdir=tmp_path / "unknown", say=lambda line: None)
