"""The funnel behind the server: the same page, its reasons, and what it refuses."""

import shutil

import pytest

from data.vectors import read
from serve.artifact import load
from serve.funnel import Request
from serve.index.build import build_live
from serve.request import RequestEncoder
from tests.serve.funnel.test_funnel import USERS
from tests.serve.up.conftest import ask, serving


@pytest.fixture(scope="module")
def app(folder):
    with serving(folder) as app:
        yield app


def post(app, path, body):
    return ask(app, "POST", path, json=body)


def test_the_page_is_the_funnel_s(app, funnel):
    user = USERS[0]
    answer = post(app, "/v1/rank", {"user": user, "k": 5, "explain": True})
    assert answer.status_code == 200, answer.text
    page, wanted = answer.json(), funnel.answer(Request(user, k=5, explain=True))
    assert [item["id"] for item in page["items"]] == [item.id for item in wanted.items]
    for item, same in zip(page["items"], wanted.items, strict=True):
        assert item["scores"] == pytest.approx(same.scores) and item["sources"].keys() == same.sources.keys()
    assert [(d["id"], d["why"]) for d in page["dropped"]] == [(d.id, d.why) for d in wanted.dropped]
    assert page["versions"] == funnel.versions and page["seconds"]["total"] > 0
    assert "dropped" not in post(app, "/v1/rank", {"user": user}).json()


def test_candidates_skips_bids_and_filters_reach_it(app, funnel):
    user = USERS[0]
    ids = [item["id"] for item in post(app, "/v1/rank", {"user": user, "k": 6}).json()["items"]]
    given = post(app, "/v1/rank", {"user": user, "candidates": ids, "k": 6, "skip": ["diversity", "caps"]}).json()
    wanted = funnel.answer(Request(user, candidates=ids, k=6, skip=frozenset(("diversity", "caps"))))
    assert [item["id"] for item in given["items"]] == [item.id for item in wanted.items]
    bids = [[id, 2.5] for id in ids]
    assert post(app, "/v1/rank", {"user": user, "candidates": ids, "bids": bids}).status_code == 200


def test_candidates_and_their_sources(app, funnel):
    user = USERS[0]
    found = post(app, "/v1/retrieve", {"user": user, "k": 7}).json()
    wanted = funnel.retrieve(Request(user))[:7]
    assert [item["id"] for item in found["items"]] == [item.id for item in wanted]
    assert found["items"][0]["sources"].keys() == wanted[0].sources.keys()


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"skip": ["diversty"]}, 400, "did you mean 'diversity'?"),
        ({"skip": [1]}, 400, "skip is an array of names"),
        ({"k": 0}, 400, "k is 0"),
        ({"k": 100_000}, 400, "k is 100000"),
        ({"candidates": []}, 400, "candidates is empty"),
        ({"candidates": [1, "a"]}, 400, "all of one kind"),
        ({"candidates": [[1]]}, 400, "all of one kind"),
        ({"candidates": list(range(10_000))}, 413, "10,000 candidates"),
        ({"bids": [1]}, 400, "bids is an object of numbers"),
        ({"bids": {"a": "b"}}, 400, "bids holds"),
        ({"shown": {"category": {"a": None}}}, 400, "shown.category holds"),
        ({"where": {"nothing": 1}}, 400, "nothing"),
        ({"where": {"price": {"from": 1}}}, 400, "price"),
        ({"vector": ["a"]}, 400, "vector is an array of finite numbers"),
        ({"user": {"agee": 1}}, 400, "agee"),
        ({"user": {}}, 400, "lacks the field"),
        ({"by": "score"}, 400, "unknown field 'by'"),
    ],
)
def test_what_is_wrong_is_named(app, changes, status, reason):
    answer = post(app, "/v1/rank", {"user": USERS[0], **changes})
    assert answer.status_code == status and reason in answer.json()["error"], answer.text


def test_no_model_of_its_own_is_offered(app):
    assert ask(app, "GET", "/v2/models/adloom").status_code == 404


def query_of(tower, user):
    """The vector that the user's tower gives."""
    encoder = RequestEncoder(tower.features, vocabularies=None)
    return tower(encoder.encode_user({f.name: user[f.name] for f in encoder.user.all})[0])["vector"][0]


def test_an_item_that_came_over_http_is_found_and_ranked_and_one_that_left_is_not(folder, ran, tmp_path):
    shutil.copytree(folder, tmp_path / "funnel")
    index = tmp_path / "funnel" / "indexes" / "two_tower"
    shutil.rmtree(index)
    ids, vectors, model = read(ran[0] / "items" / "vectors.parquet")
    with build_live(vectors[1:], ids=ids[1:], model=model) as live:  # the first is yet to come
        live.save(index)
    user, new = USERS[0], int(ids[0])
    query = query_of(load(folder / "towers" / "two_tower"), user)
    rest = ["looks", "popular"]

    def found(path, app, **more):
        answer = post(app, path, {"user": user, "skip": rest, **more})
        assert answer.status_code == 200, answer.text
        return {item["id"]: item for item in answer.json()["items"]}

    with serving(tmp_path / "funnel") as app:
        assert new not in found("/v1/retrieve", app)
        done = post(app, "/v1/items", {"ids": [new], "vectors": [(9 * query).tolist()]})
        assert done.json() == {"added": 1, "replaced": 0, "items": len(ids)}, done.text
        assert found("/v1/retrieve", app, k=1)[new]["sources"]["two_tower"]["rank"] == 1
        page = found("/v1/rank", app, k=len(ids), skip=[*rest, "auction", "caps", "diversity"])
        assert page[new]["scores"]["rank"] > 0, "it was found but not ranked"
        assert post(app, "/v1/items/delete", {"ids": [new]}).json()["deleted"] == 1
        assert new not in found("/v1/retrieve", app)
