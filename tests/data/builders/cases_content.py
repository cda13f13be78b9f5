"""Data sets of content: films, places, pictures, texts."""

from tests.data.builders.case import Case

AGAIN = "seen before: the same"
CASES: tuple[Case, ...] = (
    Case(
        "movielens",
        {"train": 12, "valid": 2, "test": 2},
        ("item", "no int64"),
        inputs=7,
        first={"rating": 2.0, "liked": 0.0, "history/length": 0, "genres/length": 2},
    ),
    Case(
        "movielens",
        {"train": 12, "valid": 2, "test": 2},
        (("line", "2 fields, expected 4"), ("rating", "not 0.5 to 5 stars")),
        config="1m",
        inputs=7,
    ),
    Case("movielens", {"train": 12, "valid": 2, "test": 2}, ("rating", "no float"), config="latest", inputs=4),
    Case(
        "movielens",
        {"train": 4, "valid": 4, "test": 4},
        ("item", "no int64"),
        config="100k_leave_last_two",
        inputs=1,
        leak="time travel",
    ),
    Case("movielens", {"train": 8, "valid": 1, "test": 1}, ("tag", "empty tag"), config="tags", inputs=5),
    Case(
        "movielens",
        {"train": 6, "valid": 3, "test": 3},
        ("label", "neither 0 nor 1"),
        config="latest_x1",
        inputs=3,
        leak="id order",
    ),
    Case(
        "sequences",
        {"train": 4, "valid": 5},
        tuple(
            ("line", why) for why in ("not numbers", "fewer than 2 items", "user seen before", "item id outside 1..8")
        ),
        inputs=1,
        first={"history/length": 2, "target": 5},
    ),
    Case(
        "sequences",
        {"train": 3, "valid": 4, "test": 5},
        tuple(
            ("line", why) for why in ("not numbers", "fewer than 2 items", "user seen before", "item id outside 1..8")
        ),
        config="whole",
    ),
    Case(
        "yelp",
        {"train": 8, "valid": 1, "test": 1},
        (("date", "no date"), ("line", "not JSON"), ("review", f"{AGAIN} review")),
        inputs=5,
    ),
    Case(
        "yelp",
        {"train": 1, "valid": 1, "test": 1},
        (("date", "no date"), ("line", "not JSON"), ("review", f"{AGAIN} review")),
        config="leave_last_two",
        inputs=1,
    ),
    Case("microlens", {"train": 9, "valid": 1, "test": 2}, ("item", "no int64"), inputs=4),
    Case("microlens", {"train": 3, "valid": 3, "test": 3}, ("item", "no int64"), config="100k_leave_last_two"),
    Case(
        "microlens",
        {"train": 5, "valid": 3},
        ("item_id", "not in item_info"),
        config="mmctr",
        folder="microlens_mmctr",
        inputs=6,
        first={"item_seq/length": 2, "item_emb": 0.5},
    ),
    Case(
        "fashion",
        {"train": 17, "valid": 1, "test": 2},
        (
            ("id", "no int64"),
            ("id", "no picture"),
            ("id", "picture does not decode"),
            ("line", "11 fields, expected 10"),
        ),
        inputs=10,
    ),
    Case(
        "fashion",
        {"train": 4, "valid": 2},
        (("id", "no picture"), ("id", "picture does not decode"), ("offset", "outside images.bin")),
        config="packed",
        folder="fashion_packed",
        inputs=10,
    ),
    Case("rope", {"train": 15, "test": 10}, ("line", "1 fields, expected 2"), inputs=2),
    Case("mbe", {"train": 5, "test": 3}, (("id", f"{AGAIN} id"), ("line", "not JSON")), inputs=7),
    Case(
        "creativepair",
        {"train": 26, "valid": 4, "test": 3},
        (("image_a", "no such picture"), ("label", "neither A nor B")),
        inputs=4,
    ),
    Case("adparaphrase", {"train": 25, "valid": 4, "test": 4}, ("preference_ad1", "no int64"), inputs=4),
    Case("adparaphrase", {"train": 18, "valid": 2, "test": 3}, ("line", "2 fields, expected 10"), config="v1"),
    Case("adparaphrase", {"train": 2, "valid": 1, "test": 1}, None, config="v2_triplets", inputs=5),
    Case(
        "qilin",
        {"train": 44, "valid": 3, "test": 6},
        ("note", "not in notes"),
        inputs=14,
        first={"history/length": 2, "click": 0.0},
        leak="time travel",
    ),
    Case("qilin", {"train": 30, "valid": 2, "test": 4}, None, config="recommendation", inputs=14),
)
