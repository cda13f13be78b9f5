"""The engine beyond one process, on a local Ray cluster of two workers: the bytes of a local run, whoever dies."""

import contextlib
import dataclasses
import functools
import os
import signal
import socket
import sys
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data.builders import base
from data.cluster import MOST_DEATHS, Cluster
from data.convert import convert
from data.errors import TooManyRejects, UserError
from data.features import Categorical, Features, Sequence
from data.propose import propose
from data.stats import measure
from data.vocabulary import build
from serve import embed_folder as folders
from serve.elsewhere import Opened, Workers
from serve.inputs import ParquetInput
from serve.score import account, score
from tests.data.builders.test_base import FRAPPE
from tests.data.building.test_apart import contents
from tests.serve import test_embed_folder as embedding
from tests.serve import test_score as scoring

BATCH, SPAN = 64, 200


@pytest.fixture(scope="module")
def cluster():
    """One start for all: within it, every command finds Ray there. Other tests have begun jax, which warns of forks."""
    workers = Cluster(workers=2)
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"os\.fork", category=RuntimeWarning)
            stack.enter_context(workers.connected())
        yield workers


class Mortal(ParquetInput):
    """Kills its process in the middle of the span that starts at `at`, as often as `lives` holds files."""

    def __init__(self, path, *, log, at, **options):
        super().__init__(path, **options)
        self.log, self.at = log, at

    def read(self, span, *, rows):
        (self.log / f"read-{span.start}-{os.getpid()}").touch()
        for number, chunk in enumerate(super().read(span, rows=rows)):
            life = next(iter(sorted(self.log.glob("life-*"))), None)
            if span.start == self.at and number == 1 and life is not None:
                life.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk


def opened(path, *, log, at=-1, model="m"):
    (log / f"opened-{os.getpid()}").touch()
    rows = Mortal(path, log=log, at=at, features=scoring.FEATURES, vocabularies=None, carry=("id",))
    return Opened(scoring.FORWARD, rows, account(model, rows=rows, batch=BATCH, span_rows=SPAN))


def run(path, output, *, cluster=None, open=None, **options):
    rows = ParquetInput(path, features=scoring.FEATURES, vocabularies=None, carry=("id",))
    elsewhere = None if cluster is None else Workers(cluster, open)
    options = {"batch": BATCH, "span_rows": SPAN, **options}
    return score(scoring.FORWARD, model="m", rows=rows, output=output, elsewhere=elsewhere, **options)


@pytest.fixture
def spoilt(tmp_path):
    """Four spans of 270 rows and one of 220, with two rows that are rejected."""
    path = tmp_path / "x.parquet"
    pq.write_table(scoring.spoilt(1300, bad=[5, 777]), path, row_group_size=90)
    return path


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def pids(log, what):
    return [int(p.name.rpartition("-")[2]) for p in log.glob(f"{what}-*")]


def test_a_worker_killed_in_mid_span_loses_and_doubles_nothing(spoilt, tmp_path, log, cluster):
    whole = run(spoilt, tmp_path / "whole.parquet")
    (log / "life-0").touch()
    begun = tmp_path / "y.parquet"
    done = run(spoilt, begun, cluster=cluster, open=functools.partial(opened, spoilt, log=log, at=540))
    assert not list(log.glob("life-*")), "nobody was killed"
    assert (done.rows, done.rejected) == (whole.rows, whole.rejected) == (1300, 2)
    assert begun.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert pq.read_table(begun)["id"].to_pylist() == [f"r{i}" for i in range(1300)]
    assert done.rejects.read_text() == whole.rejects.read_text()
    assert not begun.with_name("y.parquet.parts").exists()
    readers = {p: pids(log, f"read-{p}") for p in range(0, 1300, 270)}
    assert len(set(readers.pop(540))) == 2, "the span of the dead was not done by another"
    assert all(len(who) == 1 for who in readers.values()), "a span that was done was done again"
    # opened once in each of the two workers and in the one that took the dead one's place, if it came in time
    assert len(pids(log, "opened")) in (2, 3)
    assert os.getpid() not in pids(log, "read-0")


@pytest.mark.slow
def test_a_span_that_kills_whoever_takes_it_ends_the_run_and_its_parts_serve_the_next(spoilt, tmp_path, log, cluster):
    for life in range(MOST_DEATHS):
        (log / f"life-{life}").touch()
    output = tmp_path / "y.parquet"
    mortal = functools.partial(opened, spoilt, log=log, at=270)
    with pytest.raises(UserError, match=rf"{MOST_DEATHS} workers died at one piece of the work .*smaller --batch"):
        run(spoilt, output, cluster=cluster, open=mortal)
    assert not output.exists()
    kept = sorted(output.with_name("y.parquet.parts").glob("part-*.arrow"))
    assert "part-00001.arrow" not in [p.name for p in kept]
    assert kept
    before = {p: p.stat().st_mtime_ns for p in kept}
    run(spoilt, tmp_path / "whole.parquet")
    monkey = pytest.MonkeyPatch()
    written = []
    monkey.setattr(scoring.Parts, "write", lambda self, i, w=scoring.Parts.write: written.append(i) or w(self, i))
    run(spoilt, output, resume=True)  # in this process: what workers began it goes on with
    monkey.undo()
    assert written
    assert not {f"part-{i:05d}.arrow" for i in written} & {p.name for p in before}
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.slow
def test_rejects_are_counted_over_the_whole(tmp_path, log, cluster):
    path = tmp_path / "x.parquet"
    pq.write_table(scoring.spoilt(1300, bad=[*range(0, 12), *range(1290, 1300)]), path, row_group_size=90)
    with pytest.raises(TooManyRejects, match=r"of 1300 rows rejected so far, allowed 1\.0%") as raised:
        run(path, tmp_path / "y.parquet", cluster=cluster, open=functools.partial(opened, path, log=log))
    assert raised.value.exit_code == 3
    assert not (tmp_path / "y.parquet").exists()


@pytest.mark.slow
def test_what_is_wrong_in_a_worker_is_one_line(spoilt, tmp_path, log, cluster):
    other = functools.partial(opened, spoilt, log=log, model="another")
    with pytest.raises(UserError) as raised:
        run(spoilt, tmp_path / "y.parquet", cluster=cluster, open=other)
    said = str(raised.value)
    assert said.startswith("a worker sees other model than the command") and "\n" not in said


def to_embed(path, output):
    declared = embedding.features(absent="reject")
    rows = ParquetInput(path, features=declared, vocabularies=None, carry=("item",))
    how = {"model": "m1", "outputs": ("item",), "rows": rows, "id": "item", "features": declared, "output": output}
    work = folders.prepare(embedding.FORWARD, **how, batch=16, span_rows=40)
    return Opened(embedding.FORWARD, work.changed, work.account)


@pytest.mark.slow
def test_embedding_gives_the_folder_of_a_local_run(tmp_path, cluster):
    path = embedding.save(embedding.items(), tmp_path / "x.parquet")
    embedding.run(path, tmp_path / "local")
    output = tmp_path / "v"
    workers = Workers(cluster, functools.partial(to_embed, path, output))
    done, _ = embedding.run(path, output, elsewhere=workers)
    assert done.new == embedding.ROWS
    assert embedding.contents(output) == embedding.contents(tmp_path / "local")


ITEM = Categorical(name="item", rows=100, encode="vocabulary")
PAST = Categorical(name="h", rows=100, encode="vocabulary", vocabulary="item")
VOCABULARY = Features(all=(ITEM, Sequence(name="history", of=PAST, length=3)))


@pytest.mark.slow
def test_vocabularies_are_those_of_a_local_pass(tmp_path, cluster):
    (tmp_path / "in").mkdir()
    for seed in range(3):
        pq.write_table(scoring.table(100, seed=seed), tmp_path / "in" / f"{seed}.parquet")
    made = [
        build(str(tmp_path / "in"), features=VOCABULARY, folder=tmp_path / name, floor=2, most=60, cluster=engine)
        for name, engine in (("a", None), ("b", cluster))
    ]
    assert len(made[0]["item"]) == 60
    assert embedding.contents(tmp_path / "a") == embedding.contents(tmp_path / "b")


@dataclasses.dataclass(frozen=True)
class Deadly(Cluster):
    """The worker that first comes to `piece` dies before it is done."""

    life: Path | None = None
    piece: object = None

    def map(self, make, *, pieces):
        yield from super().map(functools.partial(mortal, make, life=self.life, at=self.piece), pieces=pieces)


def mortal(make, *, life, at):
    work = make()

    def done(piece):
        if piece == at and life.exists():
            life.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return work(piece)

    return done


@pytest.fixture
def deadly(cluster, tmp_path):
    def made(piece):
        (tmp_path / "life").touch()
        return Deadly(workers=2, life=tmp_path / "life", piece=piece)

    yield made
    assert not (tmp_path / "life").exists(), "nobody was killed"


def test_csv_is_converted_as_by_one_process_though_a_worker_dies(deadly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the workers' processes began in another folder
    lines = ["id,price,title", *(f"{i},{i}.5,shoe {i}" for i in range(900))]
    lines[400], lines[700] = "399,1.5", "20,1.5,again"
    Path("a.csv").write_text("\n".join(lines))
    how = {"key": "id", "span": 4000}
    rejects = [
        convert(Path("a.csv"), target=Path(f"{name}.parquet"), cluster=engine, **how)
        for name, engine in (("here", None), ("there", deadly(2)))
    ]
    assert Path("there.parquet").read_bytes() == Path("here.parquet").read_bytes()
    assert list(rejects[1].lines()) == list(rejects[0].lines()) and rejects[1].count == 2
    assert not Path("there.parquet.parts").exists()


@pytest.mark.slow
def test_a_data_set_is_built_as_by_one_process_though_a_worker_dies(deadly, tmp_path):
    built = [
        base.build("frappe", manual=FRAPPE, out=tmp_path / name, max_rejects=0.5, cluster=engine)
        for name, engine in (("here", None), ("there", deadly("train")))
    ]
    assert contents(built[1]) == contents(built[0])


@pytest.mark.slow
def test_statistics_are_those_of_one_process(cluster, tmp_path):
    pq.write_table(scoring.table(500, seed=3), tmp_path / "x.parquet")
    assert propose(measure(str(tmp_path), cluster=cluster)) == propose(measure(str(tmp_path)))


def refused(tmp_path, *words):
    from serve.__main__ import main

    return main(["score", "model", "--input", str(tmp_path), "--output", str(tmp_path / "y.parquet"), *words])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--engine", "ray", "--workers", "0"), "0 workers do no work; --workers takes a number from 1"),
        (("--engine", "ray", "--address", "ray://there"), "is not host:port, such as"),
        (("--engine", "ray", "--address", "there:http"), "is not host:port, such as"),
        (("--workers", "2"), "--workers is of a cluster; go with --engine ray"),
        (("--address", "a:1"), "--address is of a cluster; go with --engine ray"),
    ],
)
def test_options_that_mean_nothing_are_refused(words, line, tmp_path, capsys):
    assert refused(tmp_path, *words) == 2
    assert line in capsys.readouterr().err


def test_an_engine_of_no_name_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        refused(tmp_path, "--engine", "spark")
    assert raised.value.code == 2
    assert "invalid choice: 'spark'" in capsys.readouterr().err


def test_an_address_that_does_not_answer_is_refused_at_once(tmp_path, capsys):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: it refuses
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refused(tmp_path, "--engine", "ray", "--address", address) == 2
    assert f"no Ray cluster answers at {address}" in capsys.readouterr().err


def test_without_the_extra_its_name_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refused(tmp_path, "--engine", "ray") == 2
    assert "pip install 'adloom[ray]'" in capsys.readouterr().err
