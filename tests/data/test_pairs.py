"""Pairs of one basket against loops over the baskets; sessions, filters, and what stands in for what."""

from collections import Counter
from itertools import combinations

import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Group, Numeric, Time
from data.pairs import PairsTogether, closest, cut_by_time, together
from data.sources import InMemory, SourceConfig
from data.transforms.stand_in import StandIn

ROWS = 9
FEATURES = Features(all=(Categorical(name="item", rows=ROWS), Group(name="basket"), Time(name="time")))
# (basket, time, item); item 1 is unknown, item 2 stands twice in basket 0, basket 3 is a dealer's
LOG = [
    *[(0, 5, 3), (0, 4, 2), (0, 6, 2), (0, 7, 1)],
    *[(1, 1, 2), (1, 2, 3), (1, 3, 4)],
    *[(2, 1, 5)],
    *[(3, t, 2 + t) for t in range(6)],
    *[(4, 1, 4), (4, 2, 3)],
]


@chz.chz
class Log(SourceConfig):
    def make(self):
        basket, time, item = np.array(LOG).T
        return InMemory({"item": item, "basket": basket, "time": time}, features=FEATURES)


def pairs_of(config):
    columns = config.make().columns
    return list(zip(columns["given"].tolist(), columns["item"].tolist(), strict=True))


def by_hand(*, largest=5):
    found = []
    for basket in sorted({b for b, _, _ in LOG}):
        taken = list(dict.fromkeys(i for _, i in sorted((t, i) for b, t, i in LOG if b == basket and i >= 2)))
        if len(taken) <= largest:
            found += combinations(taken, 2)
    return found


CONFIG = PairsTogether(log=Log(), largest=5, direction="forward")


def test_pairs_are_those_of_loops_over_baskets():
    assert Counter(pairs_of(CONFIG)) == Counter(by_hand())
    both = pairs_of(chz.replace(CONFIG, direction="both"))
    assert Counter(both) == Counter(by_hand() + [(b, a) for a, b in by_hand()])


def test_both_sides_share_one_vocabulary():
    given, item = CONFIG.make().features
    assert given.table == item.table and given.size == item.size == ROWS and (given.role, item.role) == ("user", "item")


def test_rare_pairs_and_pairs_by_chance_are_left_out():
    seen = Counter(frozenset(p) for p in by_hand())
    often = [p for p in by_hand() if seen[frozenset(p)] >= 2]
    assert Counter(pairs_of(chz.replace(CONFIG, least=2))) == Counter(often) and often
    baskets = {b: {i for bb, _, i in LOG if bb == b and i >= 2} for b, _, _ in LOG}
    count = Counter(i for taken in baskets.values() for i in taken)
    pmi = {p: np.log(n * len(baskets) / np.prod([count[i] for i in p])) for p, n in seen.items()}
    limit = sorted(pmi.values())[1]
    kept = [p for p in by_hand() if pmi[frozenset(p)] >= limit]
    assert Counter(pairs_of(chz.replace(CONFIG, pmi=limit))) == Counter(kept) and len(kept) < len(by_hand())
    with pytest.raises(UserError, match="no pair that counts"):
        chz.replace(CONFIG, least=50).make()


def test_a_session_ends_where_time_passes():
    basket = cut_by_time(np.array([7, 7, 7, 8, 8]), time=np.array([0, 10, 41, 42, 43]), gap=30)
    assert (basket == np.array([1, 1, 2, 3, 3])).all()
    assert pairs_of(chz.replace(CONFIG, gap=1.0)) == pairs_of(CONFIG)
    with pytest.raises(UserError, match="no pair that counts"):
        chz.replace(CONFIG, gap=0.5).make()


def test_no_basket_gives_no_pair():
    assert together(np.array([], int), basket=np.array([], int), largest=3).shape == (0, 2)


@pytest.fixture
def vectors(tmp_path, rng):
    path = tmp_path / "vectors.npz"
    x = rng.normal(size=(ROWS - 2, 4))
    x[3] = 0  # item 5 has no vector
    np.savez(path, id=np.arange(2, ROWS), vector=x)
    return str(path), x


def nearest(x, item, among):
    cosine = {j: x[item - 2] @ x[j - 2] / np.linalg.norm(x[item - 2]) / np.linalg.norm(x[j - 2]) for j in among}
    return max(cosine, key=cosine.__getitem__)


def test_a_pair_also_holds_for_what_is_like_the_given_item(vectors):
    path, x = vectors
    others = {i: nearest(x, i, set(range(2, ROWS)) - {i, 5}) for i in range(2, ROWS) if i != 5}
    more = [(others[a], b) for a, b in by_hand() if a in others and others[a] != b]
    assert Counter(pairs_of(chz.replace(CONFIG, similar=path))) == Counter(by_hand() + more)


def test_an_unseen_item_asks_in_the_name_of_the_most_alike_seen_one(vectors):
    path, x = vectors
    seen = {a for a, _ in by_hand()}
    source = InMemory({"given": np.arange(ROWS)}, features=Features(all=(Categorical(name="given", rows=ROWS),)))
    bound = StandIn(seen=CONFIG, vectors=path).bind(source)
    got = bound({"given": np.arange(ROWS, dtype=np.int32)}, rng=None)["given"]
    for item in range(2, ROWS):
        expected = item if item in seen or item == 5 else nearest(x, item, seen - {5})
        assert got[item] == expected
    assert got[:2].tolist() == [0, 1] and got.dtype == np.int32


def test_closest_without_a_vector_is_none():
    assert closest(np.zeros((4, 2)), count=2).tolist() == [[0, 0]] * 4


def test_pairs_of_numbers_are_refused():
    @chz.chz
    class Odd(SourceConfig):
        def make(self):
            return InMemory({"item": np.zeros(2)}, features=Features(all=(Numeric(name="item"),)))

    with pytest.raises(UserError, match="numeric"):
        PairsTogether(log=Odd()).make()
