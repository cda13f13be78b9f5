"""The builders on the public files themselves, where ADLOOM_DATA names a folder that holds them."""

import os
from pathlib import Path

import pytest

from data.builders import base

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("ADLOOM_DATA" not in os.environ, reason="ADLOOM_DATA is not set: no public files to build from"),
]

SETS = (
    ("frappe", "ctr/frappe", "x1_without_test", {"train": 202_027, "valid": 57_722}),
    ("amazon_din", "ctr/amazon_beauty", "without_test", {"train": 262_826, "valid": 44_726}),
    ("criteo", "ctr/criteo_10k", "temporal", {"train": 8_000, "valid": 1_000, "test": 1_000}),
    ("ipinyou", "ctr/ipinyou_sample", "libfm", {"train": 26_773, "test": 21_150}),
    ("ipinyou", "ctr/ipinyou_2997", "auctions", {"test": 156_063}),
    ("open_bandit", "ctr/open_bandit", "men", {"random": 10_000, "bts": 10_000}),
)
ALSO = {
    "amazon_din": {"users": 22_363, "items": 12_101},
    "open_bandit": {"items": 34},
}


@pytest.mark.parametrize(("name", "folder", "config", "rows"), SETS, ids=lambda v: v if isinstance(v, str) else "")
def test_counts_of_the_public_files(name, folder, config, rows, tmp_path):
    path = base.build(name, manual=Path(os.environ["ADLOOM_DATA"]) / folder, out=tmp_path, config=config)
    found = base.metadata(path)
    assert {split: values["rows"] for split, values in found["statistics"]["splits"].items()} == rows
    assert found["rejected"]["rows"] == 0
    for what, count in ALSO.get(name, {}).items():
        assert found["statistics"][what] == count
    for split, count in rows.items():
        assert len(base.Built(path=str(path), split=split).make()) == count
