"""The real sets that `ADLOOM_DATA` holds, built by their builders: counts equal its README."""

import os
from pathlib import Path

import pytest

from data.builders.base import Built, build, metadata

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("ADLOOM_DATA" not in os.environ, reason="ADLOOM_DATA is not set: no real data here"),
]


@pytest.mark.parametrize(
    ("name", "users", "items"),
    [("amazon14-beauty", 22_363, 12_101), ("amazon14-toys", 19_412, 11_924), ("ml-1m-sas", 6_040, 3_416)],
)
def test_sequences(name, users, items, tmp_path):
    path = build("sequences", manual=Path(os.environ["ADLOOM_DATA"]) / "seq" / name, out=tmp_path)
    found = metadata(path)
    splits = found["statistics"]["splits"]
    assert splits["valid"]["rows"] == users
    assert found["rejected"]["rows"] == 0
    assert found["tables"]["item"] == items + 2
    assert any(note.startswith(f"users {users}, items {items}, ") for note in found["notes"])
    leaks = [line for line in found["leaks"] if line.startswith("LEAK")]
    assert not [line for line in leaks if "target" in line], leaks  # ids are permuted, targets are new
    valid = Built(path=str(path), split="valid").make()
    assert len(valid) == users
    assert valid.columns["target"].max() <= items + 1


def test_fashion(tmp_path):
    path = build("fashion", config="packed", manual=Path(os.environ["ADLOOM_DATA"]) / "fashion", out=tmp_path)
    found = metadata(path)
    splits = {split: values["rows"] for split, values in found["statistics"]["splits"].items()}
    assert sum(splits.values()) == 41_630
    assert found["rejected"]["rows"] == 0
    valid = Built(path=str(path), split="valid").make()
    assert len(valid) == splits["valid"]
    assert valid.columns["image"].std() > 20
