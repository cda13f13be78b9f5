"""The page's routes: files as they are, what they may load, pictures of items, searches by words and pictures."""

import base64
import re

import numpy as np
import pytest

from serve.features.store import StoreDown
from serve.funnel import Request, open_funnel
from serve.up.home import FILES, PLACEHOLDER
from tests.serve.up import shop
from tests.serve.up.conftest import ask, serving
from tests.serve.up.shop import BARE, COLOURS, IDS, NAMES, ODD, USERS, png, vector


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shop.make(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def funnel_app(folder):
    with serving(folder) as app:
        yield app


def post(app, path, **body):
    return ask(app, "POST", path, json={"user": USERS[0], **body})


def ids_of(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def unit(values):
    return np.asarray(values) / np.linalg.norm(values)


def coloured(name):
    return {id for id, of in zip(IDS, NAMES, strict=True) if of == name}


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css"), ("/icon.svg", "image/svg+xml")],
)
def test_files_come_with_their_types_and_may_load_nothing_from_elsewhere(app, path, kind):
    answer = ask(app, "GET", path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in str(policy) and "http" not in str(policy)
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_files_hold_no_inline_script_and_name_no_other_host(app):
    html = ask(app, "GET", "/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", html)
    for path in FILES:
        text = ask(app, "GET", path).text.replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(?m)(^|\s)//.*$", "", text).replace("*/", ""), path
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', html)) | {"show.js", "small.js", "talk.js"}
    assert {f"/{name}" for name in named} - {"/docs"} == set(FILES) - {"/"}


def test_a_server_without_a_funnel_says_what_it_serves(app):
    found = ask(app, "GET", "/v1/served").json()
    assert found["funnel"] is None and found["name"] == "tower" and "model" in found["versions"]
    assert ask(app, "GET", "/v1/items/3/image").status_code == 404


def test_what_a_page_needs_to_ask(funnel_app):
    found = ask(funnel_app, "GET", "/v1/served").json()["funnel"]
    assert found["channels"] == ["popular", "looks", "search"] and found["stages"] == ["rank", "caps", "auction"]
    assert found["searches"] == {"search": ["picture", "text"]} and found["examples"] == USERS
    assert found["filters"] == [{"name": "kind", "kind": "text"}, {"name": "price", "kind": "number"}]
    assert found["k"] == 5 and found["fields"] == ["age", "history"]


def test_pictures_of_items(funnel_app):
    found = ask(funnel_app, "GET", "/v1/items/3/image")
    assert found.content == png(COLOURS[NAMES[1]]) and found.headers["content-type"] == "image/png"
    assert found.headers["x-content-type-options"] == "nosniff"
    bare = ask(funnel_app, "GET", f"/v1/items/{BARE}/image")
    assert bare.content == PLACEHOLDER and bare.headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize("id", ["99", "three", "-1", "9" * 19, "9" * 40, "..%2F..%2Ffunnel.json", "3%00", "3/../3"])
def test_an_item_that_is_not_there_has_no_picture(funnel_app, id):
    answer = ask(funnel_app, "GET", f"/v1/items/{id}/image")
    assert answer.status_code == (200 if id == "3/../3" else 404)  # a client makes one path of the last


def test_what_is_stored_must_be_a_picture(tmp_path):
    from serve.features.arrow_store import build as store

    folder = shop.make(tmp_path)
    pictures = [b"<svg onload=alert(1)>"] * len(IDS)
    store(shop.shown().drop(["image"]).append_column("image", [pictures]), id="item", output=folder / "display")
    with serving(folder) as app:
        answer = ask(app, "GET", "/v1/items/3/image")
    assert answer.status_code == 404 and "no PNG" in answer.json()["error"]


def test_titles_and_columns_come_where_they_are_asked_for(funnel_app):
    plain, shown = (post(funnel_app, "/v1/rank", explain=True, **more).json() for more in ({}, {"display": True}))
    assert [i["id"] for i in plain["items"]] == [i["id"] for i in shown["items"]] and shown["dropped"]
    assert not any("display" in i for i in plain["items"] + plain["dropped"])
    for item in shown["items"] + shown["dropped"]:
        at = IDS.index(item["id"])
        title = "<img src=x onerror=alert(1)>" if item["id"] == ODD else f"{NAMES[at]} thing {item['id']}"
        assert item["display"] == {"title": title, "kind": f"kind {at % 3}", "price": 1.0 + 0.5 * at}
    assert all("display" in i for i in post(funnel_app, "/v1/retrieve", display=True).json()["items"])


def test_a_store_that_is_away_is_no_fault_of_the_request(funnel_app, monkeypatch):
    def away(*_, **__):
        raise StoreDown("the feature store cannot be reached")

    funnel = funnel_app.state.house.serving.funnel
    monkeypatch.setattr(funnel.showcase.store, "get", away)
    assert ask(funnel_app, "GET", "/v1/items/3/image").status_code == 503
    assert post(funnel_app, "/v1/rank").status_code == 200
    answer = post(funnel_app, "/v1/rank", display=True)
    assert answer.status_code == 503 and "cannot be reached" in answer.json()["error"]


ALONE = ["looks", "popular"]


@pytest.mark.parametrize("name", ["red", "blue"])
def test_words_and_pictures_find_what_they_mean(funnel_app, name):
    by_words = post(funnel_app, "/v1/retrieve", text=f"{name.upper()} something", skip=ALONE, k=3)
    assert set(ids_of(by_words)) == coloured(name)
    picture = base64.b64encode(png(COLOURS[name], side=200)).decode()
    by_picture = post(funnel_app, "/v1/retrieve", picture=picture, skip=ALONE, k=3)
    assert set(ids_of(by_picture)) == coloured(name)
    score = by_picture.json()["items"][0]["sources"]["search"]["score"]
    assert score == pytest.approx(1.0, abs=1e-5)  # the cosine of a colour with itself


def test_both_together_find_what_is_between(funnel_app):
    picture = base64.b64encode(png(COLOURS["red"])).decode()
    found = post(funnel_app, "/v1/retrieve", text="blue", picture=picture, skip=ALONE, k=6)
    units = {name: unit(vector(COLOURS[name])) for name in COLOURS}
    between = unit(np.add(vector(COLOURS["red"]), vector(COLOURS["blue"])))
    wanted = sorted((float(units[name] @ between) for name in NAMES), reverse=True)[:6]
    scores = [item["sources"]["search"]["score"] for item in found.json()["items"]]
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    assert set(ids_of(found)) >= coloured("grey")  # of which there is as much of one as of the other


def test_filters_hold_for_searches(funnel_app):
    found = post(funnel_app, "/v1/retrieve", text="red", skip=ALONE, where={"price": {"max": 3.0}}, display=True)
    assert found.json()["items"] and all(i["display"]["price"] <= 3.0 for i in found.json()["items"])


def test_a_search_adds_its_candidates_and_says_so(funnel_app, folder):
    funnel = open_funnel(folder)
    plain = funnel.answer(Request(USERS[0], k=20, explain=True))
    assert not any("search" in i.sources for i in plain.items + plain.dropped)
    found = post(funnel_app, "/v1/rank", text="grey", k=20, explain=True).json()
    searched = {i["id"] for i in found["items"] + found["dropped"] if "search" in i["sources"]}
    assert searched >= coloured("grey")


RARE = base64.b64encode(b"P6 4 4 255\n" + bytes(48)).decode()
"""A picture that the decoder knows, of a format that it is not asked for."""
BOMB = base64.b64encode(png((0, 0, 0), side=5000)).decode()


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"text": ""}, 422, "text: it holds no words"),
        ({"text": "red " * 600}, 422, "2,400 letters"),
        ({"text": ["red"]}, 400, "text is a JSON array"),
        ({"picture": "///"}, 400, "picture is not base64"),
        ({"picture": "../../etc/passwd"}, 400, "picture is not base64"),
        ({"picture": base64.b64encode(b"GIF89a").decode()}, 422, "picture"),
        ({"picture": base64.b64encode(b"<svg>").decode()}, 422, "it is no PNG, JPEG, GIF or WEBP"),
        ({"picture": RARE}, 422, "it is no PNG, JPEG, GIF or WEBP"),
        ({"picture": base64.b64encode(png((1, 2, 3), side=200)[:120]).decode()}, 422, "does not decode"),
        ({"picture": BOMB}, 422, "5000 x 5000 pixels"),
        ({"picture": 3}, 400, "give the bytes of its file as base64"),
        ({"display": 1}, 400, "display is a JSON number"),
    ],
)
def test_what_is_wrong_is_named(funnel_app, changes, status, reason):
    answer = post(funnel_app, "/v1/rank", **changes)
    assert answer.status_code == status and reason in answer.json()["error"], answer.text


def test_the_page_is_open_and_what_it_asks_for_is_not(folder):
    with serving(folder, token="secret") as app:
        assert all(ask(app, "GET", path).status_code == 200 for path in FILES)
        for path in ("/v1/served", "/v1/items/3/image", "/docs"):
            assert ask(app, "GET", path).status_code == 401
        header = {"Authorization": "Bearer secret"}
        assert ask(app, "GET", "/v1/served", headers=header).json()["funnel"]["k"] == 5
