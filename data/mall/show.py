"""Pictures of a mall: what products look like, and the laws as curves measured in its log."""

import html
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.mall.ads import CREATIVES, campaigns, wear_out
from data.mall.build import Built, after, build
from data.mall.charts import INK, PAPER, Chart, save, tile
from data.mall.config import DAY, Mall
from data.mall.events import Table
from data.mall.exposure import examination
from data.mall.latents import THEMES
from data.mall.options import mall_of
from data.mall.truth import possible
from data.mall.views.creative import creatives, phrases
from data.mall.views.image import images
from data.mall.views.speech import speech
from data.mall.views.text import descriptions, queries, reviews
from data.mall.views.title import titles
from data.mall.views.video import lives, videos
from data.mall.views.words import lexicon

CELL = 64


def main(folder: str | None, options: list[str]) -> None:
    """`python -m data show mall`."""
    out = Path(folder or "mall-pictures")
    for path in show(mall_of(options), out=out):
        print(path)


def show(mall: Mall, *, out: str | Path) -> list[Path]:
    """Writes the pictures and `index.html`, which shows them with samples of every text; returns the files."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    built, tables = build(mall), after(mall)
    made = {
        "domains.png": domains(built),
        "categories.png": categories(built),
        "curves.png": tile([c.draw() for c in (*log_curves(built), *ad_curves(built, tables))], columns=3),
    }
    for name, picture in made.items():
        save(picture, path=out / name)
    (out / "index.html").write_text(page(built, tables=tables, pictures=list(made)), encoding="utf-8")
    return [*(out / name for name in made), out / "index.html"]


def categories(built: Built) -> Image.Image:
    """A product for each leaf category (down) and style theme (across)."""
    shop = built.shop
    chosen = []
    for leaf in range(min(shop.leaves, 12)):
        leaf = leaf * shop.leaves // min(shop.leaves, 12)
        for theme in range(THEMES):
            fits = np.flatnonzero((shop.leaf == leaf) & (shop.spu_theme[shop.spu] == theme))
            fits = fits if len(fits) else np.flatnonzero(shop.leaf == leaf)
            chosen += [fits[0], fits[-1]]
    return _mosaic(images(built.mall, shop=shop, items=np.array(chosen)), columns=2 * THEMES)


def domains(built: Built, *, rows: int = 8) -> Image.Image:
    """One product a row: page, four frames of short video, three of a live stream, creatives, title."""
    mall, shop = built.mall, built.shop
    ads = campaigns(mall, shop=shop)
    campaign = np.linspace(0, len(ads.item) - 1, rows).astype(np.int64)
    items = ads.item[campaign]
    words, title = lexicon(mall), titles(mall, shop=shop, items=items)[0]
    frames = np.concatenate(
        [
            images(mall, shop=shop, items=items)[:, None],
            videos(mall, shop=shop, items=items)[0][:, :4],
            lives(mall, shop=shop, items=items)[0][:, :3],
            creatives(mall, shop=shop, ads=ads, campaign=campaign),
        ],
        1,
    )
    columns = frames.shape[1]
    gaps = [0, 1, 5, 8]  # columns where a domain begins
    sheet = Image.new("RGB", (columns * CELL + 40, rows * (CELL + 18) + 20), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    at = [c * CELL + 10 * sum(c >= g for g in gaps[1:]) for c in range(columns)]
    for g, name in zip(gaps, ("page", "short video", "live stream", "creatives"), strict=True):
        pen.text((at[g] + 2, 3), name, fill=INK, font=font)
    for r in range(rows):
        top = 20 + r * (CELL + 18)
        for c in range(columns):
            sheet.paste(Image.fromarray(frames[r, c]).resize((CELL, CELL), Image.Resampling.NEAREST), (at[c], top))
        pen.text((2, top + CELL + 1), words.text(title[r]), fill=INK, font=font)
    return sheet


def _mosaic(pictures: np.ndarray, *, columns: int) -> Image.Image:
    n, side = len(pictures) // columns, pictures.shape[1]
    grid = pictures[: n * columns].reshape(n, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    sheet = Image.fromarray(grid.reshape(n * side, columns * side, 3))
    return sheet.resize((columns * CELL, n * CELL), Image.Resampling.NEAREST)


def log_curves(built: Built) -> list[Chart]:
    mall, shop, log = built.mall, built.shop, built.log.impressions
    clicks = np.sort(np.bincount(log["item"], weights=log["click"], minlength=len(shop)))[::-1]
    rank = np.unique(np.geomspace(1, len(shop), 60).astype(np.int64))
    share = shop.leaf_weight / np.bincount(shop.leaf, weights=shop.weight, minlength=shop.leaves)
    weight = np.sort(shop.weight * share[shop.leaf])[::-1]
    popularity = Chart("Popularity", "rank of the item", "clicks", log_x=True, log_y=True)
    popularity.add("clicks in the log", x=rank, y=clicks[rank - 1])
    popularity.add("weight of leaf and listing", x=rank, y=weight[rank - 1] * clicks.sum() / weight.sum())

    slots = np.arange(mall.dims.slate)
    rate = [log["click"][log["slot"] == k].mean() for k in slots]
    want = [log["relevance"][log["slot"] == k].mean() for k in slots]
    position = Chart("Position bias", "slot", "rate", zero=True)
    position.add("clicks", x=slots, y=np.array(rate), line=False)
    position.add("relevance x examination", x=slots, y=np.array(want) * examination(mall.exposure, slots=len(slots)))
    position.add("relevance of what is shown", x=slots, y=np.array(want))

    edges = np.quantile(log["true_ctr"], np.linspace(0, 1, 21))
    part = np.clip(np.searchsorted(edges, log["true_ctr"], side="right") - 1, 0, 19)
    count = np.maximum(np.bincount(part, minlength=20), 1)
    truth = np.bincount(part, weights=log["true_ctr"], minlength=20) / count
    seen = np.bincount(part, weights=log["click"], minlength=20) / count
    fit = Chart("Clicks against true click rate", "true_ctr, twentieths", "rate", zero=True)
    fit.add("true", x=truth, y=truth).add("clicks", x=truth, y=seen, line=False)

    day = log["time"] // DAY
    days = np.arange(mall.days - 1)
    age = (log["time"] - shop.arrival[log["item"]]) / DAY
    fresh = (shop.arrival[log["item"]] > 0) & (age < 7)
    fresh_share = Chart("New items", "day", "share", zero=True)
    fresh_share.add("impressions of arrivals of 7 days", x=days, y=np.array([fresh[day == d].mean() for d in days]))
    late = np.sort(shop.arrival[shop.arrival > 0])
    fresh_share.add("items that arrived so far", x=days, y=np.searchsorted(late, days * DAY) / len(shop))

    bins = np.linspace(0.0, 1.0, 26)
    chance = np.histogram(log["propensity"], bins)[0] / len(day)
    logged = Chart("Propensity of what was shown", "propensity given the slots above", "share", zero=True)
    logged.add("", x=(bins[1:] + bins[:-1]) / 2, y=chance)
    return [popularity, position, fit, fresh_share, logged]


def ad_curves(built: Built, tables: dict[str, Table]) -> list[Chart]:
    mall, shop = built.mall, built.shop
    buys, sold = tables["conversions"], tables["auctions"]
    hours = np.sort((buys["buy_time"] - buys["time"])[buys["buy"]] / 3600.0)
    level = np.linspace(0.01, 0.99, 50)
    delay = Chart("Delay from click to purchase", "hours", "share", log_x=True, zero=True)
    delay.add("bought by then", x=np.quantile(hours, level), y=level)

    ads = campaigns(mall, shop=shop)
    won = sold["campaign"] >= 0
    campaign, creative = sold["campaign"][won], sold["creative"][won]
    age = (sold["time"][won] - ads.launch[campaign, creative]) / DAY
    part = np.clip(age // 2, 0, 11).astype(np.int64)
    rate = np.bincount(part, weights=sold["click"][won], minlength=12) / np.maximum(np.bincount(part, minlength=12), 1)
    lost = wear_out(mall, ads=ads, campaign=campaign, now=sold["time"][won])[np.arange(len(creative)), creative]
    worn = np.bincount(part, weights=np.exp(lost), minlength=12) / np.maximum(np.bincount(part, minlength=12), 1)
    wear = Chart("Creatives wear out", "days since launch", "rate", zero=True)
    wear.add("ad click rate", x=2.0 * np.arange(12) + 1, y=rate).add(
        "wear-out alone", x=2.0 * np.arange(12) + 1, y=worn * rate[0] / worn[0]
    )

    price = np.log10(np.maximum(sold["price"][won], 1e-4))
    edges = np.linspace(np.quantile(price, 0.002), np.quantile(price, 0.998), 40)
    paid = Chart("Price paid for a click", "log10 of the price", "share", zero=True)
    paid.add("", x=(edges[1:] + edges[:-1]) / 2, y=np.histogram(price, edges)[0] / len(price))

    stars = np.arange(1, 6)
    rated = tables["ratings"]
    all_of = np.bincount(rated["stars"], minlength=6)[1:] / len(rated["stars"])
    seen = np.bincount(rated["stars"][rated["observed"]], minlength=6)[1:] / rated["observed"].sum()
    missing = Chart("Ratings missing not at random", "stars", "share", zero=True)
    missing.add("all purchases (truth)", x=stars, y=all_of).add("ratings in the log", x=stars, y=seen)
    return [delay, wear, paid, missing]


def page(built: Built, *, tables: dict[str, Table], pictures: list[str]) -> str:
    """One HTML page: sizes, the best that is possible, pictures, texts."""
    mall, log = built.mall, built.log.impressions
    rows: list[tuple[str, int | str]] = [
        ("users", mall.n_users),
        ("listings", mall.n_items),
        ("impressions", len(log["click"])),
    ]
    rows += [(name, len(next(iter(table.values())))) for name, table in tables.items()]
    for split in ("train", "valid", "test"):
        start, end = mall.period(split)
        keep = (log["time"] >= start) & (log["time"] < end)
        best = possible(log["click"][keep], truth=log["true_ctr"][keep])
        rows.append((f"{split}: best possible AUC, log loss", f"{best['auc']:.4f}, {best['logloss']:.4f}"))
    cells = [(html.escape(str(a)), f"{b:,}" if isinstance(b, int) else b) for a, b in rows]
    table = "".join(f"<tr><td>{a}<td>{b}" for a, b in cells)
    text = "".join(
        f"<h3>{name}</h3><ul>{''.join(f'<li>{html.escape(t)}' for t in said)}</ul>"
        for name, said in samples(built).items()
    )
    shown = "".join(f'<p><img src="{name}" alt="{name}">' for name in pictures)
    style = "body{font:15px sans-serif;max-width:1160px;margin:2em auto}td{padding:2px 12px}img{max-width:100%}"
    head = f"<!doctype html><meta charset=utf-8><title>SynthMall</title><style>{style}</style>"
    return f"{head}<h1>SynthMall, {mall.size}, seed {mall.seed}</h1><table>{table}</table>{shown}{text}\n"


def samples(built: Built, *, count: int = 4) -> dict[str, list[str]]:
    """A few of each text."""
    mall, shop = built.mall, built.shop
    words, items = lexicon(mall), np.arange(count)
    ads = campaigns(mall, shop=shop)
    asked = {n: c[built.log.requests["query"] >= 0][:count] for n, c in built.log.requests.items()}
    said = phrases(mall, shop=shop, ads=ads, campaign=items)[0].reshape(count * CREATIVES, -1)
    made = {
        "Titles": titles(mall, shop=shop, items=items)[0],
        "Descriptions": descriptions(mall, shop=shop, items=items)[0],
        "Reviews": reviews(mall, shop=shop, items=items, users=items, stars=1 + items % 5)[0],
        "Queries": queries(
            mall, leaf=asked["query"], wished=np.zeros((count, 5), np.int64), users=asked["user"], times=asked["time"]
        )[0],
        "Selling points": said[:count],
        "Speech": speech(mall, shop=shop, items=items)[0],
    }
    return {name: [words.text(row) for row in tokens] for name, tokens in made.items()}
