"""Folders of vectors: whole versions, computed where rows are new or changed, the same bytes after a kill."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from data import vector_shards
from data.errors import TooManyRejects, UserError
from data.features import Features, Image, Sequence, Text
from data.mall.vectors import read_vectors
from data.vector_shards import read_shard
from data.vectors import read
from serve import embed_folder as module
from serve.forward import Forward
from serve.index.command import index_vectors
from serve.index.open import open_index
from serve.inputs import ParquetInput

SIDE, TOKENS, LENGTH, ROWS = 4, 20, 3, 150
WEIGHTS = np.random.default_rng(0).normal(size=(TOKENS, 5)).astype(np.float32)


def tower(weights, batch):
    """The picture's mean and the words' rows, and no number where a text starts with token 13."""
    words = weights["table"][batch["title"]] * (batch["title"] > 0)[..., None]
    spoilt = jnp.where(batch["title"][:, :1] == 13, jnp.nan, 0)
    return {"vector": words.sum(1) + batch["image"].mean((1, 2, 3))[:, None] / 255 + spoilt}


def features(**image):
    return Features(
        all=(
            Image(name="image", role="item", height=SIDE, width=SIDE, **image),
            Text(name="title", role="item", tokens=TOKENS, length=LENGTH),
        )
    )


FORWARD = Forward(tower, weights={"table": WEIGHTS}, inputs=features().arrays(), max_batch=16)


def png(level):
    out = io.BytesIO()
    Picture.fromarray(np.full((SIDE, SIDE, 3), level, np.uint8)).save(out, "png")
    return out.getvalue()


def items(n=ROWS, *, start=0):
    ids = np.arange(start, start + n)
    return [{"item": int(i), "image": png(1 + i % 200), "title": [1 + i % 11, 2 + i % 7]} for i in ids]


TYPES = {"image": pa.binary(), "title": pa.list_(pa.int64())}


def save(rows, path, *, id=None):
    id = id or (pa.string() if rows and isinstance(rows[0]["item"], str) else pa.int64())
    schema = pa.schema([("item", id), *TYPES.items()])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=20)
    return path


def expected(row):
    picture = np.asarray(Picture.open(io.BytesIO(row["image"]))).mean() / 255 if row["image"] else 0
    return sum((WEIGHTS[t] for t in row["title"] or []), np.zeros(5)) + picture


def run(path, output, *, model="m1", missing="reject", **options):
    declared = features(absent="black" if missing == "keep" else "reject")
    rows = ParquetInput(path, features=declared, vocabularies=None, carry=("item",))
    said = []
    options = {"batch": 16, "span_rows": 40, "shard_rows": 64, "outputs": ("item",), "say": said.append, **options}
    options |= {"model": model, "rows": rows, "id": "item", "features": declared, "missing": missing}
    return module.embed_folder(FORWARD, output=output, **options), said


@pytest.fixture
def submitted(monkeypatch):
    """Rows that reached the model."""
    seen = []
    submit = Forward.submit

    def counted(self, batch, *, size):
        seen.append(len(batch["title"]))
        return submit(self, batch, size=size)

    monkeypatch.setattr(Forward, "submit", counted)
    return seen


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("format", ["parquet", "arrayrecord"])
def test_a_folder_holds_every_item_with_norm_and_manifest(format, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_shards, "BLOCK", 20)
    rows = items()
    done, _ = run(save(rows, tmp_path / "x.parquet"), tmp_path / "v", format=format)
    assert (done.rows, done.dim, done.new, done.rejects) == (ROWS, 5, ROWS, None)
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    assert [s["rows"] for s in manifest["shards"]] == [64, 64, 22]
    assert [manifest[k] for k in ("model", "dim", "rows", "format")] == ["m1", 5, ROWS, format]
    ids, vectors, model = read(tmp_path / "v", model="m1")
    np.testing.assert_array_equal(ids, [r["item"] for r in rows])
    np.testing.assert_allclose(vectors, [expected(r) for r in rows], atol=1e-5)
    assert model == "m1"
    table = read_shard(tmp_path / "v" / manifest["shards"][0]["file"], columns=["norm", "fingerprint"])
    np.testing.assert_allclose(table["norm"].to_numpy(), np.linalg.norm(vectors[:64], axis=1), rtol=1e-6)
    assert len(set(table["fingerprint"].to_pylist())) == 64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v", "x.parquet"]
    first = contents(tmp_path / "v")
    run(tmp_path / "x.parquet", tmp_path / "w", format=format)
    assert contents(tmp_path / "w") == first


@pytest.mark.parametrize("format", ["parquet", "arrayrecord"])
def test_only_new_and_changed_items_are_computed(format, tmp_path, submitted):
    rows = items()
    path = save(rows, tmp_path / "x.parquet")
    run(path, tmp_path / "v", format=format)
    before = contents(tmp_path / "v")
    submitted.clear()
    done, said = run(path, tmp_path / "v", format=format)
    assert not submitted and not said and done.kept == ROWS
    assert contents(tmp_path / "v") == before
    rows = [{**r, "title": [9, 9, 9]} if r["item"] in (3, 70) else r for r in rows if r["item"] not in (5, 6, 149)]
    rows = rows[::-1] + items(2, start=500)
    done, _ = run(save(rows, path), tmp_path / "v", format=format)
    assert (done.new, done.changed, done.kept, done.removed) == (2, 2, ROWS - 5, 3)
    assert sum(submitted) == 4
    ids, vectors, _ = read(tmp_path / "v")
    np.testing.assert_array_equal(ids, [r["item"] for r in rows])
    np.testing.assert_allclose(vectors, [expected(r) for r in rows], atol=1e-5)
    assert len(list((tmp_path / "v").iterdir())) == 4  # shards of the last version are gone


def test_another_model_embeds_all_anew_and_says_so(tmp_path, submitted):
    path = save(items(), tmp_path / "x.parquet")
    run(path, tmp_path / "v")
    submitted.clear()
    done, said = run(path, tmp_path / "v", model="m2")
    assert sum(submitted) == ROWS and done.changed == ROWS and done.removed == 0
    assert "vectors made otherwise (model m1): all items are embedded anew" in said[0]
    with pytest.raises(UserError, match="of model 'm2', not of 'm1'"):
        read(tmp_path / "v", model="m1")
    submitted.clear()
    run(path, tmp_path / "v", model="m2", format="arrayrecord")
    assert not submitted and {p.suffix for p in (tmp_path / "v").iterdir()} == {".array_record", ".json"}


def test_of_a_repeated_id_the_first_row_stays(tmp_path):
    rows = items(50)
    rows += [rows[4], {**rows[7], "title": [12]}, rows[7]]
    done, _ = run(save(rows, tmp_path / "x.parquet"), tmp_path / "v")
    assert (done.rows, done.repeated, done.rejected) == (50, 3, 0)
    lines = [json.loads(line) for line in done.rejects.read_text().splitlines()]
    assert [(line["row"], line["value"]) for line in lines] == [(51, "7")]
    assert "earlier row with other content" in lines[0]["why"]
    np.testing.assert_allclose(read(tmp_path / "v")[1][7], expected(rows[7]), atol=1e-5)


def test_what_has_no_vector_is_rejected_by_name(tmp_path):
    rows = items(60)
    rows[3]["image"] = b"no picture at all"
    rows[8]["image"] = None
    rows[9]["title"] = None
    rows[11]["title"] = []
    rows[20]["item"] = None
    rows[21]["title"] = [13]
    rows[30] |= {"image": None, "title": None}
    path = save(rows, tmp_path / "x.parquet")
    with pytest.raises(TooManyRejects, match=r"allowed 1\.0%; mend the data, or go on with a larger --max"):
        run(path, tmp_path / "v")
    assert not (tmp_path / "v" / "manifest.json").exists()
    done, _ = run(path, tmp_path / "v", max_rejects=0.2)
    lines = [json.loads(line) for line in done.rejects.read_text().splitlines()]
    assert {(line["row"], line["field"], line["why"]) for line in lines} == {
        (3, "image", "image does not decode"),
        (8, "image", "no image"),
        (9, "title", "no words"),
        (11, "title", "no words"),
        (20, "item", "no id"),
        (21, "id", "the model's vector is not finite"),
        (30, "image", "no image"),
    }
    assert (done.rows, done.rejected) == (53, 7)
    kept, _ = run(path, tmp_path / "w", max_rejects=0.2, missing="keep")
    lines = [json.loads(line) for line in kept.rejects.read_text().splitlines()]
    assert {(line["row"], line["why"]) for line in lines if line["row"] == 30} == {(30, "no picture, no words")}
    assert sorted(line["row"] for line in lines) == [3, 20, 21, 30]
    ids, vectors, _ = read(tmp_path / "w")
    for i in (8, 9):
        np.testing.assert_allclose(vectors[ids.tolist().index(i)], expected(rows[i]), atol=1e-5)


def test_a_clip_without_frames_is_a_missing_part(tmp_path):
    clip = Sequence(name="clip", role="item", of=Image(name="frame", height=SIDE, width=SIDE), length=2)
    declared = Features(all=(clip,))
    forward = Forward(
        lambda w, b: {"vector": w + b["clip"].sum((1, 2, 3)) / 255}, weights=0.0, inputs=declared.arrays()
    )
    table = pa.table({"item": [1, 2, 3], "clip": pa.array([[png(9)], [], None], pa.list_(pa.binary()))})
    pq.write_table(table, tmp_path / "x.parquet")
    rows = ParquetInput(tmp_path / "x.parquet", features=declared, vocabularies=None, carry=("item",))
    common = {"model": "m", "outputs": ("video",), "rows": rows, "id": "item", "features": declared, "batch": 8}
    done = module.embed_folder(forward, output=tmp_path / "v", max_rejects=1.0, **common)
    assert (done.rows, done.rejected) == (1, 2) and "no frames" in done.rejects.read_text()


def test_a_column_without_any_value_is_a_missing_part(tmp_path):
    table = pa.Table.from_pylist([{"item": 1, "image": None, "title": [3]}, {"item": 2, "image": None, "title": [4]}])
    assert pa.types.is_null(table.schema.field("image").type)
    pq.write_table(table, tmp_path / "x.parquet")
    done, _ = run(tmp_path / "x.parquet", tmp_path / "v", missing="keep")
    assert done.rows == 2
    pq.write_table(table.drop_columns("image"), tmp_path / "y.parquet")
    with pytest.raises(UserError, match="no column 'image', which the model needs"):
        run(tmp_path / "y.parquet", tmp_path / "w")


def test_ids_may_be_strings_and_files_a_glob(tmp_path, submitted):
    rows = [{**r, "item": f"sku-{r['item']}"} for r in items(40)]
    for name, part in (("a", rows[:20]), ("b", rows[20:])):
        save(part, tmp_path / f"{name}.parquet")
    done, _ = run(tmp_path / "*.parquet", tmp_path / "v")
    assert read(tmp_path / "v")[0].tolist() == [r["item"] for r in rows]
    assert done.rows == 40
    submitted.clear()
    run(tmp_path / "*.parquet", tmp_path / "v")
    assert not submitted
    save([{**r, "item": float(i)} for i, r in enumerate(rows)], tmp_path / "c.parquet", id=pa.float64())
    with pytest.raises(UserError, match="'item' is double; ids are integers or strings"):
        run(tmp_path / "c.parquet", tmp_path / "v")


def test_index_and_click_towers_read_the_folder(tmp_path):
    rows = items(40, start=2)
    run(save(rows, tmp_path / "x.parquet"), tmp_path / "v")
    done = index_vectors(tmp_path / "v", output=tmp_path / "i", metric="dot")
    assert done == {"rows": 40, "dim": 5, "engine": "exact", "why": "asked for"}
    assert open_index(tmp_path / "i", model="m1").ids.tolist() == [r["item"] for r in rows]
    by_id = read_vectors(str(tmp_path / "v"), rows=42)
    np.testing.assert_allclose(by_id[2:], [expected(r) for r in rows], atol=1e-5)
    with pytest.raises(UserError, match="there are no vectors"):
        index_vectors(tmp_path / "none", output=tmp_path / "i")


def test_damage_is_named_and_other_folders_are_left_alone(tmp_path):
    path = save(items(40), tmp_path / "x.parquet")
    run(path, tmp_path / "v")
    (shard,) = (tmp_path / "v").glob("*.parquet")
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    for call in (lambda: read(tmp_path / "v"), lambda: run(path, tmp_path / "v")):
        with pytest.raises(UserError, match=r"part-00000.*is damaged: its checksum differs"):
            call()
    shard.unlink()
    with pytest.raises(UserError, match="is missing; write a folder of vectors again"):
        read(tmp_path / "v")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="is not a folder of vectors and not empty"):
        run(path, tmp_path / "mine")
    with pytest.raises(UserError, match=r"mine is not a folder of vectors: it has no manifest\.json"):
        read(tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_no_rows_make_an_empty_folder(tmp_path):
    done, _ = run(save([], tmp_path / "x.parquet"), tmp_path / "v")
    assert done.rows == 0 and read(tmp_path / "v")[1].shape == (0, 5)


SLOW_RUN = """
import sys, time
from pathlib import Path
import tests.serve.test_embed_folder as t
import serve.score
write = serve.score._Writer.write
serve.score._Writer.write = lambda self, step: (write(self, step), time.sleep(0.15))
t.run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, root, submitted):
    """From a folder of an older version, which stays whole until the new one is."""
    path = save(items(), tmp_path / "x.parquet")
    for folder in ("whole", "v"):
        run(path, tmp_path / folder)
    before = contents(tmp_path / "v")
    save([{**r, "title": [9, 1 + r["item"] % 9]} for r in items(2 * ROWS)], path)
    run(path, tmp_path / "whole")
    submitted.clear()
    env = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(path), str(tmp_path / "v")], cwd=root, env=env)
    first = tmp_path / "v.parts" / "part-00001.arrow"
    for _ in range(600):
        if first.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists() and contents(tmp_path / "v") == before
    run(path, tmp_path / "v")
    assert 0 < sum(submitted) < 2 * ROWS - 40
    assert contents(tmp_path / "v") == contents(tmp_path / "whole")
    assert not (tmp_path / "v.parts").exists()


def test_killed_before_the_manifest_leaves_the_old_version(tmp_path, monkeypatch, submitted):
    path = save(items(), tmp_path / "x.parquet")

    def killed(*_, **__):
        raise KeyboardInterrupt

    def run_and_die():
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_manifest", killed)
            with pytest.raises(KeyboardInterrupt):
                run(path, tmp_path / "v")

    run_and_die()
    with pytest.raises(UserError, match=r"it has no manifest\.json"):
        read(tmp_path / "v")
    submitted.clear()
    run(path, tmp_path / "v")
    assert not submitted
    ids = read(tmp_path / "v")[0]
    (tmp_path / "v" / "mine.parquet").write_bytes(b"of somebody else")
    save(items(100, start=40), path)
    run_and_die()
    np.testing.assert_array_equal(read(tmp_path / "v")[0], ids)
    submitted.clear()
    done, _ = run(path, tmp_path / "v")
    assert not submitted and done.removed == 50
    assert len(read(tmp_path / "v")[0]) == 100
    assert len(list((tmp_path / "v").iterdir())) == 4
    assert (tmp_path / "v" / "mine.parquet").exists()
