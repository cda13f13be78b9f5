"""Data sets of ads and clicks."""

from tests.data.builders.case import Case

CASES = (
    Case(
        "frappe",
        {"train": 4, "valid": 2, "test": 1},
        ("line", "5 fields, expected 11"),
        first={"label": 1.0},
        inputs=10,
    ),
    Case("frappe", {"train": 4, "valid": 2}, ("line", "5 fields, expected 11"), config="x1_without_test"),
)
