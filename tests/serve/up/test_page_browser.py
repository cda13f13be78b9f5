"""The page as people use it, in a headless Chromium: what it shows is what the API says."""

import base64
import json
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from tests.serve.up import shop
from tests.serve.up.browser import at_port, chromium, hosts, lacking, look
from tests.serve.up.conftest import serving
from tests.serve.up.shop import COLOURS, IDS, NAMES, ODD, USERS, png

pytestmark = [
    pytest.mark.skipif(lacking() is not None, reason=str(lacking())),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # selenium's own connections
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shop.make(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def url(folder):
    with serving(folder) as app, at_port(app) as url:
        yield url


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        look(driver, width=1280, height=900)
        yield driver


@pytest.fixture
def page(driver, url):
    return opened(driver, url)


@pytest.fixture(autouse=True)
def quiet(driver):
    """In every test the page asks no one but its server, and the console holds no error but those allowed."""
    yield
    said = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [entry for entry in said if entry["source"] != "network"], said
    assert all(f"status of {status}" in entry["message"] for entry in said for status in driver.allowed), said
    assert len(said) <= len(driver.allowed), said
    assert hosts(driver) <= {"127.0.0.1"}


def opened(driver, url):
    driver.allowed = []
    driver.get("about:blank")  # a change of the fragment alone loads nothing
    driver.get(url)
    return driver


def until(driver, condition):
    from selenium.common import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 90, ignored_exceptions=[StaleElementReferenceException]).until(lambda _: condition())


def get(driver, selector):
    return driver.find_element("css selector", selector)


def every(driver, selector):
    return driver.find_elements("css selector", selector)


def asked(url, **body):
    answer = httpx.post(f"{url}/v1/rank", json={"user": USERS[0], "explain": True, "k": 5, **body}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


SHOWN = """
return [...document.querySelectorAll('#items .card')].map((card) => ({
  id: Number(card.dataset.id),
  title: card.querySelector('h3').textContent,
  scores: Object.fromEntries([...card.querySelectorAll('dd')].map((d) => [d.dataset.stage, Number(d.dataset.score)])),
}))"""


def shown(driver, answer):
    """What the cards say, once they are those of `answer`."""
    wanted = [item["id"] for item in answer["items"]]
    until(driver, lambda: [card["id"] for card in driver.execute_script(SHOWN)] == wanted)
    return driver.execute_script(SHOWN)


def choose(driver, selector, value):
    from selenium.webdriver.support.ui import Select

    Select(get(driver, selector)).select_by_value(value)


def drop(driver, data):
    """A file let go over the page."""
    driver.execute_script(
        """const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], 'a.png', {type: 'image/png'}));
        document.getElementById('drop').dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true}));""",
        base64.b64encode(data).decode(),
    )


def test_a_chosen_user_gets_the_page_of_the_api_with_pictures(page, url):
    shown(page, asked(url))
    choose(page, "#example", "1")
    answer = asked(url, user=USERS[1])
    cards = shown(page, answer)
    assert len(cards) == 5
    for card, item in zip(cards, answer["items"], strict=True):
        assert card["scores"] == pytest.approx(item["scores"], rel=1e-12)
        name = "<img src=x onerror=alert(1)>" if item["id"] == ODD else f"{NAMES[IDS.index(item['id'])]} thing"
        assert name in card["title"]
    assert json.loads(get(page, "#user").get_attribute("value")) == USERS[1]
    loaded = "return [...document.querySelectorAll('#items img')].map((i) => i.complete && i.naturalWidth > 0)"
    until(page, lambda: page.execute_script(loaded) == [True] * 5)
    assert {"retrieve", "rank", "decide", "round"} <= {line.text.split()[0] for line in every(page, "#legend li")}


def test_a_stage_is_left_out_by_key_and_the_link_says_so(page, url):
    from selenium.webdriver.common.keys import Keys

    before = shown(page, asked(url))
    get(page, "#stages input[value=auction]").send_keys(Keys.SPACE)
    without = asked(url, skip=["auction"])
    assert [item["id"] for item in without["items"]] != [card["id"] for card in before]
    after = shown(page, without)
    assert "price" in before[0]["scores"] and "price" not in after[0]["scores"]
    link = get(page, "#link").get_attribute("href")
    assert link == page.current_url and json.loads(unquote(urlsplit(link).fragment))["skip"] == ["auction"]
    opened(page, link)
    assert shown(page, without) == after
    assert not get(page, "#stages input[value=auction]").is_selected()
    assert get(page, "#stages input[value=caps]").is_selected()


def test_what_was_dropped_says_where_and_why(page, url):
    answer = asked(url)
    shown(page, answer)
    group = get(page, "#groups details[data-stage=decide]")
    group.find_element("css selector", "summary").click()
    reasons = {item["id"]: item["why"] for item in answer["dropped"] if item["why"].startswith("decide")}
    assert any("cap of 3 for seller" in why for why in reasons.values())
    rows = until(page, lambda: group.find_elements("css selector", ".row"))
    found = {int(row.get_attribute("data-id")): row.find_element("css selector", ".why").text for row in rows}
    assert found == reasons


def test_words_and_a_dropped_picture_search(page, url):
    from selenium.webdriver.common.keys import Keys

    shown(page, asked(url))
    get(page, "#text").send_keys("Red", Keys.ENTER)
    alone = ["looks", "popular"]
    shown(page, asked(url, text="Red", skip=alone))
    get(page, "#text").clear()
    get(page, "#text").send_keys(Keys.ENTER)
    shown(page, asked(url))
    blue = png(COLOURS["blue"])
    drop(page, blue)
    answer = asked(url, picture=base64.b64encode(blue).decode(), skip=alone)
    shown(page, answer)
    assert page.execute_script("return document.getElementById('preview').src.startsWith('blob:')")
    get(page, "#only").click()
    shown(page, asked(url, picture=base64.b64encode(blue).decode()))
    get(page, "#remove").click()
    shown(page, asked(url))


def test_filters_and_the_number_of_items(page, url):
    first = asked(url, display=True)
    shown(page, first)
    kind = first["items"][0]["display"]["kind"]
    get(page, "#items .card button").click()
    shown(page, asked(url, where={"kind": [kind]}))
    assert get(page, "#filter-kind").get_attribute("value") == kind
    page.execute_script("document.getElementById('filter-kind').value = ''; document.getElementById('k').value = 2")
    get(page, "#filter-price-max").send_keys("4\t")
    assert len(shown(page, asked(url, where={"price": {"max": 4}}, k=2))) == 2


@pytest.mark.parametrize(
    ("user", "said"), [('{"agee": 1}', "did you mean 'age'?"), ("{", "the user's raw fields are not JSON")]
)
def test_errors_are_shown_as_they_are_said(page, url, user, said):
    shown(page, asked(url))
    page.allowed = [400] if "agee" in user else []
    page.execute_script("document.getElementById('user').value = arguments[0]", user)
    get(page, "button[type=submit]").click()
    until(page, lambda: said in get(page, "#error").text)
    choose(page, "#example", "1")
    shown(page, asked(url, user=USERS[1]))
    assert not get(page, "#error").is_displayed()


def test_a_picture_that_is_none_is_told(page, url):
    shown(page, asked(url))
    page.allowed = [422]
    drop(page, b"%PDF-1.7")
    assert until(page, lambda: "no PNG, JPEG, GIF or WEBP" in get(page, "#error").text)


def test_a_damaged_link_is_told(driver, url):
    opened(driver, f"{url}/#%7Bnothing")
    assert until(driver, lambda: "the link is damaged" in get(driver, "#error").text)


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(page, url, dark):
    look(page, width=390, height=800, dark=dark)
    try:
        opened(page, url)
        shown(page, asked(url))
        assert page.execute_script("return document.documentElement.scrollWidth") <= 390
        colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        light = sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3
        assert light < 64 if dark else light > 192
    finally:
        look(page, width=1280, height=900)


def test_the_token_is_asked_for_once_and_kept_for_the_tab(driver, folder):
    with serving(folder, token="secret") as app, at_port(app) as url:
        opened(driver, url)
        driver.allowed = [401] * 3
        until(driver, lambda: get(driver, "#token").is_displayed())
        get(driver, "#token").send_keys("wrong\n")
        until(driver, lambda: get(driver, "#token-wrong").is_displayed())
        get(driver, "#token").send_keys("secret\n")
        cards = until(driver, lambda: every(driver, "#items .card"))
        assert len(cards) == 5
        loaded = "return [...document.querySelectorAll('#items img')].every((i) => i.naturalWidth > 0)"
        until(driver, lambda: driver.execute_script(loaded))
        driver.refresh()
        until(driver, lambda: every(driver, "#items .card"))
        assert not get(driver, "#token-dialog").is_displayed()
        driver.execute_script("sessionStorage.clear()")


def test_without_a_funnel_it_says_what_is_served(driver, exported):
    with serving(exported) as app, at_port(app) as url:
        opened(driver, url)
        until(driver, lambda: "Served here" in get(driver, "#status").text)
        assert get(driver, "#docs").get_attribute("href") == f"{url}/docs"
        assert get(driver, "#versions dd").text == app.state.house.serving.versions["model"]
        assert not get(driver, "#ask").is_displayed()
