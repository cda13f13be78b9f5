import pyarrow as pa

from data.hashing import hash_ids


def test_more_distinct_texts_than_are_hashed_at_once():
    words = [f"w{i}" for i in range(5000)]
    ids = hash_ids(pa.array([*words, ""]), rows=100_000)
    assert ids[:7].tolist() == hash_ids(pa.array(words[:7]), rows=100_000).tolist()
    assert ids[-1] == 0 and ids[:-1].min() >= 2
