import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Numeric, Sequence
from serve.artifact import load
from serve.pack import pack
from train.snapshot import dump

FEATURES = Features(
    all=(
        Categorical(name="item", rows=20),
        Sequence(name="history", of=Categorical(name="h", rows=20, share="item"), length=3),
        Numeric(name="price"),
        Numeric(name="ignored"),
    )
)


def tower(weights, batch):
    """A click tower in three lines, with an input that it ignores."""
    seen = jnp.arange(3)[None, :] < batch["history/length"][:, None]
    pooled = jnp.sum(weights["table"][batch["history"]] * seen[:, :, None], 1)
    x = weights["table"][batch["item"]] + pooled + batch["price"][:, None]
    return {"score": jax.nn.sigmoid(x @ weights["w"])}


def rows_of(n, *, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "item": rng.integers(0, 20, n).astype(np.int32),
        "history": rng.integers(0, 20, (n, 3)).astype(np.int32),
        "history/length": rng.integers(0, 4, n).astype(np.int32),
        "price": rng.normal(size=n).astype(np.float32),
        "ignored": rng.normal(size=n).astype(np.float32),
    }


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(1)
    return {"table": rng.normal(size=(20, 4)).astype(np.float32), "w": rng.normal(size=4).astype(np.float32)}


@pytest.fixture
def exported(tmp_path, weights):
    return write(tmp_path / "export", weights)


def write(output, weights, **changes):
    options = {
        "function": tower,
        "inputs": FEATURES.arrays(inputs_only=True),
        "rows": {"item": 20, "history": 20},
        "sample": rows_of(16),
        "step": 7,
        "about": {"model": "tower", "features": dump(FEATURES)},
    }
    return pack(output, weights=weights, **{**options, **changes})


@pytest.mark.parametrize("n", [1, 7, 64])
def test_every_batch_size_scores_as_the_function_does(exported, weights, n):
    batch = rows_of(n, seed=n)
    got = load(exported)(batch)["score"]
    np.testing.assert_allclose(got, tower(weights, batch)["score"], atol=1e-6)


def test_a_row_scores_alike_alone_and_among_others(exported):
    artifact, batch = load(exported, max_batch=16), rows_of(50)
    whole = artifact(batch)["score"]
    alone = np.concatenate([artifact({n: a[i : i + 1] for n, a in batch.items()})["score"] for i in range(50)])
    np.testing.assert_allclose(whole, alone, atol=1e-6)


def test_loads_in_a_fresh_process_without_our_models(exported, weights, root):
    code = f"""
import sys, numpy as np
from serve.artifact import load
artifact = load({str(exported)!r})
batch = dict(np.load({str(exported.parent / "batch.npz")!r}))
np.save({str(exported.parent / "scores.npy")!r}, artifact(batch)["score"])
assert artifact.features["history"].size == 20
ours = [m for m in sys.modules if m.split(".")[0] in ("modules", "train", "flax", "optax")]
assert not ours, ours
"""
    batch = rows_of(9)
    np.savez(exported.parent / "batch.npz", **batch)
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    np.testing.assert_allclose(np.load(exported.parent / "scores.npy"), tower(weights, batch)["score"], atol=1e-6)


def test_only_what_the_program_reads_is_an_input(exported):
    signature = load(exported).signature
    assert set(signature["inputs"]) == {"item", "history", "history/length", "price"}
    assert signature["inputs"]["history"] == {"shape": ["b", 3], "dtype": "int32", "rows": 20}
    assert signature["outputs"] == {"score": {"shape": ["b"], "dtype": "float32"}}
    assert signature["platforms"] == ["cpu", "cuda", "tpu"]


def test_equal_content_has_one_version_and_latest_follows(tmp_path, weights):
    first = write(tmp_path, weights)
    assert write(tmp_path, weights) == first
    second = write(tmp_path, {**weights, "w": weights["w"] * 2})
    assert second != first
    assert load(tmp_path).version == second.name == load(second).version
    assert load(first).version == first.name
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "program.stablehlo", "signature.json", "selfcheck.safetensors"]
)
def test_a_damaged_file_is_named(exported, name):
    raw = bytearray((exported / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (exported / name).write_bytes(raw)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        load(exported)


def test_a_damaged_manifest_and_a_missing_file_are_named(exported):
    (exported / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights\.safetensors is missing"):
        load(exported)
    (exported / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        load(exported)
    with pytest.raises(UserError, match=r"is not an exported artefact: it has no manifest\.json"):
        load(exported.parent.parent)


def test_the_self_check_refuses_another_computation(exported, monkeypatch):
    artifact = load(exported)
    artifact.forward.weights["w"] = artifact.forward.weights["w"] * 1.01
    with pytest.raises(UserError, match=r"fails its self-check on cpu: output 'score' is off by"):
        artifact.check()


def test_bad_batches_are_named(exported):
    artifact, batch = load(exported), rows_of(4)
    with pytest.raises(UserError, match=r"lacks input 'price'; did you mean 'prices'"):
        artifact({n if n != "price" else "prices": a for n, a in batch.items()})
    with pytest.raises(UserError, match=r"'item' holds ids 0\.\.20, the model has rows 0\.\.19"):
        artifact({**batch, "item": np.array([0, 1, 2, 20])})
    with pytest.raises(UserError, match=r"'item' is float64, the model takes int32"):
        artifact({**batch, "item": np.zeros(4)})
    with pytest.raises(UserError, match=r"'history' has shape \(4, 5\), the model takes \(b, 3\)"):
        artifact({**batch, "history": np.zeros((4, 5), np.int32)})
    with pytest.raises(UserError, match="differ in their number of rows"):
        artifact({**batch, "price": np.zeros(3, np.float32)})


def test_a_platform_that_fails_is_named(tmp_path, weights):
    def cpu_alone(weights, batch):
        q, _ = jnp.linalg.qr(weights["table"])
        return {"score": tower(weights, batch)["score"] + jax.lax.platform_dependent(q[0, 0], cpu=lambda v: v)}

    with pytest.raises(UserError, match=r"cannot be exported for cuda, tpu; it can for --platforms cpu"):
        write(tmp_path, weights, function=cpu_alone)
