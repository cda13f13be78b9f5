"""Floors: counts and words of training items alone, ranked by the evaluator of the models."""

import numpy as np
import pytest

from data.errors import UserError
from data.item_texts import tfidf, vectors
from data.sequence_file import SequenceFile
from data.whole_histories import sequences_of
from train.evaluators import RankItems
from train.floors import Counted, Floors, RankFloors, count
from train.metrics.ranking import NDCG, HitRate

ITEMS = """item_id\ttitle\tcategories
1\tRed nail polish\tBeauty > Nails
2\tBlue nail polish\tBeauty > Nails
3\tSun cream\tBeauty > Skin
4\tSun cream for children\tBeauty > Skin
6\tBrush\tTools
"""
# Of each user the last is the validation target, the one before it the training target; item 5 has no line.
LINES = "1 1 2 3 4\n2 2 3 1 2\n3 3 4 5 3\n4 1 2 3 6\n5 6 5 4 1\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sequences.txt").write_text(LINES)
    (tmp_path / "items.tsv").write_text(ITEMS)
    return str(tmp_path)


def ranked(folder, *, masked=True, **floors):
    train, valid = (SequenceFile(path=folder, split=split) for split in ("train", "valid"))
    return RankFloors(
        source=valid,
        train=train,
        texts=folder,
        history="history" if masked else None,
        metrics=(HitRate(ks=(1, 2)), NDCG(ks=(2,))),
        floors=Floors(**floors),
    )


def by_hand(sequences, *, rows, window, discount, backward):
    counts, popular = np.zeros((rows, rows)), np.zeros(rows)
    for items in sequences:
        for i, a in enumerate(items):
            popular[a] += 1
            for j in range(i + 1, min(i + window, len(items) - 1) + 1):
                if items[j] != a:
                    counts[a, items[j]] += 1 / (j - i)
                    counts[items[j], a] += backward / (j - i)
    scale = np.maximum(popular, 1) ** -discount
    return counts * scale[:, None] * scale[None], popular


def training(folder):
    lines = [[int(w) for w in line.split()][1:] for line in LINES.splitlines()]
    return [[item + 1 for item in items[:-1]] for items in lines]


@pytest.mark.parametrize(("window", "discount", "backward"), [(1, 0.0, 0.0), (2, 0.5, 1.0), (5, 0.3, 0.4)])
def test_transitions_and_popularity_are_those_counted_by_hand(folder, window, discount, backward):
    options = {"window": window, "discount": discount, "backward": backward}
    known = ranked(folder, **options).counted()
    counts, popular = by_hand(training(folder), rows=8, **options)
    np.testing.assert_allclose(known.transitions.toarray(), counts, rtol=1e-6)
    np.testing.assert_array_equal(known.popularity, popular)


def test_scores_decay_with_age_and_read_the_newest_alone(folder):
    known = ranked(folder, newest=2, text_newest=1, decay=0.5, text_weight=0.25).counted()
    history, length = np.array([[2, 3, 4, 0], [5, 0, 0, 0]]), np.array([3, 1])
    dense, words = known.transitions.toarray(), known.words.toarray()
    knn = np.stack([dense[4] + 0.5 * dense[3], dense[5]])
    cosine = np.stack([words @ words[4], words @ words[5]])
    popular = np.stack([known.popularity, known.popularity])
    floors = {"popularity": popular, "seqknn": knn, "tfidf": cosine, "hybrid": knn + 0.25 * cosine}
    for name, expected in floors.items():
        np.testing.assert_allclose(
            known.scores(name, history=history, length=length), expected, rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_the_validation_target_is_counted_nowhere(folder, tmp_path):
    before = ranked(folder).counted()
    (tmp_path / "sequences.txt").write_text(LINES.replace("1 2 3 4\n", "1 2 3 5\n").replace("5 4 1\n", "5 4 2\n"))
    after = ranked(folder).counted()
    np.testing.assert_array_equal(before.popularity, after.popularity)
    np.testing.assert_array_equal(before.transitions.toarray(), after.transitions.toarray())


def test_floors_stand_beside_each_other_by_the_models_evaluator(folder):
    evaluator = ranked(folder)
    found = evaluator.run(lambda batch: {}).values
    known = evaluator.counted()
    plain = RankItems(source=evaluator.source, history="history", metrics=evaluator.metrics)

    def hybrid(batch):
        return {"scores": known.scores("hybrid", history=batch["history"], length=batch["history/length"])}

    for name, value in plain.run(hybrid).values.items():
        assert found[f"hybrid/{name}"] == value
    assert {name.split("/")[0] for name in found} == {"popularity", "seqknn", "tfidf", "hybrid"}
    assert "targets_in_history" not in "".join(ranked(folder, masked=False).run(lambda batch: {}).values)


def test_other_numbers_of_the_items_give_the_same_figures(folder, tmp_path):
    """Equal scores count against the target, so that even ties do not depend on numbers."""
    found = ranked(folder).run(lambda batch: {}).values
    new = {1: 4, 2: 6, 3: 1, 4: 5, 5: 3, 6: 2}
    other = tmp_path / "other"
    other.mkdir()
    lines = [line.split() for line in LINES.splitlines()]
    (other / "sequences.txt").write_text(
        "".join(f"{user} {' '.join(str(new[int(i)]) for i in items)}\n" for user, *items in lines)
    )
    head, *rows = ITEMS.splitlines()
    told = [row.split("\t", 1) for row in rows]
    (other / "items.tsv").write_text("\n".join([head, *(f"{new[int(item)]}\t{rest}" for item, rest in told)]) + "\n")
    again = ranked(str(other)).run(lambda batch: {}).values
    assert again == pytest.approx(found, abs=1e-12)


def test_items_without_a_line_have_no_words_but_are_ranked(folder):
    known = ranked(folder).counted()
    assert known.texts[6] == "" and not known.words[[6]].toarray().any()
    assert known.texts[7] == "Brush Tools"
    scores = known.scores("seqknn", history=np.array([[5]]), length=np.array([1]))
    assert scores[0, 6] > 0


def test_without_a_table_of_items_the_fix_is_named(folder, tmp_path):
    (tmp_path / "items.tsv").unlink()
    with pytest.raises(UserError, match=r"no items.tsv"):
        ranked(folder).run(lambda batch: {})


def test_word_vectors_keep_cosines_and_span_one_space():
    texts = ["", "", "red nail polish", "blue nail polish", "sun cream", "sun cream for children", ""]
    whole = tfidf(texts)[0].toarray()
    found = vectors(texts, width=4)
    np.testing.assert_allclose(found @ found.T, whole @ whole.T, atol=1e-5)
    other = vectors(["nail polish cream", "children"], width=4, space=texts)
    words, columns = tfidf(texts)
    new = tfidf(["nail polish cream", "children"], columns=columns)[0]
    cosine = (new @ words.T).toarray()
    np.testing.assert_allclose(np.argsort(-(other @ found.T)[:, 2:6], axis=1)[0, :1], np.argmax(cosine[:1, 2:6]))


def test_pairs_of_words_are_words_too():
    texts = ["sun cream red", "cream sun red"]
    plain, both = (tfidf([*texts, "other"], pairs=pairs) for pairs in (False, True))
    assert set(both[1]) - set(plain[1]) == {"sun cream", "cream red", "cream sun", "sun red"}
    assert float((plain[0][[0]] @ plain[0][[1]].T).toarray()[0, 0]) == pytest.approx(1)
    assert float((both[0][[0]] @ both[0][[1]].T).toarray()[0, 0]) < 0.9


def test_histories_of_rows_end_with_their_targets(folder):
    items, lengths = sequences_of(SequenceFile(path=folder, split="train", max_len=1))
    assert [part.tolist() for part in np.split(items, np.cumsum(lengths)[:-1])] == training(folder)


def test_counts_need_no_window_beyond_the_longest_history():
    known = count(Floors(window=50), items=np.array([2, 3]), lengths=np.array([2]), rows=4, texts=None)
    assert isinstance(known, Counted) and known.names == ("popularity", "seqknn")
    assert known.transitions.toarray()[2, 3] > 0
