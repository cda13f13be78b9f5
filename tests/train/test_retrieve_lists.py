"""Evaluators of lists: equal to `Retrieve` where the list is that of exact search, places counted by hand, tails."""

import chz
import numpy as np
import pytest

from data.errors import UserError
from data.features import Categorical, Features, Label, Sequence
from data.mall.build import build
from data.mall.config import Mall
from data.mall.interests import IdList, MallInterests
from data.sources import InMemory, SourceConfig
from data.transforms.popularity import Popularity
from train.evaluators import Retrieve
from train.metrics.lists import Diversity, ExactRecall, InterestCoverage
from train.metrics.ranking import Coverage, HitRate, Recall
from train.retrieve_lists import KnnEmbed, Nearest, RankLists, RetrieveLists, places, rank_lists

USERS, ITEMS, DIM = 30, 25, 4
VECTORS = np.random.default_rng(3)
ITEM_VECTORS, USER_VECTORS = VECTORS.normal(size=(ITEMS + 2, DIM)), VECTORS.normal(size=(USERS, DIM))


@chz.chz
class People(SourceConfig):
    def make(self) -> InMemory:
        rng = np.random.default_rng(1)
        drawn = np.stack([rng.choice(ITEMS, 7, replace=False) for _ in range(USERS)]) + 2
        item = Categorical(name="item", rows=ITEMS + 2)
        features = Features(
            all=(
                Categorical(name="user", rows=USERS, role="user"),
                Sequence(name="history", of=item, length=4),
                IdList(name="taken", length=3),
            )
        )
        columns = {
            "user": np.arange(USERS),
            "history": drawn[:, :4],
            "history/length": np.full(USERS, 4),
            "taken": drawn[:, 4:],
            "taken/length": rng.integers(1, 4, USERS),
        }
        return InMemory(columns, features=features)


@chz.chz
class Shop(SourceConfig):
    missing: int = 0

    def make(self) -> InMemory:
        ids = np.arange(2, ITEMS + 2 - self.missing)
        features = Features(
            all=(Categorical(name="item", rows=ITEMS + 2, role="item"), Label(name="category", type="class"))
        )
        return InMemory({"item": ids, "category": ids % 5}, features=features)


def predict(batch):
    return {"query": USER_VECTORS[batch["user"]]} if "user" in batch else {"item": ITEM_VECTORS[batch["item"]]}


OPTIONS = {"source": People(), "target": "taken", "history": "history", "batch_size": 8}
METRICS = (Recall(ks=(1, 5)), HitRate(ks=(5,)), Coverage(ks=(5,)))
OF_LISTS = (ExactRecall(ks=(5,)), Diversity(ks=(5,)), InterestCoverage(ks=(5,)))


@pytest.mark.parametrize("missing", [0, 6])
def test_exact_lists_measure_as_exact_ranks_do(missing):
    """Targets that the history hides stay candidates of ranks, not of lists: the source has none."""
    corpus = Shop(missing=missing)
    ranks = Retrieve(**OPTIONS, corpus=corpus, metrics=METRICS[:2]).run(predict)
    lists = RetrieveLists(**OPTIONS, corpus=corpus, metrics=(*METRICS, *OF_LISTS), groups="category").run(predict)
    for name in ("recall@1", "recall@5", "hit_rate@5", "targets_missing"):
        assert lists.values[name] == pytest.approx(ranks.values[name]), name
    assert lists.values["exact_recall@5"] == 1 and lists.values["seconds_per_query"] > 0
    assert (lists.values["targets_missing"] > 0) == bool(missing) and lists.rows == USERS


def test_a_mixture_is_measured_beside_the_exact_list():
    options = {**OPTIONS, "corpus": Shop(), "metrics": OF_LISTS, "groups": "category"}
    way = KnnEmbed(clusters=6, neighbours=3)
    found = RetrieveLists(**options, way=way).run(predict).values
    assert 0 < found["exact_recall@5"] < 1
    rows = People().make().columns
    own = rows["history"] - 2
    items = ITEM_VECTORS[2:]
    top = way.open(items)(USER_VECTORS, own=own, k=5)
    exact = Nearest().open(items)(USER_VECTORS, own=own, k=5)
    assert found["exact_recall@5"] == pytest.approx(
        np.mean([np.isin(e, t).mean() for e, t in zip(exact, top, strict=True)])
    )
    met = []
    for row in range(USERS):
        wanted = set(rows["taken"][row, : rows["taken/length"][row]] % 5)
        met.append(len(wanted & set((top[row] + 2) % 5)) / len(wanted))
        assert not set(top[row]) & set(own[row])
    assert found["interest_coverage@5"] == pytest.approx(np.mean(met))
    with pytest.raises(UserError, match="name that array in `history`"):
        RetrieveLists(**{**options, "history": None}, way=way).run(predict)
    with pytest.raises(ValueError, match="name one, without reverse"):
        RetrieveLists(**{**options, "corpus": None})


@chz.chz
class Noted(Nearest):
    asked: list = chz.field(default_factory=list)

    def open(self, items):
        search = Nearest().open(items)

        def noted(queries, *, own, k):
            self.asked.append((queries, own))
            return search(queries, own=own, k=k)

        return noted


def test_as_requests_come_each_query_is_searched_by_itself():
    way = Noted()
    RetrieveLists(**OPTIONS, corpus=Shop(), metrics=METRICS[:1], way=way, one_by_one=3).run(predict)
    (whole, all_own), *alone = way.asked
    assert len(whole) == USERS and len(alone) == 3
    for row, (query, own) in enumerate(alone):
        np.testing.assert_array_equal(query, whole[row : row + 1])
        np.testing.assert_array_equal(own, all_own[row : row + 1])


def test_lists_of_a_model_are_ranked_by_place():
    top = np.array([[5, 9, 3, -1], [4, 2, 7, 8]])
    wanted = np.array([[3, 5, 3], [11, -1, 8]])
    assert places(top, wanted=wanted, otherwise=31).tolist() == [[3, 1, 0], [31, 0, 4]]
    lists = {u: np.roll(np.arange(2, 12), u) for u in range(USERS)}
    evaluator = RankLists(
        source=People(),
        target="taken",
        catalogue=ITEMS,
        metrics=(Recall(ks=(10,)), InterestCoverage(ks=(10,))),
        groups=Shop(),
        batch_size=16,
    )
    found = evaluator.run(lambda batch: {"item": np.stack([lists[u] for u in batch["user"]])}).values
    rows = People().make().columns
    taken = [rows["taken"][u, : rows["taken/length"][u]] for u in range(USERS)]
    assert found["recall@10"] == pytest.approx(np.mean([np.isin(t, lists[0]).mean() for t in taken]))
    assert found["interest_coverage@10"] == 1  # ten in a row are of every category
    twice = np.array([[5, 6, 5]])
    with pytest.raises(UserError, match="one item twice"):
        rank_lists(evaluator, {}, twice, wanted=twice, catalogue=9, more=lambda rows: {})


def test_popularity_is_the_share_that_is_less_known():
    @chz.chz
    class Seen(SourceConfig):
        def make(self) -> InMemory:
            item = np.repeat([2, 3, 4, 5], [5, 1, 3, 1])
            return InMemory({"item": item}, features=Features(all=(Categorical(name="item", rows=8),)))

    bound = Popularity(seen=Seen()).bind(Seen().make())
    rows = bound({"item": np.array([2, 3, 4, 5, 6, 7])}, rng=None)
    np.testing.assert_allclose(rows["item_popularity"], [5 / 6, 2 / 6, 4 / 6, 2 / 6, 0, 0])


def test_interests_of_the_mall_are_new_and_later():
    mall = Mall(size="tiny")
    rows, log, now = MallInterests(mall=mall, most=3).make(), build(mall).log, mall.period("train")[1]
    assert len(rows) > 20
    for at in range(0, len(rows), 10):
        user = rows.columns["user_group"][at]
        mine, shown = log.actions["user"] == user, log.impressions["user"] == user
        past = set(log.actions["item"][mine & (log.actions["time"] < now)].tolist())
        later = shown & log.impressions["click"] & (log.impressions["time"] >= now)
        wanted = list(dict.fromkeys(i for i in log.impressions["item"][later].tolist() if i not in past))[:3]
        one = rows[at]
        assert (one["taken"][: one["taken/length"]] - 2).tolist() == wanted and past
        assert set((one["history"][: one["history/length"]] - 2).tolist()) <= past
