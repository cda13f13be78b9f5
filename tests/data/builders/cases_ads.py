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
    Case(
        "amazon_din",
        {"train": 12, "valid": 6, "test": 6},
        ("unixReviewTime", "missing"),
        config="from_reviews",
        folder="amazon_din_reviews",
        first={"label": 1, "item_history/length": 1},
    ),
    Case("ipinyou", {"train": 5, "test": 3}, ("ip", "not index:1"), config="libfm", inputs=16),
    Case("ipinyou", {"test": 3}, ("ctr", "no probability"), config="auctions"),
    Case("ipinyou", {"train": 3, "valid": 2, "test": 3}, ("stamp", "no yyyyMMddHHmmssSSS"), config="impressions"),
    Case("ipinyou", {"train": 4, "valid": 3, "test": 4}, ("stamp", "no yyyyMMddHHmmssSSS"), config="bids"),
    Case("open_bandit", {"random": 4, "bts": 5}, ("propensity", "no probability"), inputs=11),
    Case("kuairec", {"train": 8, "valid": 1, "test": 4}, ("watch_ratio", "no double"), leak="time travel"),
    Case("kuaivideo", {"train": 4, "test": 2}, ("is_click", "no float"), inputs=4),
    Case("taobao_ad", {"train": 12, "valid": 2, "test": 2}, ("nonclk", "not the contrary of clk"), inputs=16),
    Case(
        "taobao_ad",
        {"train": 12, "valid": 2, "test": 2},
        ("nonclk", "not the contrary of clk"),
        config="with_history",
        inputs=18,
        first={"cate_history/length": 2},
    ),
    *(
        Case(
            "amazon_reviews",
            {"train": 11, "valid": 1, "test": 2},
            fault,
            config=year,
            folder=f"amazon_reviews/{year}",
            inputs=3,
            first={"history/length": 0},
        )
        for year, fault in (
            ("2014", ("line", "not JSON")),
            ("2018", ("line", "not JSON")),
            ("2023", ("rating", "not 1 to 5 stars")),
        )
    ),
    Case(
        "amazon_reviews",
        {"train": 3, "valid": 3, "test": 3},
        ("line", "not JSON"),
        config="2014_leave_last_two",
        folder="amazon_reviews/2014",
    ),
    Case("merrec", {"train": 8, "valid": 1, "test": 2}, ("event_id", "none of the six events"), inputs=12),
    Case("esci", {"train": 3, "test": 1}, ("product_id", "not among the products"), inputs=5),
    Case("esci", {"train": 4, "test": 1}, ("product_id", "not among the products"), config="large"),
    Case("mind", {"train": 6, "valid": 2}, ("shown", "not news-0 or news-1"), inputs=6, first={"history/length": 2}),
)
