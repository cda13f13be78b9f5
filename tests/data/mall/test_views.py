"""Views of a product share its latents, and depend on nothing but the product."""

import numpy as np
import pytest

from data.mall.ads import CREATIVES, campaigns
from data.mall.build import shop_of
from data.mall.config import Mall, Views
from data.mall.latents import ATTRIBUTES, THEMES
from data.mall.views.creative import creatives, phrases
from data.mall.views.image import images
from data.mall.views.speech import KINDS, speech
from data.mall.views.text import attribute_table, descriptions, price_band, queries, reviews
from data.mall.views.title import in_second_language, titles
from data.mall.views.video import lives, videos
from data.mall.views.words import FORMS, KNOWN, lexicon

MALL = Mall(size="tiny")
ITEMS = np.arange(120)


@pytest.fixture(scope="module")
def shop():
    return shop_of(MALL)


def same_product(vectors: np.ndarray, *, spu: np.ndarray) -> float:
    """Chance that a listing of the same product is nearer than one of another product."""
    distance = ((vectors[:, None] - vectors[None, :]) ** 2).sum(-1)
    same = spu[:, None] == spu[None, :]
    off = ~np.eye(len(spu), dtype=bool)
    mine, other = distance[same & off], distance[~same]
    return float((mine[:, None] < other[None, :1000]).mean())


def test_pictures_of_one_product_are_alike(shop):
    items = np.arange(len(shop))
    pictures = images(MALL, shop=shop, items=items, side=16).astype(np.float32)
    middle = pictures[:, 3:13, 3:13].reshape(len(items), -1)
    assert same_product(middle, spu=shop.spu) > 0.75


def test_titles_of_one_product_share_meaning(shop):
    words, tokens = lexicon(MALL), titles(MALL, shop=shop, items=np.arange(len(shop)))[0]
    named = np.zeros((len(tokens), words.size // FORMS + 1), np.float32)
    word = np.where(tokens > 1, (tokens - 2) % words.size // FORMS, -1)
    for i, row in enumerate(word):
        named[i, row[row >= 0]] = 1.0
    assert same_product(named, spu=shop.spu) > 0.85


def test_title_words_name_the_product(shop):
    words, tokens = lexicon(MALL), titles(MALL, shop=shop, items=ITEMS)[0]
    leaf = words.means(tokens, kind="leaf").max(-1)
    assert np.array_equal(leaf, shop.leaf[ITEMS])
    for j, name in enumerate(ATTRIBUTES):
        said = words.means(tokens, kind=name).max(-1)
        assert (said[said >= 0] == shop.spu_attributes[shop.spu[ITEMS], j][said >= 0]).all()
        assert 0.6 < (said >= 0).mean() < 0.9


def test_both_languages_and_typos_occur(shop):
    words, items = lexicon(MALL), np.arange(len(shop))
    tokens = titles(MALL, shop=shop, items=items)[0]
    second = in_second_language(MALL, items=items)
    assert 0.15 < second.mean() < 0.35
    form = (tokens - 2) % words.size % FORMS >= 2
    assert np.array_equal((form & (tokens > 1)).any(-1), second)
    typos = (tokens >= 2 + words.size).sum() / (tokens > 0).sum()
    assert 0.01 < typos < 0.06
    clean = Mall(size="tiny", views=Views(typo=0.0, second_language=0.0))
    assert titles(clean, shop=shop, items=items)[0].max() < 2 + words.size


def test_known_words_cover_every_value():
    for kind, values in (KNOWN | {}).items():
        assert all(len(language.split()) == 2 for v in values.split(",") for language in v.split("|")), kind
    counts = lexicon(MALL).count
    assert counts["theme"] == THEMES and all(counts[n] == v for n, v in ATTRIBUTES.items())
    assert len(lexicon(MALL).strings) == lexicon(MALL).tokens


@pytest.mark.parametrize(
    "view",
    [
        lambda shop, i: images(MALL, shop=shop, items=i, side=8),
        lambda shop, i: titles(MALL, shop=shop, items=i)[0],
        lambda shop, i: descriptions(MALL, shop=shop, items=i)[0],
        lambda shop, i: attribute_table(MALL, shop=shop, items=i),
        lambda shop, i: videos(MALL, shop=shop, items=i, frames=3, side=8)[0],
        lambda shop, i: lives(MALL, shop=shop, items=i, frames=3, side=8)[0],
        lambda shop, i: speech(MALL, shop=shop, items=i)[0],
        lambda shop, i: reviews(MALL, shop=shop, items=i, users=i + 1, stars=1 + i % 5)[0],
        lambda shop, i: creatives(MALL, shop=shop, ads=campaigns(MALL, shop=shop), campaign=i % 90, side=8),
    ],
)
def test_a_view_does_not_depend_on_who_is_rendered_with_it(shop, view):
    alone = np.concatenate([view(shop, ITEMS[i : i + 1]) for i in (3, 50, 7)])
    assert np.array_equal(view(shop, np.array([3, 50, 7])), alone)
    assert len({row.tobytes() for row in view(shop, ITEMS[:20])}) > 10


def test_planted_facts_are_true_and_where_they_are_said_to_be(shop):
    words = lexicon(MALL)
    tokens, place, kind = speech(MALL, shop=shop, items=ITEMS)
    rows = np.arange(len(ITEMS))[:, None]
    truth = np.concatenate([shop.spu_attributes[shop.spu[ITEMS]], price_band(shop, items=ITEMS)[:, None]], 1)
    for k, name in enumerate(KINDS):
        said = words.means(tokens[rows, place], kind=name)
        assert (said[kind == k] == truth[rows.repeat(place.shape[1], 1)[kind == k], k]).all()
        assert (words.means(tokens[rows, place - 1], kind="key")[kind == k] == k).all()
    assert (words.means(tokens, kind="chatter") >= 0).mean() > 0.8


def test_attribute_tables_are_mostly_true_and_partly_missing(shop):
    items = np.arange(len(shop))
    stated, truth = attribute_table(MALL, shop=shop, items=items), shop.spu_attributes[shop.spu]
    assert 0.1 < (stated == 0).mean() < 0.2
    right = (stated - 1 == truth)[stated > 0].mean()
    assert 0.95 < right < 1.0


def test_distractor_frames_hide_the_product(shop):
    frames, visible = videos(MALL, shop=shop, items=ITEMS, frames=6, side=16)
    assert visible.any(-1).all()
    assert visible.mean() == pytest.approx(0.6 + 0.4 / 6, abs=0.06)  # one frame in six shows it by force
    clean = images(MALL, shop=shop, items=ITEMS, side=16).astype(np.float32)
    apart = np.abs(frames - clean[:, None]).mean((2, 3, 4))
    assert apart[visible].mean() < apart[~visible].mean()
    noisy, _ = lives(MALL, shop=shop, items=ITEMS, frames=6, side=16)
    calm, _ = lives(Mall(size="tiny", views=Views(live_noise=0.0)), shop=shop, items=ITEMS, frames=6, side=16)
    assert 15 < np.abs(noisy.astype(int) - calm).mean() < 45


def test_phrases_name_their_selling_point(shop):
    words, ads = lexicon(MALL), campaigns(MALL, shop=shop)
    campaign = np.arange(60)
    tokens, length = phrases(MALL, shop=shop, ads=ads, campaign=campaign)
    assert tokens.shape[:2] == (60, CREATIVES) and (length >= 3).all()
    assert np.array_equal(words.means(tokens, kind="point").max(-1), ads.point[campaign])


def test_reviews_tell_the_stars_and_queries_the_leaf(shop):
    words, stars = lexicon(MALL), 1 + ITEMS % 5
    said = words.means(reviews(MALL, shop=shop, items=ITEMS, users=ITEMS, stars=stars)[0], kind="stars").max(-1) + 1
    assert np.corrcoef(said, stars)[0, 1] > 0.85
    leaf = ITEMS % shop.leaves
    wished = np.ones((len(ITEMS), len(ATTRIBUTES)), np.int64)
    tokens = queries(MALL, leaf=leaf, wished=wished, users=ITEMS, times=ITEMS * 7)[0]
    assert np.array_equal(words.means(tokens, kind="leaf").max(-1), leaf)
    assert set(np.unique(words.means(tokens, kind="colour"))) == {-1, 1}
