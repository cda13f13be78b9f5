"""Updates of a funnel's live indexes: which, who sees them, and what becomes of them when the funnel is swapped."""

import json
import shutil

import pytest

from serve.funnel import Request
from serve.funnel_config import ByItem, ByTower
from serve.index.open import open_index
from tests.serve.up.conftest import ask, serving
from tests.serve.up.shop import COLOURS, IDS, make, vector

AUTH = {"Authorization": "Bearer t"}
NEW = 99
BLUE = vector(COLOURS["blue"])
CHANGED = {"added": 1, "replaced": 0, "items": len(IDS) + 1}
USER = {"history": [4], "age": 0.5}
"""Item 4 is blue."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Its channels looks and search share the one index."""
    return make(tmp_path_factory.mktemp("shop"), live=True)


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "funnel")
    return tmp_path / "funnel"


def post(app, path, body):
    return ask(app, "POST", path, json=body, headers=AUTH)


def sources(app, **asked):
    answer = post(app, "/v1/retrieve", {"user": USER, **asked})
    assert answer.status_code == 200, answer.text
    return {item["id"]: set(item["sources"]) for item in answer.json()["items"]}


def reload(app):
    answer = ask(app, "POST", "/v1/reload", headers=AUTH)
    assert answer.status_code == 200, answer.text
    return answer.json()["swapped"]


def touched(folder, **changes):
    """As a funnel of another config, with the same parts."""
    path = folder / "funnel.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_all_channels_of_one_index_see_an_update_and_a_restart_keeps_it(folder):
    with serving(folder, token="t") as app:
        assert NEW not in sources(app, text="blue")
        assert post(app, "/v1/items", {"ids": [NEW], "vectors": [BLUE]}).json() == CHANGED
        assert sources(app, text="blue")[NEW] == {"looks", "search"}
        assert f"adloom_index_items {len(IDS) + 1}.0" in ask(app, "GET", "/metrics", headers=AUTH).text
        dropped = post(app, "/v1/rank", {"user": USER, "text": "blue", "explain": True}).json()
        assert [d["why"] for d in dropped["dropped"] if d["id"] == NEW] == ["rank: it has no features"]
    with serving(folder, token="t") as app:
        assert NEW in sources(app, text="blue")
        assert post(app, "/v1/items/delete", {"ids": [NEW, 4], "channel": "looks"}).json()["deleted"] == 2
        assert not {NEW, 4} & set(sources(app, text="blue", skip=["popular"]))


def test_a_swap_hands_the_open_index_on_and_another_folder_brings_its_own(folder, made):
    with serving(folder, token="t") as app:
        assert post(app, "/v1/items", {"ids": [NEW], "vectors": [BLUE]}).json() == CHANGED
        touched(folder, k=3)
        assert reload(app)
        assert NEW in sources(app, text="blue"), "the update was lost by the swap"
        assert post(app, "/v1/items", {"ids": [NEW], "vectors": [BLUE]}).json()["replaced"] == 1
        folder.rename(folder.with_name("old"))
        shutil.copytree(made, folder)
        touched(folder, k=4)
        assert reload(app)
        assert NEW not in sources(app, text="blue")
        assert post(app, "/v1/items", {"ids": [NEW], "vectors": [BLUE]}).json() == CHANGED
        with open_index(folder.with_name("old") / "indexes" / "looks", write=True) as left:
            assert NEW in left, "the index that was replaced is still held, or lost an update"
    with open_index(folder / "indexes" / "looks", write=True) as live:
        assert NEW in live, "a server that has ended holds the index"


def test_a_funnel_that_is_refused_lets_go_and_the_old_one_takes_updates(folder):
    with serving(folder, token="t") as app:
        touched(folder, defaults={"nobody": 1})
        answer = ask(app, "POST", "/v1/reload", headers=AUTH)
        assert answer.status_code == 409 and "no part reads" in answer.json()["error"]
        assert post(app, "/v1/items", {"ids": [NEW], "vectors": [BLUE]}).json() == CHANGED
        assert NEW in sources(app, text="blue")


def test_the_index_of_a_funnel_may_also_be_served_beside_it(folder):
    index = folder / "indexes" / "looks"
    with serving(folder, index=index, token="t") as app:
        assert post(app, "/v1/items", {"ids": [NEW], "vectors": [BLUE]}).json() == CHANGED
        assert post(app, "/v1/retrieve", {"vector": BLUE, "k": 20}).json()["ids"][0].count(NEW) == 1
        house = app.state.house
        assert len(house.serving.indexes()) == 1
        assert NEW in {r.id for r in house.serving.funnel.retrieve(Request(USER, text="blue"))}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    make(folder, live=True)
    shutil.copytree(folder / "index", folder / "other")
    near = ByTower(index=str(folder / "other"), quota=5)
    looks = ByItem(index=str(folder / "index"), vectors=str(folder / "vectors"), quota=8)
    made = make(folder, live=True, changes={"channels": {"near": near, "looks": looks}})
    with serving(made) as app:
        yield app


def test_of_two_live_indexes_the_channel_says_which(two):
    body = {"ids": [NEW], "vectors": [BLUE]}
    answer = post(two, "/v1/items", body)
    assert answer.status_code == 400 and answer.json()["field"] == "channel"
    assert "the channels near, looks have live indexes" in answer.json()["error"]
    assert post(two, "/v1/items", {**body, "channel": "near"}).json() == CHANGED
    assert sources(two, vector=BLUE)[NEW] == {"near"}
    answer = post(two, "/v1/items/delete", {"ids": [NEW], "channel": "lokks"})
    assert answer.status_code == 400 and "those that do: near, looks" in answer.json()["error"]
    answer = post(two, "/v1/items", {"ids": [1], "vectors": [[1.0, 2.0]], "channel": "near"})
    assert answer.status_code == 400 and "the index takes rows of 4 numbers" in answer.json()["error"]


def test_what_cannot_be_changed_says_so(folder, tmp_path):
    body = {"ids": [NEW], "vectors": [BLUE]}
    with serving(folder, read_only=True) as app:
        answer = post(app, "/v1/items", body)
        assert answer.status_code == 409 and "--read-only" in answer.json()["error"]
        answer = post(app, "/v1/items", {**body, "channel": "popular"})
        assert answer.status_code == 400 and "those that do: looks, search" in answer.json()["error"]
        with open_index(folder / "indexes" / "looks", write=True) as live:
            assert NEW not in live
    with serving(make(tmp_path / "fixed")) as app:
        for more, reason in (({}, "no index of this funnel can be changed"), ({"channel": "looks"}, "--engine live")):
            answer = post(app, "/v1/items", {**body, **more})
            assert answer.status_code == 409 and reason in answer.json()["error"]
