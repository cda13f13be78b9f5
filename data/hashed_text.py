"""Texts as vectors without a language model: TF-IDF of their words and letter trigrams in random directions.

What stands in where no published encoder is at hand. A word counts 1 + log of how often a text has it, times how few
texts do, and points in a direction of its own, drawn from a hash of its letters, plus those of its trigrams: a misspelt
word is near the right one, and a synonym is not.
"""

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

TRIGRAMS = 0.5
"""Length of what a word's trigrams give together, beside 1 of the word's own."""
BLOCK = 4096


def hashed_tfidf(texts: Sequence[str], *, dim: int = 256, seed: int = 0, corpus: Sequence[str] = ()) -> np.ndarray:
    """[n, dim] vectors of length 1, zeros for a text without a word; `corpus` says how rare words are, if not `texts`.

    A text has the same vector wherever it stands, as long as the corpus is the same.
    """
    known = Counter(word for text in (corpus or texts) for word in set(text.lower().split()))
    count = len(corpus or texts)
    place: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for number, text in enumerate(texts):
        for word, times in Counter(text.lower().split()).items():
            rows.append(number)
            columns.append(place.setdefault(word, len(place)))
            values.append((1 + np.log(times)) * np.log((1 + count) / (1 + known[word])))
    out = np.zeros((len(texts), dim), np.float32)
    if not rows:
        return out
    directions = np.stack([_direction(word, dim=dim, seed=seed) for word in place])
    row, column, value = np.array(rows), np.array(columns), np.array(values, np.float32)
    for start in range(0, len(row), BLOCK * 16):
        part = slice(start, start + BLOCK * 16)
        np.add.at(out, row[part], value[part, None] * directions[column[part]])
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _direction(word: str, *, dim: int, seed: int) -> np.ndarray:
    marked = f"<{word}>"
    parts = [marked[i : i + 3] for i in range(len(marked) - 2)]
    grams = sum((_drawn(part, dim=dim, seed=seed) for part in parts), start=np.zeros(dim, np.float32))
    return _drawn(f"word {word}", dim=dim, seed=seed) + TRIGRAMS * grams / max(np.sqrt(len(parts)), 1)


def _drawn(name: str, *, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    return (rng.standard_normal(dim) / np.sqrt(dim)).astype(np.float32)
