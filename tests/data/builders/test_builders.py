"""Every builder, on rows written by us in the format of its release, one of them malformed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.builders import base
from tests.data.builders import cases_ads, cases_content

FIXTURES = Path(__file__).parent / "fixtures"


CASES = (*cases_ads.CASES, *cases_content.CASES)


def _manual(folder: Path, tmp_path: Path) -> Path:
    """The fixture; where its rows stand for Parquet files, a copy with these."""
    if not list(folder.rglob("*.parquet.jsonl")):
        return folder
    copy = Path(shutil.copytree(folder, tmp_path / "manual"))
    for file in copy.rglob("*.parquet.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        pq.write_table(pa.Table.from_pylist(rows), file.with_suffix(""))
        file.unlink()
    return copy


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{c.config or 'default'}-{c.folder or ''}")
def test_builder(case, tmp_path):
    path = base.build(
        case.name,
        manual=_manual(FIXTURES / (case.folder or case.name), tmp_path),
        out=tmp_path / "out",
        config=case.config,
        max_rejects=0.5,
    )
    found = base.metadata(path)
    assert {split: values["rows"] for split, values in found["statistics"]["splits"].items()} == case.rows
    faults = [json.loads(line) for line in (path / "rejects.jsonl").read_text().splitlines()] if case.fault else []
    wanted = () if case.fault is None else (case.fault,) if isinstance(case.fault[0], str) else case.fault
    assert sorted((fault["field"], fault["why"]) for fault in faults) == sorted(wanted)
    assert found["rejected"]["rows"] == len(faults)
    for split, rows in case.rows.items():
        source = base.Built(path=str(path), split=split).make()
        assert len(source) == rows
    train = base.Built(path=str(path), split=next(iter(case.rows))).make()
    assert case.inputs is None or len(train.features) == case.inputs
    first = train[0]
    for name, value in case.first.items():
        assert np.allclose(first[name], value), (name, first[name])
    for feature in train.features:
        if feature.kind == "categorical" and feature.encode == "vocabulary":
            assert train.columns[feature.name].max() < feature.rows
    if case.leak:
        assert any(line.startswith("LEAK") and case.leak in line for line in found["leaks"]), found["leaks"]


def test_every_builder_has_a_case():
    assert {case.name for case in CASES} == set(base.known())
