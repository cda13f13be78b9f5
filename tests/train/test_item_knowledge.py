"""What fills lists of related items and vectors of words: each relation by its definition, and what is refused."""

import numpy as np
import pytest

from data.errors import UserError
from data.item_texts import read_texts, tfidf, vectors
from data.sequence_file import SequenceFile
from data.strongest import strongest
from data.whole_histories import sequences_of
from data.word_pairs import FACTS, pair_facts
from tests.train.test_floors import ITEMS, LINES
from train.floors import Floors
from train.item_knowledge import PairFacts, RelatedItems, WordVectors
from train.linear_next import LinearNext

ROWS, LISTED = 8, 3


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sequences.txt").write_text(LINES)
    (tmp_path / "items.tsv").write_text(ITEMS)
    return tmp_path


def related(folder, **options):
    return RelatedItems(source=SequenceFile(path=str(folder), split="train"), **options)


def by_hand(values, *, count):
    """Of each row its highest positive entries, without its own and without ids that are no items."""
    lists = []
    for row, line in enumerate(np.asarray(values)):
        there = {j: line[j] for j in range(2, len(line)) if j != row and line[j] > 0}
        lists.append(dict(sorted(there.items(), key=lambda pair: -pair[1])[:count]))
    return lists


def test_lists_are_the_strongest_relations_but_an_item_s_own(rng, monkeypatch):
    monkeypatch.setattr("data.strongest.BLOCK", 4)
    values = rng.normal(size=(11, 11)) - 0.8  # not all rows have as many that are positive
    before = values.copy()
    ids, weights = strongest(lambda part: values[part], count=4, order=rng.permutation(11))
    np.testing.assert_array_equal(values, before)
    for row, expected in enumerate(by_hand(values, count=4)):
        listed = weights[row] > 0
        assert dict(zip(ids[row, listed], weights[row, listed], strict=True)) == pytest.approx(expected)
        assert not ids[row, ~listed].any() and not weights[row, ~listed].any()


def test_of_what_ties_at_the_end_of_a_list_the_popular_stay_whatever_their_number(rng):
    values = rng.integers(0, 3, (11, 11)).astype(np.float32)
    order = np.arange(11)[::-1]  # 10 is the most popular
    ids, weights = strongest(lambda part: values[part], count=3, order=order)
    for row, line in enumerate(values):
        there = sorted((-line[j], -j) for j in range(2, 11) if j != row and line[j] > 0)[:3]
        assert sorted(ids[row][weights[row] > 0].tolist()) == sorted(-j for _, j in there)
    other = np.concatenate([[0, 1], 2 + rng.permutation(9)])  # old id -> new id
    renumbered = np.empty_like(values)
    renumbered[np.ix_(other, other)] = values
    again, _ = strongest(lambda part: renumbered[part], count=3, order=other[order])
    np.testing.assert_array_equal(np.sort(again[other], axis=1), np.sort(np.where(ids > 0, other[ids], 0), axis=1))


@pytest.mark.parametrize("name", ["transitions", "words", "phrases", "linear"])
def test_each_relation_is_what_its_name_says(folder, name):
    start = related(folder, texts=str(folder))
    items, lengths = sequences_of(start.source)
    users, texts = np.repeat(np.arange(len(lengths)), lengths), read_texts(folder, rows=ROWS)
    words, phrases = (tfidf(texts, pairs=pairs)[0].toarray() for pairs in (False, True))
    values = {
        "transitions": Floors().transitions(items, users, rows=ROWS).toarray(),
        "words": words @ words.T,
        "phrases": phrases @ phrases.T,
        "linear": LinearNext().weights(items, users, rows=ROWS),
    }
    found = start.values({f"models/0/related/{name}/items": (ROWS, LISTED), "made": ()})
    assert found.keys() == {f"models/0/related/{name}/items", f"models/0/related/{name}/weights"}
    weights = found[f"models/0/related/{name}/weights"]
    expected = [[*line.values()] for line in by_hand(values[name], count=LISTED)]
    assert any(expected)
    for row, line in enumerate(expected):
        np.testing.assert_allclose(
            np.sort(weights[row])[::-1], [*line, *[0] * (LISTED - len(line))], rtol=1e-5, atol=1e-9
        )


def test_words_of_two_catalogues_span_one_space(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "sequences.txt").write_text("1 1 2 3\n2 2 3 1\n")
    (other / "items.tsv").write_text(
        "item_id\ttitle\tcategories\n1\tRed polish\tNails\n2\tSun\tSkin\n3\tBrush\tTools\n"
    )
    shapes = {"models/0/content/vectors": (5, 3), "content/vectors": (5, 3), "made": ()}
    found = WordVectors(path=str(other), space=str(folder)).values(shapes)
    expected = vectors(read_texts(other, rows=5), width=3, space=read_texts(folder, rows=ROWS))
    assert found.keys() == shapes.keys() - {"made"}
    for value in found.values():
        np.testing.assert_allclose(value, expected, atol=1e-6)


def test_facts_of_pairs_are_those_of_titles_and_categories(folder):
    found = PairFacts(path=str(folder)).values({"items": (ROWS, LISTED), "facts": (ROWS, LISTED, len(FACTS))})
    titles, categories = (read_texts(folder, rows=ROWS, columns=(name,)) for name in ("title", "categories"))
    items, facts = pair_facts(titles, categories, listed=LISTED)
    assert items.any() and any(titles) and any(categories)
    np.testing.assert_array_equal(found["items"], items)
    np.testing.assert_array_equal(found["facts"], facts)


def test_what_fits_no_model_is_refused(folder):
    lists = {"related/words/items": (ROWS, LISTED)}
    with pytest.raises(UserError, match="the model has no lists of them; use Mixture with relations"):
        related(folder).values({"related/words/weights": (ROWS, LISTED)})
    with pytest.raises(UserError, match=r"words are in items\.tsv; name its folder in `texts`"):
        related(folder).values(lists)
    with pytest.raises(UserError, match="no relation 'colours'; there are transitions, words"):
        related(folder).values({"related/colours/items": (ROWS, LISTED)})
    with pytest.raises(UserError, match="lists of 8 are longer than the catalogue of 6 items; lower `listed`"):
        related(folder).values({"related/transitions/items": (ROWS, 8)})
    with pytest.raises(UserError, match="the model takes no given vectors; use SASRecContent"):
        WordVectors(path=str(folder)).values(lists)
    with pytest.raises(UserError, match="the model has no lists with facts; use WordPairs"):
        PairFacts(path=str(folder)).values(lists)
    fewer = {"items": np.zeros((ROWS, LISTED), np.int32), "facts": np.zeros((ROWS, LISTED, 3))}
    with pytest.raises(UserError, match=r"gives facts of \(8, 3, 16\), the model has \(8, 3, 3\)"):
        PairFacts(path=str(folder)).apply({"stats": fewer, "params": {}})
    other = {"related/transitions/items": np.zeros((ROWS, LISTED)), "related/transitions/weights": np.zeros((ROWS, 1))}
    with pytest.raises(UserError, match=r"gives related/transitions/weights of \(8, 3\), the model has \(8, 1\)"):
        related(folder).apply({"stats": other, "params": {}})
