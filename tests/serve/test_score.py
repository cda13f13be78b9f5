import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import TooManyRejects, UserError
from data.features import Categorical, Features, Numeric, Sequence
from serve import score as module
from serve.forward import Forward
from serve.inputs import ParquetInput, needed
from serve.parts import Parts
from serve.score import score
from serve.spans import batches, spans

FEATURES = Features(
    all=(
        Categorical(name="item", rows=100),
        Sequence(name="history", of=Categorical(name="h", rows=100, share="item"), length=3),
        Numeric(name="price"),
    )
)


def tower(weights, batch):
    x = weights["table"][batch["item"]] + weights["table"][batch["history"]].sum(1) * batch["price"][:, None]
    score = jax.nn.sigmoid(x.sum(-1))
    return {"score": score, "pair": x[:, :2]}


WEIGHTS = {"table": np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)}
FORWARD = Forward(tower, weights=WEIGHTS, inputs=FEATURES.arrays())


def table(n, *, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 4, n)
    history = pa.ListArray.from_arrays(
        pa.array(np.append(0, np.cumsum(lengths)), pa.int32()), rng.integers(0, 100, lengths.sum())
    )
    return pa.table(
        {
            "id": [f"r{i}" for i in range(n)],
            "item": rng.integers(0, 100, n),
            "history": history,
            "price": rng.normal(size=n),
        }
    )


def expected(rows):
    padded = np.zeros((rows.num_rows, 3), np.int32)
    for i, h in enumerate(rows["history"].to_pylist()):
        padded[i, : len(h)] = h
    batch = {
        "item": rows["item"].to_numpy(),
        "history": padded,
        "price": rows["price"].to_numpy().astype(np.float32),
    }
    return np.asarray(tower(WEIGHTS, batch)["score"])


def run(path, output, *, carry=("id",), **options):
    rows = ParquetInput(path, features=FEATURES, vocabularies=None, carry=carry)
    return score(FORWARD, model="m", rows=rows, output=output, batch=64, span_rows=200, **options)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(table(1000), path, row_group_size=90)
    return path


def test_scores_in_order_with_the_columns_asked_for(path, tmp_path):
    done = run(path, tmp_path / "y.parquet")
    got = pq.read_table(tmp_path / "y.parquet")
    assert got.column_names == ["id", "pair", "score"]
    assert got["id"].to_pylist() == [f"r{i}" for i in range(1000)]
    np.testing.assert_allclose(got["score"].to_numpy(), expected(table(1000)), atol=1e-6)
    assert (done.rows, done.rejected, done.rejects) == (1000, 0, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.parquet", "y.parquet"]


def test_a_folder_is_read_by_name(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, seed in (("b", 2), ("a", 1)):
        pq.write_table(table(100, seed=seed), folder / f"{name}.parquet")
    run(folder, tmp_path / "y.parquet")
    got = pq.read_table(tmp_path / "y.parquet")["score"].to_numpy()
    np.testing.assert_allclose(got, np.append(expected(table(100, seed=1)), expected(table(100, seed=2))), atol=1e-6)


def test_batches_do_not_follow_row_groups(path):
    assert len(spans([path], rows=200)) == 4
    (span,) = spans([path], rows=1 << 19)
    sizes = [b.num_rows for b in batches(span, columns=["id"], rows=64)]
    assert sizes == [64] * 15 + [40]


def spoilt(n, *, bad):
    rows = table(n)
    item = rows["item"].to_numpy().copy()
    item[bad] = 100
    return rows.set_column(1, "item", pa.array(item))


def test_rejected_rows_keep_their_place_and_are_named(tmp_path):
    pq.write_table(spoilt(1000, bad=[5, 400, 999]), tmp_path / "x.parquet", row_group_size=90)
    done = run(tmp_path / "x.parquet", tmp_path / "y.parquet")
    got = pq.read_table(tmp_path / "y.parquet")
    assert done.rejected == 3
    assert np.flatnonzero(got["score"].is_null()).tolist() == [5, 400, 999]
    assert np.flatnonzero(got["pair"].is_null()).tolist() == [5, 400, 999]
    keep = ~got["score"].is_null().to_numpy()
    np.testing.assert_allclose(got["score"].to_numpy()[keep], expected(table(1000))[keep], atol=1e-6)
    lines = [json.loads(line) for line in done.rejects.read_text().splitlines()]
    assert [(line["row"], line["field"]) for line in lines] == [(5, "item"), (400, "item"), (999, "item")]
    assert lines[0]["file"].endswith("x.parquet")
    assert "100" in lines[0]["why"] + lines[0]["value"]


def test_too_many_rejects_stop_with_the_first_ten(tmp_path):
    pq.write_table(spoilt(1000, bad=range(100, 150)), tmp_path / "x.parquet")
    with pytest.raises(TooManyRejects, match=r"allowed 1\.0%") as raised:
        run(tmp_path / "x.parquet", tmp_path / "y.parquet")
    assert raised.value.exit_code == 3
    assert str(raised.value).count("\n") == 10
    assert "x.parquet row 100: item" in str(raised.value)
    assert not (tmp_path / "y.parquet").exists()
    done = run(tmp_path / "x.parquet", tmp_path / "y.parquet", resume=True, max_rejects=0.1)
    assert done.rejected == 50


def test_a_batch_of_rejects_alone(tmp_path):
    pq.write_table(spoilt(80, bad=range(64)), tmp_path / "x.parquet")
    assert run(tmp_path / "x.parquet", tmp_path / "y.parquet", max_rejects=1.0).rejected == 64
    assert pq.read_table(tmp_path / "y.parquet")["score"].null_count == 64


def test_no_rows_give_an_empty_output(tmp_path):
    pq.write_table(table(0), tmp_path / "x.parquet")
    assert run(tmp_path / "x.parquet", tmp_path / "y.parquet").rows == 0
    assert pq.read_table(tmp_path / "y.parquet").schema.names == ["id", "pair", "score"]


def test_bad_inputs_are_one_line(tmp_path):
    x, y = tmp_path / "x.parquet", tmp_path / "y.parquet"
    with pytest.raises(UserError, match=r"x\.parquet does not exist"):
        run(x, y)
    x.write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.parquet is not a readable Parquet file"):
        run(x, y)
    pq.write_table(table(10).rename_columns(["id", "items", "history", "price"]), x)
    with pytest.raises(UserError, match=r"no column 'item', which the model needs; did you mean 'items'"):
        run(x, y)
    pq.write_table(table(10), x)
    with pytest.raises(UserError, match=r"no column 'ids', which --columns names; did you mean 'id'"):
        run(x, y, carry=("ids",))
    pq.write_table(table(10).append_column("score", pa.array([0.0] * 10)), x)
    with pytest.raises(UserError, match="the model writes a column 'score'"):
        run(x, y, carry=("score",))
    pq.write_table(table(10).set_column(1, "item", pa.array(["a"] * 10)), x)
    with pytest.raises(UserError, match="'item' is string"):
        run(x, y)


def test_a_truncated_column_is_named(path, tmp_path):
    raw = bytearray(path.read_bytes())
    raw[4:4000] = bytes(3996)
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"x\.parquet is damaged after row 0"):
        run(path, tmp_path / "y.parquet")


def test_files_that_disagree_are_refused(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(table(10), folder / "a.parquet")
    pq.write_table(table(10).set_column(3, "price", pa.array([1] * 10)), folder / "b.parquet")
    with pytest.raises(UserError, match=r"'price' is double in .*a\.parquet, but int64 in .*b\.parquet"):
        run(folder, tmp_path / "y.parquet")


def test_an_input_that_no_feature_brings_is_refused():
    with pytest.raises(UserError, match="the model takes age, which no declared feature brings"):
        needed(FEATURES, inputs={"item": ((), np.int32), "age": ((), np.int32)})


SLOW_RUN = """
import sys, time
from pathlib import Path
import tests.serve.test_score as t
import serve.score
write = serve.score._Writer.write
serve.score._Writer.write = lambda self, step: (write(self, step), time.sleep(0.15))
t.run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(path, tmp_path, root, monkeypatch):
    run(path, tmp_path / "whole.parquet")
    output = tmp_path / "y.parquet"
    parts = tmp_path / "y.parquet.parts"
    env = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(path), str(output)], cwd=root, env=env)
    first = parts / "part-00001.arrow"
    for _ in range(600):
        if first.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists()
    assert not output.exists()
    with pytest.raises(UserError, match="was begun with other columns; run without --resume"):
        run(path, output, carry=(), resume=True)
    seen = []
    write = module._Writer.write
    monkeypatch.setattr(module._Writer, "write", lambda self, step: (seen.append(step.span), write(self, step)))
    run(path, output, resume=True)
    assert 0 not in seen
    assert 1 not in seen
    assert seen
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not parts.exists()


def test_resuming_a_finished_run_does_nothing(path, tmp_path, monkeypatch):
    output = tmp_path / "y.parquet"
    run(path, output)
    monkeypatch.setattr(FORWARD, "submit", lambda *_, **__: pytest.fail("scored again"))
    assert run(path, output, resume=True).rows == 1000


def test_two_processes_do_not_write_one_output(path, tmp_path):
    held = Parts(tmp_path / "y.parquet", made_from={"model": "m"}, schema=pa.schema([]), resume=False)
    with pytest.raises(UserError, match="is being written by another process"):
        run(path, tmp_path / "y.parquet")
    held.drop()


def test_a_part_that_a_straggler_of_another_run_left_is_not_taken(tmp_path):
    """A worker on another machine may write a part after its run has ended and another has begun in its place."""
    schema = pa.schema([("x", pa.int64())])

    def begun(model):
        return Parts(tmp_path / "y.parquet", made_from={"model": model}, schema=schema, resume=False)

    first = begun("a")
    with closing(first.write(0)) as part:
        part.add(pa.record_batch([[1]], schema=schema), rejects=[])
    assert first.done(0)
    left = {path: path.read_bytes() for path in first.folder.glob("part-*")}
    first.close()
    for model in ("b", "a"):
        second = begun(model)
        assert not second.done(0)
        for path, content in left.items():
            path.write_bytes(content)
        assert second.done(0) == (model == "a")
        second.close()
