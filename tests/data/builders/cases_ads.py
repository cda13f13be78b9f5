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
    Case("criteo", {"train": 15, "valid": 2, "test": 2}, ("I5", "no float"), inputs=39),
    Case("criteo", {"train": 15, "valid": 1, "test": 3}, ("I5", "no float"), config="random"),
    Case("avazu", {"train": 15, "valid": 2, "test": 2}, ("hour", "no hour of the ten days"), inputs=24),
    Case(
        "amazon_din",
        {"train": 4, "test": 1},
        (("cate_history", "as many categories as items are due"), ("item_history", "not a list of int64")),
        inputs=5,
        first={"item_history/length": 1},
    ),
)
