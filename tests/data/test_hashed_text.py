"""Hashed TF-IDF: a formula, and what must be near what."""

import numpy as np

from data.hashed_text import hashed_tfidf

CORPUS = ["the red cotton dress", "the blue cotton shirt", "the oak table", "the glass table lamp"] * 3


def test_a_text_has_one_vector_wherever_it_stands_and_of_length_one():
    together = hashed_tfidf(CORPUS, dim=64)
    alone = hashed_tfidf(CORPUS[2:3], dim=64, corpus=CORPUS)
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(hashed_tfidf(["", "a"], dim=8)[0], 0)


def test_two_words_weigh_by_how_rare_they_are_and_how_often_they_stand_there():
    words = hashed_tfidf(["cotton", "lamp"], dim=512, corpus=CORPUS)
    both = hashed_tfidf(["cotton lamp lamp"], dim=512, corpus=CORPUS)[0]
    weigh = np.linalg.lstsq(words.T, both, rcond=None)[0]

    def rarity(n):
        return np.log((1 + len(CORPUS)) / (1 + n))

    norms = [np.linalg.norm(_direction(w)) for w in ("cotton", "lamp")]
    expected = (1 + np.log(2)) * rarity(3) * norms[1] / (rarity(6) * norms[0])
    np.testing.assert_allclose(weigh[1] / weigh[0], expected, rtol=1e-4)


def _direction(word):
    from data.hashed_text import _direction as drawn

    return drawn(word, dim=512, seed=0)


def test_shared_words_make_texts_near_and_a_typo_stays_near_its_word():
    dress, shirt, table = hashed_tfidf(["red cotton dress", "blue cotton dress", "oak table"], dim=1024, corpus=CORPUS)
    assert dress @ shirt > 0.4 > abs(dress @ table) + 0.2
    right, wrong, other = hashed_tfidf(["fragrance", "fragarnce", "upholstery"], dim=1024, corpus=CORPUS)
    assert right @ wrong > 0.08 + abs(right @ other)
