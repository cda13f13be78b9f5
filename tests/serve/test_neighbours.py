"""Items by what is like them: against a loop over pairs, under constraints, across domains, from the command line."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import UserError
from data.mall.config import Mall
from data.mall.sources import MallProducts
from serve.__main__ import main
from serve.neighbour_stages import Neighbours
from serve.neighbours import near

N = 40


@pytest.fixture
def vectors(rng):
    x = rng.normal(size=(N, 6)).astype(np.float32)
    x[7] = 0
    return x


def slowly(x, *, count, category=None, price=None, share=0.0, least=-1.0):
    lists = []
    for i in range(len(x)):
        found = []
        for j in range(len(x)):
            if i == j or not x[i].any() or not x[j].any():
                continue
            if category is not None and (category[i] != category[j] or category[i] < 0):
                continue
            if price is not None and not abs(price[i] - price[j]) <= share * abs(price[i]):
                continue
            cosine = x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
            if cosine >= least:
                found.append((-cosine, j))
        lists.append([j for _, j in sorted(found)][:count])
    return lists


def shown(found):
    return [[int(i) for i in row if i >= 0] for row in found.rows]


def test_lists_are_those_of_a_loop_whatever_the_constraints(vectors, rng, monkeypatch):
    category, price = rng.integers(-1, 4, N), rng.uniform(1, 9, N)
    price[3] = np.nan
    for block in (1 << 23, 50):  # all at once, and a row or two at a time
        monkeypatch.setattr("serve.neighbours.BLOCK", block)
        assert shown(near(vectors, vectors, count=5, itself=False)) == slowly(vectors, count=5)
        options = {"count": 6, "category": category, "price": price, "share": 0.5, "least": -0.2}
        found = near(vectors, vectors, count=6, itself=False, same=[category], within=[(price, 0.5)], least=-0.2)
        assert shown(found) == slowly(vectors, **options)
    assert shown(found)[7] == shown(found)[3] == []
    assert np.isfinite(found.cosine).sum() == (found.rows >= 0).sum() and np.nanmin(found.cosine) >= -0.2
    assert (np.diff(np.nan_to_num(found.cosine, nan=-2)) <= 0).all()


def test_another_domain_asks_and_may_find_its_own_number(vectors):
    found = near(2 * vectors[:3], vectors, count=1)
    assert found.rows[:, 0].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="of another domain"):
        near(vectors[:3], vectors, count=1, same=[np.zeros(N)])


@pytest.fixture
def files(vectors, tmp_path):
    ids = np.arange(N) + 2
    np.savez(tmp_path / "items.npz", id=ids, vector=vectors)
    np.savez(tmp_path / "videos.npz", id=np.array([4, 2]), vector=vectors[[10, 20]])
    table = {"id": ids[::-1], "category": [f"c{i % 3}" for i in ids[::-1]], "price": ids[::-1] * 1.0}
    pq.write_table(pa.table(table), tmp_path / "about.parquet")
    return tmp_path


def test_the_command_writes_what_others_read(files, vectors, capsys):
    items, about = str(files / "items.npz"), ["--attributes", str(files / "about.parquet")]
    output = files / "deep" / "alike.parquet"
    words = ["neighbours", items, "--output", str(output), "--count", "4", *about]
    assert main([*words, "--same", "category", "--within", "price=0.5"]) == 0
    ids = np.arange(N) + 2
    wanted = slowly(vectors, count=4, category=ids % 3, price=ids, share=0.5)
    rows = pq.read_table(output).to_pylist()
    assert [r["id"] for r in rows] == ids.tolist()
    assert [[i - 2 for i in r["neighbours"]] for r in rows] == wanted
    assert all(len(r["cosine"]) == len(r["neighbours"]) for r in rows)
    assert f"{N} rows with" in capsys.readouterr().out
    across = files / "across.npy"
    assert (
        main(["neighbours", items, "--queries", str(files / "videos.npz"), "--output", str(across), "--count", "1"])
        == 0
    )
    assert np.load(across).tolist() == [[0], [0], [22], [0], [12]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "{}/x.csv"], "name a .parquet or a .npy"),
        (["--output", "{}/x.npy", "--same", "category"], "--attributes"),
        (["--output", "{}/x.npy", "--same", "brand", "--attributes", "{}/about.parquet"], "no column 'brand'"),
        (["--output", "{}/x.npy", "--within", "category=1", "--attributes", "{}/about.parquet"], "has no range"),
        (
            [
                "--output",
                "{}/x.npy",
                "--queries",
                "{}/videos.npz",
                "--same",
                "category",
                "--attributes",
                "{}/about.parquet",
            ],
            "items themselves",
        ),
    ],
)
def test_what_is_asked_wrongly_is_answered_with_the_fix(files, words, message, capsys):
    assert main(["neighbours", str(files / "items.npz"), *(w.format(files) for w in words)]) == 2
    assert message in capsys.readouterr().err


def test_the_stage_reads_its_constraints_from_a_source(tmp_path, rng):
    mall = Mall(size="tiny")
    ids = np.arange(mall.n_items) + 2
    np.savez(tmp_path / "v.npz", id=ids[::-1], vector=rng.normal(size=(len(ids), 5)))
    source = MallProducts(mall=mall, views=())
    stage = Neighbours(of=str(tmp_path / "v.npz"), source=source, same=("category",), count=3)
    done = stage.run(out=tmp_path, say=lambda line: None)
    table = np.load(tmp_path / "neighbours.npy")
    rows = source.make().take(np.arange(len(ids)))
    category = dict(zip(rows["item"].tolist(), rows["category"].tolist(), strict=True))
    assert table.shape == (len(ids) + 2, 3) and not table[:2].any() and done["rows"] == len(ids)
    for item in range(2, len(table), 17):
        assert all(category[n] == category[item] and n != item for n in table[item] if n)
    with pytest.raises(ValueError, match="give their source"):
        Neighbours(of="x", same=("category",))
