"""Equal configs give equal bytes: in this process, in another, in one shard or many, whatever else is built."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data.errors import UserError
from data.mall.ads import campaigns
from data.mall.build import aftermath, build, shop_of
from data.mall.config import Mall
from data.mall.events import simulate
from data.mall.latents import catalogue
from data.mall.rng import normals, stream, uniforms
from data.mall.show import show
from data.mall.sources import MallClicks, click_features
from data.mall.views.title import titles
from data.mall.write import digest, main, write
from data.parquet import Parquet

MALL = Mall(size="tiny")


def fingerprint(mall: Mall) -> str:
    """Everything of the first shard, and some titles."""
    shop = catalogue(mall)
    log = simulate(mall, shop=shop, shard=0)
    tables = aftermath(mall, shop=shop, ads=campaigns(mall, shop=shop), log=log, shard=0)
    total = hashlib.sha256(titles(mall, shop=shop, items=np.arange(100))[0].tobytes())
    for name, table in sorted({**tables, "r": log.requests, "i": log.impressions, "a": log.actions}.items()):
        for column in sorted(table):
            total.update(f"{name}/{column}".encode() + np.ascontiguousarray(table[column]).tobytes())
    return total.hexdigest()


def test_equal_seeds_give_equal_bytes_here_and_in_a_fresh_process():
    code = "from tests.data.mall.test_determinism import *; print(fingerprint(MALL))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert fingerprint(MALL) == fingerprint(MALL) == done.stdout.strip()
    assert fingerprint(Mall(size="tiny", seed=1)) != done.stdout.strip()


def test_a_shard_does_not_need_the_others():
    shop, whole = shop_of(MALL), build(MALL).log
    alone = simulate(MALL, shop=shop, shard=1)
    mine = whole.impressions["user"] >= MALL.dims.user_block
    assert mine.any() and all(np.array_equal(c, whole.impressions[n][mine]) for n, c in alone.impressions.items())


def test_streams_are_apart_and_ids_stand_alone():
    a, b = (stream(0, name=n).random(1000) for n in "ab")
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.15 and not np.array_equal(a, stream(0, name="a", shard=1).random(1000))
    ids = np.arange(4000)
    u = uniforms(3, name="x", ids=ids, draws=4)
    assert np.array_equal(u[[17, 5]], uniforms(3, name="x", ids=np.array([17, 5]), draws=4))
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.003
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.06
    z = normals(3, name="x", ids=ids, draws=2)
    assert abs(z.mean()) < 0.04 and abs(z.std() - 1.0) < 0.03


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("mall")
    return out, write(MALL, out=out, history=6)


def test_files_are_the_same_from_shards_in_any_order(written, tmp_path):
    whole, counts = written
    for shard in (1, 0):
        write(MALL, out=tmp_path, shards=[shard], history=6)
    assert digest(tmp_path) == digest(whole)
    assert not (tmp_path / "manifest.json").exists(), "a manifest says that all shards are there"
    assert json.loads((whole / "manifest.json").read_text())["rows"] == counts
    assert not list(whole.rglob("*.partial"))


@pytest.mark.slow
def test_files_are_the_same_from_two_processes(written, tmp_path):
    write(MALL, out=tmp_path, workers=2, history=6)
    assert digest(tmp_path) == digest(written[0])


def test_written_clicks_are_the_rows_of_the_source(written):
    """Through the Parquet source, which applies the declared transforms to raw values."""
    out, counts = written
    source = MallClicks(mall=MALL, split="test", history=6).make()
    files = Parquet(path=str(out / "clicks" / "test"), features=click_features(MALL, history=6)).make()
    assert len(files) == len(source) == counts["clicks/test"]
    rows, read = (s.take(np.arange(len(s))) for s in (source, files))
    assert set(rows) == set(read)
    for name, column in rows.items():
        np.testing.assert_allclose(read[name], column, rtol=1e-5, atol=1e-6, err_msg=name)


def test_truth_lies_beside_the_log(written):
    out, _ = written
    names = {p.parent.name for p in out.rglob("*.parquet")}
    assert {"impressions", "auctions", "purchases", "bundles", "campaigns", "ratings", "treatments"} <= names
    people = pq.read_table(out / "truth" / "users")
    assert people.num_rows == MALL.n_users and {"leaf", "before", "after", "wish", "novelty"} <= set(
        people.column_names
    )
    asked = pq.read_table(out / "log" / "requests")
    words = np.array(asked["words"].to_pylist())
    assert np.array_equal(words.any(-1), asked["query"].to_numpy() >= 0)


def test_a_folder_holds_one_mall(written):
    with pytest.raises(UserError, match="another mall"):
        write(Mall(size="tiny", seed=5), out=written[0], history=6)
    with pytest.raises(UserError, match="numbered from 0 to 1"):
        write(MALL, out=written[0], shards=[7], history=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["siz=tiny"], "did you mean 'size'"),
        (["size=huge"], "tiny"),
        (["tiny"], "name=value"),
        (["workers=many", "size=tiny"], "whole number"),
    ],
)
def test_wrong_options_are_named(options, message, tmp_path):
    with pytest.raises(UserError, match=f"(?i){message}"):
        main(str(tmp_path), options)


def test_too_large_a_mall_says_where_to_go():
    with pytest.raises(UserError, match="python -m data build mall"):
        build(Mall(size="large"))


def test_pictures_are_made_and_the_page_names_the_best_possible(tmp_path):
    files = show(MALL, out=tmp_path)
    assert [f.name for f in files] == ["domains.png", "categories.png", "curves.png", "index.html"]
    assert all(f.stat().st_size > 1000 for f in files)
    assert "best possible AUC" in files[-1].read_text()
