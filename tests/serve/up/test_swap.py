"""Another version in the same place: taken up whole, or refused with the old one serving on."""

import asyncio
import json
import shutil
import time

import numpy as np
import pytest

from data.manifest import write_manifest
from serve.artifact import load
from serve.index.build import build_live
from serve.versions import point
from tests.serve.up.conftest import ask, client_of, export, rows_of, serving, tensors, wait_for

AUTH = {"Authorization": "Bearer t"}
BODY = {"inputs": tensors(rows_of(3))}


def score(app):
    answer = ask(app, "POST", "/v2/models/tower/infer", json=BODY, headers=AUTH)
    assert answer.status_code == 200, answer.text
    (tensor,) = [t for t in answer.json()["outputs"] if t["name"] == "score"]
    return np.array(tensor["data"], np.float32)


def reload(app):
    return ask(app, "POST", "/v1/reload", headers=AUTH)


@pytest.fixture
def folder(tmp_path):
    export(tmp_path / "export")
    return tmp_path / "export"


@pytest.fixture
def app(folder):
    with serving(folder, token="t") as app:
        yield app


def test_a_newer_version_is_taken_up(app, folder):
    old = score(app)
    second = export(folder, seed=2)
    done = reload(app).json()
    assert done == {"swapped": True, "versions": {"model": second.name}}
    np.testing.assert_array_equal(score(app), load(second)(rows_of(3))["score"])
    assert not np.allclose(score(app), old)
    assert reload(app).json()["swapped"] is False
    text = ask(app, "GET", "/metrics", headers=AUTH).text
    assert 'adloom_swaps_total{result="done"} 1.0' in text
    assert f'version="{second.name}"' in text and text.count("adloom_model_info{") == 1


def test_a_newer_version_is_compiled_before_it_is_seen(app, folder):
    export(folder, seed=2)
    assert reload(app).json()["swapped"]
    artifact = app.state.house.serving.artifact
    compiled = artifact.forward._call._cache_size()
    for rows in (1, 9, 32):
        artifact(rows_of(rows))
    assert artifact.forward._call._cache_size() == compiled


def test_an_index_beside_the_model_is_handed_on_with_its_updates(folder, tmp_path):
    with build_live(np.eye(4, dtype=np.float32), ids=list("abcd"), merge_by_itself=False) as live:
        live.save(tmp_path / "live")
    with serving(folder, index=tmp_path / "live", token="t") as app:
        before = app.state.house.serving
        export(folder, seed=2)
        assert reload(app).json()["swapped"]
        after = app.state.house.serving
        assert after.artifact is not before.artifact and after.index is before.index
        answer = ask(app, "POST", "/v1/items", json={"ids": ["e"], "vectors": [[1, 1, 1, 1]]}, headers=AUTH)
        assert answer.json() == {"added": 1, "replaced": 0, "items": 5}, answer.text


def test_no_request_fails_while_versions_change(app, folder):
    versions = {load(folder).version: load(folder)(rows_of(3))["score"]}

    async def run():
        failed, seen, stop = [], set(), asyncio.Event()

        async def ask_on(client):
            while not stop.is_set():
                answer = await client.post("/v2/models/tower/infer", json=BODY)
                if answer.status_code != 200:
                    failed.append(answer.text)
                    continue
                found = answer.json()
                (tensor,) = [t for t in found["outputs"] if t["name"] == "score"]
                wanted = versions[found["model_version"]]
                np.testing.assert_allclose(tensor["data"], wanted, atol=1e-6)
                seen.add(found["model_version"])

        async with client_of(app, headers=AUTH) as client:
            asking = [asyncio.create_task(ask_on(client)) for _ in range(4)]
            for seed in (2, 3):
                path = await asyncio.to_thread(lambda seed=seed: export(folder, seed=seed))
                versions[path.name] = (await asyncio.to_thread(load, path))(rows_of(3))["score"]
                assert (await client.post("/v1/reload")).json()["swapped"]
                await asyncio.sleep(0.05)
            stop.set()
            await asyncio.gather(*asking)
        return failed, seen

    failed, seen = asyncio.run(run())
    assert not failed and seen == set(versions)


def spoil_weights(path):
    raw = bytearray((path / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (path / "weights.safetensors").write_bytes(raw)


def cut_short(path):
    (path / "selfcheck.safetensors").unlink()


def of_a_later_format(path):
    changed(path, "signature.json", lambda text: text.replace('"format": 1', '"format": 99'))


def of_a_later_jax(path):
    (path / "program.stablehlo").write_bytes(b"what only a later jax can read")
    changed(path, "signature.json", lambda text: json.dumps({**json.loads(text), "versions": {"jax": "99.0"}}))


def of_other_weights(path):
    from safetensors.numpy import load_file, save_file

    weights = load_file(path / "weights.safetensors")
    save_file({**weights, "w": weights["w"] * 1.5}, path / "weights.safetensors")
    write_manifest(path, version=path.name)


def changed(path, name, change):
    (path / name).write_text(change((path / name).read_text()))
    write_manifest(path, version=path.name)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_weights, "weights.safetensors is damaged"),
        (cut_short, "selfcheck.safetensors is missing"),
        (of_a_later_format, "has format 99, this version reads 1; export again"),
        (of_a_later_jax, "was written by 99.0, and an artefact opens in the same or a later version"),
        (of_other_weights, "fails its self-check on cpu"),
        (shutil.rmtree, "which is not there"),
    ],
)
def test_a_bad_version_is_refused_and_the_old_serves_on(app, folder, spoil, reason):
    old = score(app)
    spoil(export(folder, seed=2))
    answer = reload(app)
    assert answer.status_code == 409 and reason in answer.json()["error"], answer.text
    assert "the old one serves on" in answer.json()["error"]
    np.testing.assert_array_equal(score(app), old)
    assert 'adloom_swaps_total{result="refused"} 1.0' in ask(app, "GET", "/metrics", headers=AUTH).text
    good = export(folder, seed=3)
    assert reload(app).json()["versions"] == {"model": good.name}


def test_the_folder_is_watched_and_a_bad_version_is_tried_once(folder, tmp_path):
    bad = export(tmp_path / "elsewhere", seed=2)
    spoil_weights(bad)
    with serving(folder, watch_seconds=0.05) as app:
        house = app.state.house
        # Spoiled before it is pointed at: the watcher could take up a whole one in between.
        shutil.move(bad, folder / bad.name)
        point(folder, name=bad.name)
        wait_for(lambda: refused(app) == 1)
        time.sleep(0.3)
        assert refused(app) == 1
        good = export(folder, seed=3)
        wait_for(lambda: house.serving.versions == {"model": good.name})


def refused(app):
    lines = [x for x in ask(app, "GET", "/metrics").text.splitlines() if x.startswith('adloom_swaps_total{result="ref')]
    return float(lines[0].split()[-1]) if lines else 0
