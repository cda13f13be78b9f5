"""What the occurrences of rows are: counts of the training rows, by the model's own reading of ids."""

import zlib

import chz
import jax
import numpy as np
import pytest

from data.pipeline import Loader
from data.sources import InMemory, SourceConfig
from modules.ctr.dnn import DNN
from modules.layers.embedding import Embedding, hash_ids
from modules.layers.mlp import MLP
from tests.modules import click_rows
from tests.train.tiny import tiny
from train import loop
from train.optim import Optimizer
from train.program import Program
from train.row_counts import count_rows
from train.rowwise import LazyAdam
from train.sharding import Mesh, put_batch

TABLE, ROWS, BATCH = "embed/table_4", 23, 8  # the last batch is not full
FEATURES = click_rows.features(click_rows.USER, click_rows.ITEM, click_rows.HISTORY, click_rows.TAGS)
USER, ITEM, TAG = 0, click_rows.USER.rows, click_rows.USER.rows + click_rows.ITEM.rows  # first rows of the tables


@chz.chz
class Clicks(SourceConfig):
    """Histories of items, with a real id in the places beyond their lengths."""

    def make(self):
        batch = click_rows.batch_of(FEATURES, rows=ROWS)
        return InMemory(click_rows.repadded(batch, FEATURES), features=FEATURES)


def experiment(*, embedding=Embedding(), steps=4):
    base = tiny(
        optimizer=Optimizer(lr=0.1, rows=("table",), row_rule=LazyAdam(mini_batch_aware=0.5)),
        model=DNN(dim=4, embedding=embedding, mlp=MLP(widths=(8,))),
        steps=steps,
    )
    return chz.replace(base, source=Clicks(), loader=Loader(batch_size=BATCH, prefetch=0), evals={})


def program_of(e):
    mesh = Mesh(data=1).make(devices=jax.devices()[:1])
    return Program(e, features=FEATURES, mesh=mesh)


def wanted(*, user=lambda ids: ids):
    """Occurrences of the stacked rows, at valid positions alone."""
    columns = Clicks().make().columns
    count = np.zeros(program_of(experiment()).parameter_shapes()[TABLE][0], int)
    np.add.at(count, USER + user(columns["user"]), 1)
    np.add.at(count, ITEM + columns["item"], 1)
    for name, first in (("history", ITEM), ("tags", TAG)):
        for ids, length in zip(columns[name], columns[f"{name}/length"], strict=True):
            np.add.at(count, first + ids[:length], 1)
    return count


def counted(e):
    return count_rows(program_of(e), loader=e.loader, source=e.source.make(), say=lambda line: None)


def test_occurrences_are_counts_of_numpy_history_included():
    counts = counted(experiment())
    assert counts.keys() == {TABLE}
    np.testing.assert_array_equal(counts[TABLE], wanted())
    assert (counts[TABLE] == 0).any() and (counts[TABLE] > 3).any()


def test_hashed_ids_count_where_they_are_read():
    """Users hash into as many rows as they have ids, so that all other rows stay where they are."""
    e = experiment(embedding=Embedding(hash_buckets={"user": click_rows.USER.rows}))

    def hashed(ids):
        return np.asarray(hash_ids(ids, salt=zlib.crc32(b"user"), buckets=click_rows.USER.rows))

    np.testing.assert_array_equal(counted(e)[TABLE], wanted(user=hashed))
    assert (wanted(user=hashed) != wanted()).any()


def test_padding_pulls_at_no_row():
    """Rows that only padding reads stay to the bit."""
    e = experiment()
    program = program_of(e)
    batch = click_rows.repadded(click_rows.batch_of(FEATURES, rows=BATCH, seed=3), FEATURES)
    batch["history"][:, :], batch["history/length"][:] = 5, 1
    batch["history"][:, 1:], batch["item"][:] = 6, 4
    with jax.set_mesh(program.mesh):
        before = np.asarray(program.init(0)["params"][TABLE])
        state, _ = program.train_step(program.init(0), put_batch(batch, mesh=program.mesh))
    after = np.asarray(state["params"][TABLE])
    moved = (before != after).any(axis=1)[ITEM:TAG]
    assert moved[[4, 5]].all() and moved.sum() == 2


@pytest.mark.usefixtures("storable_tests")
def test_a_run_counts_once_and_keeps_the_counts(tmp_path):
    said = []
    first = loop.train(experiment(steps=2), workdir=tmp_path / "run", say=said.append)
    assert first.finished and sum("counted the occurrences" in line for line in said) == 1
    said.clear()
    kept = []
    restore = loop.Checkpointer.restore

    def spy(self, *args, **fields):
        found = restore(self, *args, **fields)
        kept.append(np.asarray(found.state["rows"][TABLE]["occurrences"]))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Checkpointer, "restore", spy)
        loop.train(experiment(steps=4), workdir=tmp_path / "run", say=said.append)
    assert not any("counted" in line for line in said)
    np.testing.assert_array_equal(kept[0], wanted())
