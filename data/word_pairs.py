"""What the words of two items say of the pair: cosines of their titles and categories, and who is nearer to whom.

For each item the `listed` nearest by words, and of each such pair the FACTS. Of what an item's number is, or of who
bought what, nothing is read; where a list ends among equals, the texts' alphabetical order decides, and among equal
texts, whose facts are equal too, that of the table.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp

from data.features import FIRST
from data.item_texts import WORD, tfidf, vectors
from data.strongest import BLOCK, strongest

COSINES = ("words", "phrases", "title words", "title phrases", "categories", "first words", "letters", "directions")
RANKED = ("words", "phrases", "title words", "directions")
FACTS = (*COSINES, *(f"{name}: {way}" for name in RANKED for way in ("its place", "one's place with it")))
"""Cosines, and logs of places: that of the listed item among all by nearness to the item, and the other way round."""
DIRECTIONS = 128
LETTERS = 4
DECIMALS = 5
"""Of a cosine: what differs by rounding alone is as near."""
Space: TypeAlias = sp.csr_array | np.ndarray
"""Rows of length 1, or of zeros, in which nearness is a product."""


def pair_facts(titles: list[str], categories: list[str], *, listed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items [rows, listed], 0 past the end, and their facts [rows, listed, len(FACTS)], all within -1 and 1."""
    rows = len(titles)
    spaces = _spaces(titles, categories)
    order = np.argsort(np.array([f"{a} {b}" for a, b in zip(titles, categories, strict=True)]), kind="stable")
    items = _nearest(spaces["words"], spaces["phrases"], count=min(listed, rows - 1), order=order)
    items = np.pad(items, ((0, 0), (0, listed - items.shape[1])))
    facts = np.zeros((rows, listed, len(FACTS)), np.float32)
    # Pairs by the listed item: where each item stands in others' lists.
    of, place = np.nonzero(items)
    by_listed = np.argsort(items[of, place], kind="stable")
    of, place = of[by_listed], place[by_listed]
    ends = np.searchsorted(items[of, place], np.arange(rows + 1))
    for k, name in enumerate(COSINES):
        at = len(COSINES) + 2 * RANKED.index(name) if name in RANKED else None
        for row, cosine in _rows(spaces[name]):
            own = np.flatnonzero(items[row])
            facts[row, own, k] = cosine[items[row, own]]
            if at is not None:
                cosine[:FIRST], cosine[row] = -np.inf, -np.inf
                climbing = np.sort(cosine)
                facts[row, own, at] = _place(climbing, cosine[items[row, own]])
                who, where = of[ends[row] : ends[row + 1]], place[ends[row] : ends[row + 1]]
                facts[who, where, at + 1] = _place(climbing, cosine[who])
    return items, facts


def _spaces(titles: list[str], categories: list[str]) -> dict[str, Space]:
    both = [f"{title} {category}" for title, category in zip(titles, categories, strict=True)]
    words = tfidf(both)[0]
    directions = max(1, min(DIRECTIONS, min(words.shape) - 1))
    return {
        "words": words,
        "phrases": tfidf(both, pairs=True)[0],
        "title words": tfidf(titles)[0],
        "title phrases": tfidf(titles, pairs=True)[0],
        "categories": tfidf([_path(text) for text in categories])[0],
        "first words": tfidf([_first(text) for text in titles])[0],
        "letters": tfidf([_letters(text) for text in titles])[0],
        "directions": vectors(both, width=directions),
    }


def _path(category: str) -> str:
    """Each beginning of a > b > c as one word."""
    steps = ["".join(WORD.findall(step.lower())) for step in category.split(">")]
    return " ".join("".join(steps[: n + 1]) for n in range(len(steps)))


def _first(title: str) -> str:
    """The first word and the first two as one: brand and line, where a shop's titles begin with them."""
    words = WORD.findall(title.lower())[:2]
    return " ".join((words[0], "".join(words))) if words else ""


def _letters(title: str) -> str:
    text = "z".join(WORD.findall(title.lower()))
    return " ".join(text[at : at + LETTERS] for at in range(max(1, len(text) - LETTERS + 1)))


def _cosines(space: Space, part: slice) -> np.ndarray:
    product = space[part] @ space.T
    dense = product if isinstance(product, np.ndarray) else product.toarray()
    return np.round(np.asarray(dense, np.float32), DECIMALS)


def _rows(space: Space) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, space.shape[0], BLOCK):
        yield from enumerate(_cosines(space, slice(start, start + BLOCK)), start)


def _nearest(words: Space, phrases: Space, *, count: int, order: np.ndarray) -> np.ndarray:
    """The items of the highest sums of cosines, nearest first; 0 where none is left that has a word in common."""
    found, cosine = strongest(lambda part: _cosines(words, part) + _cosines(phrases, part), count=count, order=order)
    return np.take_along_axis(found, np.argsort(-cosine, axis=1, kind="stable"), axis=1)


def _place(climbing: np.ndarray, values: np.ndarray) -> np.ndarray:
    """log(1 + how many are higher) over the log of how many there are."""
    higher = len(climbing) - np.searchsorted(climbing, values, side="right")
    return np.log1p(higher) / np.log(len(climbing))
