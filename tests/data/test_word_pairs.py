"""What words say of pairs of items: lists and facts against their definitions, whatever the items' numbers are."""

import numpy as np
import pytest

from data.item_texts import tfidf, vectors
from data.word_pairs import COSINES, FACTS, RANKED, pair_facts

TITLES = [
    "",
    "",
    "Acme Foam Brick",
    "Acme Foam Ball",
    "Acme Rope",
    "Zed Foam Ball red",
    "Zed Kite",
    "Kite of paper",
    "",
]
CATEGORIES = ["", "", "Toys > Bricks", "Toys > Balls", "Toys > Ropes", "Toys > Balls", "Air", "Air > Paper", ""]
BOTH = [f"{a} {b}" for a, b in zip(TITLES, CATEGORIES, strict=True)]
ROWS, LISTED = len(TITLES), 4


@pytest.fixture(scope="module")
def found():
    return pair_facts(TITLES, CATEGORIES, listed=LISTED)


def products(space):
    space = space.toarray() if hasattr(space, "toarray") else space
    return space @ space.T


def test_lists_hold_the_nearest_by_words_and_phrases(found):
    items, _ = found
    near = products(tfidf(BOTH)[0]) + products(tfidf(BOTH, pairs=True)[0])
    for row in range(ROWS):
        there = [j for j in range(2, ROWS) if j != row and near[row, j] > 0]
        expected = sorted(there, key=lambda j: -near[row, j])[:LISTED]
        assert items[row][items[row] > 0].tolist() == expected
    assert not items[:2].any() and not items[-1].any()  # no item, and an item without words


def test_cosines_are_those_of_their_spaces_and_places_count_who_is_nearer(found):
    items, facts = found
    spaces = {
        "words": products(tfidf(BOTH)[0]),
        "phrases": products(tfidf(BOTH, pairs=True)[0]),
        "title words": products(tfidf(TITLES)[0]),
        "directions": products(vectors(BOTH, width=ROWS - 1)),
    }
    pairs = [(i, n, j) for i in range(ROWS) for n, j in enumerate(items[i]) if j]
    assert len(pairs) > 10
    for name, cosine in spaces.items():
        others = cosine.copy()
        others[:, :2] = -np.inf
        np.fill_diagonal(others, -np.inf)
        at = len(COSINES) + 2 * RANKED.index(name)
        for i, n, j in pairs:
            got = facts[i, n]
            assert got[COSINES.index(name)] == pytest.approx(cosine[i, j], abs=1e-5)
            if name != "directions":  # there nothing ties but by rounding
                expected = [np.log1p((others[a] > others[a, b]).sum()) / np.log(ROWS) for a, b in ((i, j), (j, i))]
                np.testing.assert_allclose(got[at : at + 2], expected, atol=1e-6)


def test_brands_paths_and_letters_have_cosines_of_their_own(found):
    items, facts = found

    def told(i, j, name):
        return facts[i, items[i].tolist().index(j), FACTS.index(name)]

    assert told(2, 3, "first words") == pytest.approx(1)  # "acme acmefoam" both
    assert told(3, 5, "categories") == pytest.approx(1) and 0 <= told(2, 3, "categories") < 1
    assert told(3, 5, "first words") == 0 and told(3, 5, "letters") > 0


def test_other_numbers_give_the_same_pairs(found, rng):
    new = np.concatenate([[0, 1], 2 + rng.permutation(ROWS - 2)])  # old id -> new id
    old = np.argsort(new)
    again = pair_facts([TITLES[i] for i in old], [CATEGORIES[i] for i in old], listed=LISTED)
    items, facts = found
    np.testing.assert_array_equal(np.where(items > 0, new[items], 0), again[0][new])
    np.testing.assert_allclose(facts[..., : len(COSINES)], again[1][new][..., : len(COSINES)], atol=1e-5)


def test_lists_longer_than_the_catalogue_end_in_nothing():
    items, facts = pair_facts(TITLES, CATEGORIES, listed=20)
    assert items.shape == (ROWS, 20) and not items[:, ROWS:].any() and not facts[:, ROWS:].any()


def test_order_of_words_and_beginnings_of_paths_matter():
    titles = ["", "", "red big box", "box big red", "red big box lid", "tin lid", "kite"]
    categories = ["", "", "Home > Boxes", "Home > Boxes", "Home > Boxes", "Garden > Boxes", "Air"]
    items, facts = pair_facts(titles, categories, listed=3)
    words = products(tfidf([f"{a} {b}" for a, b in zip(titles, categories, strict=True)])[0])
    assert words[2, 3] > words[2, 4] and items[2, :2].tolist() == [4, 3]  # the same words, but no phrase of them
    assert facts[2, 0, FACTS.index("categories")] == pytest.approx(1)
    there = items[5].tolist().index(4)
    assert facts[5, there, FACTS.index("categories")] == 0  # boxes of another path
