"""Splits that are read apart: every builder makes the same data set of them, and what was read is not read again."""

import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from data.builders import base
from data.building import apart
from data.cluster import Cluster
from data.errors import TooManyRejects, UserError
from tests.data.builders.test_base import FRAPPE
from tests.data.builders.test_builders import CASES, FIXTURES, _manual


@dataclass(frozen=True)
class Here(Cluster):
    """The pieces in this process, each by a worker of its own, the last first; tests/data/test_elsewhere.py has Ray."""

    def map(self, make, *, pieces):
        for piece in reversed(pieces):
            yield piece, pickle.loads(pickle.dumps(make))()(piece)


def contents(path):
    """Of all files but what names the folder it was made in."""
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(Path(path).rglob("*")) if f.is_file()}


def both(name, manual, tmp_path, **options):
    return [
        base.build(name, manual=manual, out=tmp_path / where, max_rejects=0.5, cluster=cluster, **options)
        for where, cluster in (("a", None), ("b", Here()))
    ]


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c.name == "frappe" else pytest.mark.slow) for c in CASES],
    ids=lambda c: f"{c.name}-{c.config or 'default'}-{c.folder or ''}",
)
def test_every_builder_makes_the_same_of_splits_read_apart_or_says_that_it_cannot(case, tmp_path):
    files = _manual(FIXTURES / (case.folder or case.name), tmp_path)
    if base.find(case.name).together:
        with pytest.raises(UserError, match=r"read together, by one process; leave --engine out"):
            both(case.name, files, tmp_path, config=case.config)
        return
    here, there = both(case.name, files, tmp_path, config=case.config)
    assert contents(here) == contents(there)
    assert not list((tmp_path / "b").rglob("*.parts"))


class Cut(Here):
    """Ends after the first piece, as a command that is killed."""

    def map(self, make, *, pieces):
        yield next(super().map(make, pieces=pieces))
        raise KeyboardInterrupt


def frappe(manual, out, cluster=None, **options):
    return base.build("frappe", manual=manual, out=out, cluster=cluster, **{"max_rejects": 0.5, **options})


@pytest.fixture
def manual(tmp_path):
    return Path(shutil.copytree(FRAPPE, tmp_path / "manual"))


def test_a_killed_build_reads_again_what_it_had_not_read(manual, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        frappe(manual, out, Cut())
    (parts,) = out.rglob("*.parts")
    assert {p.name for p in parts.glob("*.json")} == {"made_from.json", "test.json"}
    read, worker = [], apart._worker
    monkeypatch.setattr(apart, "_worker", lambda open, files: lambda s: read.append(s) or worker(open, files)(s))
    monkeypatch.setattr(pickle, "dumps", lambda value: value)
    monkeypatch.setattr(pickle, "loads", lambda value: value)
    made = frappe(manual, out, Here())
    assert sorted(read) == ["train", "valid"]
    assert contents(made) == contents(frappe(manual, tmp_path / "other"))
    assert not parts.exists()


def test_files_that_changed_meanwhile_are_all_read_again(manual, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        frappe(manual, out, Cut())
    test = manual / "test.csv"
    test.write_text(test.read_text() + test.read_text().splitlines()[-1] + "\n")
    assert contents(frappe(manual, out, Here())) == contents(frappe(manual, tmp_path / "other"))


def test_too_many_rejects_stop_it_as_they_stop_a_build_here(manual, tmp_path):
    with pytest.raises(TooManyRejects) as here:
        frappe(manual, tmp_path / "a", max_rejects=0.01)
    with pytest.raises(TooManyRejects) as there:
        frappe(manual, tmp_path / "b", Here(), max_rejects=0.01)
    assert str(here.value) == str(there.value)
    assert not list((tmp_path / "b").rglob("dataset_info.json"))
