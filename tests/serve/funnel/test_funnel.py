"""A page from end to end: scores are those of batch scoring, candidates those of the channels, each with a reason."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import UserError
from data.features import FIRST
from data.mall.serving import MallListings, MallRequests
from data.mall.sources import MallClicks
from data.manifest import read_json
from data.vectors import read
from serve.artifact import load
from serve.commands import score_parquet
from serve.features.arrow_store import build as store
from serve.funnel import Request, open_funnel
from serve.index.build import build, build_live
from tests.serve.funnel.conftest import MALL
from train.calibrate import read_calibration

REQUESTS = MallRequests(mall=MALL, split="test", history=50, most=12).make()
USERS = REQUESTS.to_pylist()
RULES = frozenset(("caps", "diversity", "auction"))
PLAIN = RULES | {"calibrate"}


def without(names, user):
    return {name: value for name, value in user.items() if name not in names}


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of the funnel's folder whose config differs."""

    def change(edit):
        shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
        config = read_json(folder / "funnel.json")
        edit(config)
        (tmp_path / "copy" / "funnel.json").write_text(json.dumps(config))
        return tmp_path / "copy"

    return change


def test_scores_are_those_of_encoded_rows_and_of_batch_scoring(funnel, folder, tmp_path):
    """Pages of the log, candidate by candidate: the tower on rows as trained on, and raw rows through `score`."""
    source = MallClicks(mall=MALL, split="test", history=20).make()
    rows = source.take(np.arange(len(source)))
    artifact = load(folder / "ranker")
    listings = MallListings(mall=MALL).make().to_pylist()
    raw, wanted, got = [], [], []
    for user in USERS:
        page = np.flatnonzero((rows["user"] == user["user"]) & (rows["time"] == user["time"]))
        assert len(page) > 1
        for at in page.tolist():
            asked = Request({**user, "position": rows["position"][at]}, candidates=[int(rows["item"][at])], skip=PLAIN)
            got.append(funnel.answer(asked).items[0].scores["rank"])
            listing = listings[rows["item"][at] - FIRST]
            age = np.float32(min((user["time"] - listing["arrival"]) / 86_400, 28.0))
            raw.append({**user, "position": int(rows["position"][at]), **listing, "item_age": age})
        wanted += artifact({name: rows[name][page] for name in artifact.inputs})["score"].tolist()
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert np.std(wanted) > 1e-4
    pq.write_table(pa.Table.from_pylist(raw), tmp_path / "raw.parquet")
    score_parquet(folder / "ranker", input=tmp_path / "raw.parquet", output=tmp_path / "scores.parquet", batch=64)
    np.testing.assert_allclose(got, pq.read_table(tmp_path / "scores.parquet")["score"].to_numpy(), atol=1e-6)


def test_a_page_of_many_candidates_is_the_page_of_each_alone(funnel):
    user, ids = USERS[0], list(range(FIRST, FIRST + 120))
    together = funnel.answer(Request(user, candidates=ids, k=200, skip=PLAIN))
    assert len(together.items) == 120
    alone = {id: funnel.answer(Request(user, candidates=[id], skip=PLAIN)).items[0].scores["rank"] for id in ids[::10]}
    for ranked in together.items:
        if ranked.id in alone:
            assert ranked.scores["rank"] == pytest.approx(alone[ranked.id], abs=1e-6)
    scores = [ranked.scores["rank"] for ranked in together.items]
    assert scores == sorted(scores, reverse=True)


def test_calibrated_scores_are_those_that_an_export_would_give(funnel, folder):
    page = funnel.answer(Request(USERS[1], candidates=range(FIRST, FIRST + 40), k=40, skip=RULES))
    path = folder / "calibration.json"
    _, fitted = read_calibration(path, step=read_json(path)["step"], workdir=folder)
    rank = np.array([ranked.scores["rank"] for ranked in page.items], np.float32)
    np.testing.assert_allclose(
        [ranked.scores["calibrate"] for ranked in page.items], np.asarray(fitted.apply(rank)), atol=1e-6
    )
    assert fitted.temperature != 1.0


def test_the_tower_channel_finds_the_nearest_to_the_query_of_the_same_checkpoint(funnel, folder, ran):
    workdir, _ = ran
    ids, vectors, _ = read(workdir / "items" / "vectors.parquet")
    tower = load(folder / "towers" / "two_tower")
    from serve.request import RequestEncoder

    encoder = RequestEncoder(tower.features, vocabularies=None)
    for user in USERS[:3]:
        fields = {f.name: user[f.name] for f in encoder.user.all}
        query = tower(encoder.encode_user(fields)[0])["vector"][0]
        order = np.argsort(-(vectors @ query), kind="stable")
        found = funnel.retrieve(Request(user))
        ours = {r.id: r.sources["two_tower"] for r in found if "two_tower" in r.sources}
        assert len(ours) > 20
        assert all(id == ids[order[source.rank - 1]] for id, source in ours.items())
        top = ours[int(ids[order[0]])]
        assert (top.rank, top.score) == (1, pytest.approx(float(vectors[order[0]] @ query), abs=1e-5))


def test_every_candidate_is_on_the_page_or_has_a_reason(funnel):
    for user in USERS:
        found = {ranked.id: ranked for ranked in funnel.retrieve(Request(user))}
        answer = funnel.answer(Request(user, explain=True, k=5))
        ids = [ranked.id for ranked in (*answer.items, *answer.dropped)]
        assert len(ids) == len(set(ids))
        assert set(found) <= set(ids)
        assert all(ranked.why is None for ranked in answer.items)
        for ranked in answer.dropped:
            assert ranked.why.split(":")[0] in ("retrieve", "rank", "decide")
            beyond = ranked.why == "retrieve: beyond the limit of 60 candidates"
            assert beyond == (ranked.id not in found)
        for ranked in answer.items:
            assert ranked.sources == found[ranked.id].sources
            assert {"retrieve", "rank", "calibrate", "ecpm", "price"} == set(ranked.scores)
            assert ranked.scores["price"] * (1 + 1e-12) >= 0.01
        assert funnel.answer(Request(user)).dropped == []
        assert {"retrieve", "features", "rank", "calibrate", "decide", "total"} == set(answer.seconds)
    assert {"funnel", "ranker", "features", "two_tower/index", "looks/vectors"} <= set(answer.versions)


def test_rules_hold_on_pages(funnel):
    sellers = dict(zip(*(MallListings(mall=MALL).make()[n].to_pylist() for n in ("item", "seller")), strict=True))
    for user in USERS:
        capped = funnel.answer(Request(user, k=20, skip=frozenset(("auction",))))
        counts = np.unique([sellers[ranked.id] for ranked in capped.items], return_counts=True)[1]
        assert counts.max() <= 3
        assert "price" not in capped.items[0].scores
        sold = funnel.answer(Request(user, k=5, skip=frozenset(("caps", "diversity"))))
        worth = [ranked.scores["ecpm"] for ranked in sold.items]
        assert worth == sorted(worth, reverse=True)


def test_stages_are_skipped_by_name(funnel):
    user = USERS[0]
    only = funnel.retrieve(Request(user, skip=frozenset(("two_tower", "looks"))))
    assert {name for ranked in only for name in ranked.sources} == {"popular"}
    unranked = funnel.answer(Request(user, k=60, skip=RULES | {"rank"}))
    assert [r.id for r in unranked.items] == [r.id for r in funnel.retrieve(Request(user))]
    assert "rank" not in unranked.items[0].scores
    with pytest.raises(UserError, match="skip the auction too"):
        funnel.answer(Request(user, skip=frozenset(("rank",))))
    with pytest.raises(
        UserError, match=r"skip names 'diversty', which this funnel does not have; did you mean 'diversity'\?"
    ):
        funnel.answer(Request(user, skip=frozenset(("diversty",))))


def test_filters_hold_in_every_channel_and_for_given_candidates(funnel):
    arrival = dict(zip(*(MallListings(mall=MALL).make()[n].to_pylist() for n in ("item", "arrival")), strict=True))
    category = dict(zip(*(MallListings(mall=MALL).make()[n].to_pylist() for n in ("item", "category")), strict=True))
    one = category[funnel.retrieve(Request(USERS[0]))[0].id]
    for user in USERS:
        found = funnel.retrieve(Request(user, where={"arrival": {"max": user["time"]}}))
        assert {name for ranked in found for name in ranked.sources} >= {"two_tower", "popular"}
        assert all(arrival[ranked.id] <= user["time"] for ranked in found)
        assert {category[r.id] for r in funnel.retrieve(Request(user, where={"category": one}))} == {one}
    given = funnel.answer(Request(USERS[0], candidates=range(FIRST, FIRST + 30), where={"category": one}, explain=True))
    assert all(category[r.id] == one for r in given.items)
    out = [r for r in given.dropped if r.why == "retrieve: it does not meet the filter"]
    assert len(out) == sum(category[id] != one for id in range(FIRST, FIRST + 30)) > 0
    nothing = funnel.answer(Request(USERS[0], where={"category": 10_000}, explain=True))
    assert nothing.items == nothing.dropped == []
    with pytest.raises(UserError, match="no attribute 'colour'"):
        funnel.answer(Request(USERS[0], where={"colour": "red"}))


def test_it_answers_alike_every_time_and_in_threads(funnel):
    def page(user):
        answer = funnel.answer(Request(user, explain=True))
        return [answer.items, answer.dropped]

    serial = [page(user) for user in USERS]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(page, USERS * 3)) == serial * 3


def test_what_a_user_may_say_is_checked(funnel):
    user = USERS[0]
    for asked, message in (
        (Request({**user, "usr": 3}), r"a field 'usr' that no part of the funnel reads; did you mean 'user'\?"),
        (Request(without(["segment"], user)), "the user lacks the field 'segment'; a value that is not known is null"),
        (Request({**user, "user": "x"}), "user"),
        (Request({**user, "user": 10_000_000}), r"user.user: id outside 0\.\."),
        (Request({**user, "time": None}), "needs the moment of the request, in seconds"),
        (Request({**user, "history": [1, "a"]}), "user.history does not hold values of one type"),
        (Request(user, k=0), "k is 0"),
        (Request(user, candidates=[3, 3]), "1 of the candidates stand twice"),
        (Request(user, candidates=["a"]), "ids are integers, not 'a'"),
        (Request(user, vector=[1.0, 2.0]), r"queries have shape \(1, 2\)"),
        (Request(user, vector=[float("nan")] * 32), "query 0 is not finite"),
        (Request(user, bids={id: float("nan") for id in range(FIRST, FIRST + 300)}), "the request bids nan"),
        (Request(user, bids=dict.fromkeys(range(FIRST, FIRST + 300), -1.0)), r"the request bids -1\.0"),
    ):
        with pytest.raises(UserError, match=message):
            funnel.answer(asked)


def test_what_is_not_known_is_allowed(funnel):
    """A new user without history: missing categories, no seeds."""
    stranger = {**USERS[0], "user": None, "segment": None, "query": None, "history": [], "history_category": []}
    answer = funnel.answer(Request(stranger))
    assert len(answer.items) == 10
    assert not any("looks" in ranked.sources for ranked in answer.items)
    assert funnel.answer(Request(USERS[0], candidates=[])).items == []


def test_items_without_features_or_with_wrong_ones_are_dropped_by_name(changed, funnel, tmp_path):
    table = MallListings(mall=MALL).make()
    price, bid = table["price"].to_pylist(), table["bid"].to_pylist()
    price[5], bid[6], bid[7] = None, float("nan"), -2.0
    columns = {"price": pa.array(price), "bid": pa.array(bid)}
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    folder = changed(lambda config: None)
    shutil.rmtree(folder / "features")
    store(table.slice(0, 250), id="item", output=folder / "features")
    answer = open_funnel(folder).answer(
        Request(USERS[0], candidates=[FIRST + n for n in (5, 6, 7, 8, 260)], explain=True)
    )
    why = {ranked.id - FIRST: ranked.why for ranked in answer.dropped}
    assert why[5] == "rank: its feature 'price' is wrong: null or not finite"
    assert why[6] == "decide: its bid is not finite"
    assert why[7] == "decide: its bid is negative"
    assert why[260] == "rank: it has no features"


def test_bids_of_the_request_and_the_reserve(funnel):
    id = funnel.answer(Request(USERS[0], k=60, skip=RULES)).items[0].id
    first = funnel.answer(Request(USERS[0], bids={id: 1e6}))
    assert first.items[0].id == id
    assert first.items[0].scores["price"] < 1e6
    low = funnel.answer(Request(USERS[0], bids={id: 0.001}, explain=True))
    assert "decide: its bid is below the reserve of 0.01" in [r.why for r in low.dropped if r.id == id]


def test_a_live_index_and_a_new_item(changed, ran):
    workdir, _ = ran
    ids, vectors, model = read(workdir / "items" / "vectors.parquet")
    folder = changed(lambda config: config["channels"]["two_tower"].update(index="live"))
    with build_live(vectors, ids=ids, model=model, engine="exact", merge_by_itself=False) as live:
        live.save(folder / "live")
    funnel = open_funnel(folder)
    before = funnel.retrieve(Request(USERS[0]))
    assert [r for r in before if "two_tower" in r.sources]
    index = funnel.channels["two_tower"].index
    assert type(index).__name__ == "LiveIndex"


def test_parts_that_do_not_belong_together_are_refused(changed, folder, ran, tmp_path):
    workdir, _ = ran
    ids, vectors, model = read(workdir / "items" / "vectors.parquet")

    def refused(edit, message):
        with pytest.raises(UserError, match=message):
            open_funnel(changed(edit))

    copy = changed(lambda config: None)
    build(vectors, ids=ids, model="another").save(copy / "strange")
    refused(
        lambda c: c["channels"]["two_tower"].update(index="strange"),
        f"vectors of model 'another', but .* gives queries of '{model}'",
    )
    refused(
        lambda c: c["channels"]["two_tower"].update(tower="ranker"), "gives no query vectors; python -m serve export"
    )
    refused(
        lambda c: c.update(ranker="towers/two_tower"), "has no program for requests; export the ranker with --request"
    )
    refused(lambda c: c.update(score="logit"), "gives score, and no number 'logit' to order by")
    refused(lambda c: c.update(defaults={"possition": 2}), "a default is set for 'possition', which no part reads")
    refused(lambda c: c.update(derived=[]), "has no column 'item_age', which the funnel needs")
    refused(lambda c: c["derived"][0].update(name="age"), "derives 'age', which is no item feature of the ranker")
    refused(lambda c: c.update(calibration="ranker/signature.json"), "is no calibration")
    refused(lambda c: c.update(colour="red"), "FunnelConfig has no field 'colour' in this version")
    refused(lambda c: c["decide"].update({"$type": "os:system"}), "names 'os:system', which this version does not have")
    with pytest.raises(UserError, match=r"is not a funnel: it has no funnel\.json"):
        open_funnel(tmp_path)


def test_it_opens_and_answers_without_model_code(folder, root, tmp_path):
    user = replace(Request(USERS[0]), explain=True)
    code = f"""
import sys
from serve.funnel import Request, open_funnel
answer = open_funnel(__import__("pathlib").Path({str(folder)!r})).answer(Request({user.user!r}))
print([item.id for item in answer.items])
print([m for m in sys.modules if m.split(".")[0] in ("modules", "train", "configs", "flax", "redis")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    shown = [item.id for item in open_funnel(folder).answer(user).items]
    assert shown and done.stdout.splitlines() == [str(shown), "[]"]
