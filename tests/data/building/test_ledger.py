"""Each leak that a build looks for, planted and then not."""

import numpy as np
import pyarrow as pa
import pytest

from data.building.ledger import Counter, Keys, Ledger

KEYS = Keys(user="user", item="item", label="label", time="time", histories={"past": "item"})


def ledger(splits: dict[str, dict]) -> Ledger:
    made = Ledger(KEYS, vocabularies={"item": ["item", "past"]}, learn_from=("train",))
    for split, columns in splits.items():
        past = pa.array(columns.pop("past"), pa.list_(pa.int64()))
        types = {"label": pa.float32()}
        arrays = {name: pa.array(values, types.get(name, pa.int64())) for name, values in columns.items()}
        made.add(split, pa.table(arrays | {"past": past}))
    return made


def rows(rng, count: int, **changed) -> dict:
    plain = {
        "user": rng.permutation(count),
        "item": rng.permutation(count),
        "label": rng.integers(0, 2, count),
        "time": np.sort(rng.integers(1, 1000, count)),
        "past": [[int(i)] for i in rng.integers(count, 2 * count, count)],
    }
    return plain | changed


def leaks(found: Ledger) -> list[str]:
    return [line for line in found.leaks() if line.startswith("LEAK")]


def test_a_clean_log_has_none_but_says_what_was_looked_at(rng):
    found = ledger({"train": rows(rng, 200), "test": rows(rng, 200, time=np.full(200, 2000))})
    assert leaks(found) == []
    said = "\n".join(found.leaks())
    for what in ("id order: user", "id order: item", "target in history: past", "time order: train", "time travel"):
        assert what in said


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"item": np.arange(200)}, "id order: item: 100.0%"),
        ({"user": np.arange(200)}, "id order: user: 100.0%"),
    ],
)
def test_ids_in_the_order_of_first_appearance(rng, changed, says):
    (line,) = leaks(ledger({"train": rows(rng, 200, **changed)}))
    assert says in line


def test_target_in_history_of_positives_alone(rng):
    plain = rows(rng, 200)
    plain["past"] = [[int(i)] if y else [999] for i, y in zip(plain["item"], plain["label"], strict=True)]
    (line,) = leaks(ledger({"train": plain}))
    assert "target in history: past: 100.0% of positives, 0.0% of negatives" in line


def test_target_is_the_largest_past_id_plus_one(rng):
    plain = rows(rng, 200)
    plain["past"] = [[0, int(i) - 1] if y else [0] for i, y in zip(plain["item"] + 5, plain["label"], strict=True)]
    plain["item"] = plain["item"] + 5
    (line,) = leaks(ledger({"train": plain}))
    assert "largest past id plus one in 100.0% of positives" in line


def test_time_travel_and_rows_out_of_order(rng):
    train = rows(rng, 200, time=np.r_[np.arange(100, 200), np.arange(1, 101)])
    found = ledger({"train": train, "test": rows(rng, 50, time=np.full(50, 150))})
    (line,) = leaks(found)
    assert "time travel: 25.0% of training rows are as new as the oldest test row" in line
    assert "time order: train: 1 of 200 rows" in "\n".join(found.leaks())


def test_statistics_and_vocabularies(rng):
    found = ledger({"train": rows(rng, 100), "test": rows(rng, 60)})
    statistics = found.statistics()
    assert (statistics["rows"], statistics["users"], statistics["items"]) == (160, 100, 100)
    assert statistics["density"] == pytest.approx(160 / 100**2)
    vocabulary = found.counters["item"].vocabulary("item")
    assert len(vocabulary) > 100  # the items of histories have rows too
    assert vocabulary.lookup(pa.array([10_000])).tolist() == [1]


def test_counting_in_parts_gives_the_same_counts():
    counter = Counter()
    for part in (["a", "b", ""], ["a", None], ["a", "c"]):
        counter.add(pa.array(part, pa.string()))
    made = counter.vocabulary("letters")
    counts = dict(zip(made.values.to_pylist(), made.counts.tolist(), strict=True))
    assert counts == {"a": 3, "b": 1, "c": 1}
