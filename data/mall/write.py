"""Writes a mall to Parquet, one file a shard and table, in the memory of one shard.

A shard is a block of users. Its bytes depend on the config and its number alone, so shards may be written in any
order and by any number of processes.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import chz
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import UserError
from data.features import FIRST
from data.mall.ads import Campaigns, campaigns
from data.mall.build import aftermath, shop_of
from data.mall.commerce import bundles
from data.mall.config import Mall
from data.mall.events import Log, Table, simulate
from data.mall.latents import ATTRIBUTES, Catalogue
from data.mall.options import mall_of, take
from data.mall.sources import Split, clicks, item_age, item_columns
from data.mall.users import users
from data.mall.views.text import attribute_table, descriptions, queries, reviews
from data.mall.views.title import titles

ITEM_BLOCK = 65_536
ROWS = 65_536  # of a row group: what a reader holds at once
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def main(folder: str | None, options: list[str]) -> None:
    """`python -m data build mall size=large workers=2 --folder DIR`."""
    if folder is None:
        raise UserError("build mall: name the folder to write to, with --folder DIR")
    workers, options = take(options, "workers", default=1)
    history, options = take(options, "history", default=20)
    for name, rows in write(mall_of(options), out=folder, workers=workers, history=history).items():
        print(f"{name}: {rows:,}")


def write(
    mall: Mall, *, out: str | Path, shards: Iterable[int] | None = None, workers: int = 1, history: int = 20
) -> dict[str, int]:
    """Writes these shards (all if None) and the catalogue under `out`; returns rows by table.

    `clicks/<split>` holds what `MallClicks` delivers, ready to train on; the other folders hold the log and `truth`.
    """
    out = Path(out)
    settings = {"mall": describe(mall), "history": history}
    _claim(out, settings=settings)
    chosen = list(range(mall.shards)) if shards is None else sorted(set(shards))
    if wrong := [s for s in chosen if not 0 <= s < mall.shards]:
        raise UserError(f"shard {wrong[0]} of {mall.shards}: shards are numbered from 0 to {mall.shards - 1}")
    counts = _write_catalogue(mall, out=out)
    one = partial(write_shard, mall, out=out, history=history)
    if workers <= 1:
        parts = [one(s) for s in chosen]
    else:  # spawn: a fork of a process that runs XLA threads may hang
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(one, chosen))
    for part in parts:
        for name, rows in part.items():
            counts[name] = counts.get(name, 0) + rows
    if shards is None:
        _write_text(out / "manifest.json", json.dumps(settings | {"rows": counts, "shards": mall.shards}, indent=1))
    return counts


def describe(config) -> dict:
    """A config as plain values, for the file that says what a folder holds."""
    values = chz.asdict(config)
    return json.loads(json.dumps(values, default=describe))


def write_shard(mall: Mall, shard: int, *, out: Path, history: int) -> dict[str, int]:
    """All tables of one block of users."""
    shop, ads = shop_of(mall), _campaigns(mall)
    log = simulate(mall, shop=shop, shard=shard)
    counts = {}

    def save(name: str, table: Table) -> None:
        counts[name] = save_table(table, path=out / name / f"part-{shard:05d}.parquet")

    people = users(mall, shop=shop, shard=shard)
    tables = aftermath(mall, shop=shop, ads=ads, log=log, shard=shard)
    save("log/impressions", log.impressions)
    save("log/actions", log.actions)
    user, time, leaf = (log.requests[name] for name in ("user", "time", "query"))
    wished = people.favourite[user - people.id[0]]
    words = queries(mall, leaf=leaf, wished=wished, users=user, times=time)[0]
    save("log/requests", log.requests | {"words": words})
    for name, table in tables.items():
        said = {"review": _said(mall, shop=shop, table=table)} if name == "ratings" else {}
        save(f"log/{name}", table | said)
    save("truth/users", {name: getattr(people, name) for name in people.__dataclass_fields__})
    for split in SPLITS:
        path = out / "clicks" / split / f"part-{shard:05d}.parquet"
        counts[f"clicks/{split}"] = _write_clicks(mall, shop=shop, log=log, split=split, path=path, history=history)
    return counts


def _said(mall: Mall, *, shop: Catalogue, table: Table) -> np.ndarray:
    """Tokens of each review, zeros where nobody wrote one."""
    written = reviews(mall, shop=shop, items=table["item"], users=table["user"], stars=table["stars"])[0]
    return np.where(table["observed"][:, None], written, 0)


@lru_cache(maxsize=1)
def _campaigns(mall: Mall) -> Campaigns:
    return campaigns(mall, shop=shop_of(mall))


def _write_clicks(mall: Mall, *, shop: Catalogue, log: Log, split: Split, path: Path, history: int) -> int:
    """The rows of `MallClicks`, a row group at a time: histories are wide."""
    source = clicks(mall, shop=shop, log=log, split=split, history=history, content=None, content_history=False)

    def blocks() -> Iterable[Table]:
        for start in range(0, len(source), ROWS):
            rows = source.take(np.arange(start, min(start + ROWS, len(source))))
            lengths = {n: rows.pop(f"{n}/length") for n in ("history", "history_category")}
            # Parquet holds raw values: a reader applies the declared transforms itself
            rows["price"] = shop.price[rows["item"] - FIRST]
            rows["item_age"] = item_age(shop, items=rows["item"] - FIRST, time=rows["time"])
            yield rows | {n: ragged(rows[n], lengths=lengths[n]) for n in lengths}

    return save_blocks(blocks(), path=path)


def ragged(padded: np.ndarray, *, lengths: np.ndarray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    inside = np.arange(padded.shape[1])[None, :] < lengths[:, None]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(padded[inside]))


def _write_catalogue(mall: Mall, *, out: Path) -> dict[str, int]:
    shop, ads = shop_of(mall), _campaigns(mall)
    counts = {}

    def listings() -> Iterable[Table]:
        for start in range(0, len(shop), ITEM_BLOCK):
            items = np.arange(start, min(start + ITEM_BLOCK, len(shop)))
            title, title_length = titles(mall, shop=shop, items=items)
            story, story_length = descriptions(mall, shop=shop, items=items)
            stated = attribute_table(mall, shop=shop, items=items)
            yield {
                **item_columns(shop, items),
                "price": shop.price[items],
                "seller": shop.seller[items],
                "arrival": shop.arrival[items],
                **{name: stated[:, j] for j, name in enumerate(ATTRIBUTES)},
                "title": ragged(title, lengths=title_length),
                "description": ragged(story, lengths=story_length),
            }

    counts["items"] = save_blocks(listings(), path=out / "items" / "part-00000.parquet")
    hidden = {n: getattr(shop, n) for n in ("spu", "luck", "weight", "price_level", "successors")}
    products = {n: getattr(shop, n) for n in shop.__dataclass_fields__ if n.startswith("spu_")}
    tree = {n: getattr(shop, n) for n in ("leaf_top", "leaf_mid", "leaf_weight", "leaf_complement")}
    adverts = {n: getattr(ads, n) for n in ads.__dataclass_fields__ if n != "leaf_start"}
    tables = {
        "truth/items": hidden,
        "truth/products": products,
        "truth/categories": tree,
        "log/campaigns": adverts,
        "log/bundles": {"items": bundles(mall, shop=shop)},
    }
    for name, table in tables.items():
        counts[name] = save_table(table, path=out / name / "part-00000.parquet")
    return counts


def save_table(table: Table, *, path: Path) -> int:
    rows = len(next(iter(table.values())))
    starts = range(0, max(rows, 1), ROWS)
    return save_blocks(({name: column[i : i + ROWS] for name, column in table.items()} for i in starts), path=path)


def save_blocks(blocks: Iterable[Table], *, path: Path) -> int:
    """Writes row groups to a file that appears whole or not at all; returns the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(f".{os.getpid()}.partial")
    rows, writer = 0, None
    try:
        for block in blocks:
            table = pa.table({name: _arrow(column) for name, column in block.items()})
            writer = writer or pq.ParquetWriter(partial_path, table.schema, compression="zstd")
            writer.write_table(table)
            rows += len(table)
        if writer is None:
            return 0
    finally:
        if writer is not None:
            writer.close()
    partial_path.replace(path)
    return rows


def _arrow(column: np.ndarray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    if column.ndim == 1:
        return pa.array(np.ascontiguousarray(column))
    inner = pa.array(np.ascontiguousarray(column).reshape(-1))
    width = int(np.prod(column.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(inner, width)


def _claim(out: Path, *, settings: dict) -> None:
    """Refuses a folder that holds another mall, so that shards of two malls never mix."""
    path = out / "mall.json"
    text = json.dumps(settings, indent=1)
    if path.exists() and path.read_text() != text:
        raise UserError(f"{out} holds another mall (see {path.name}); give an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
    partial_path = path.with_suffix(f".{os.getpid()}.partial")
    partial_path.write_text(text)
    partial_path.replace(path)


def digest(folder: str | Path) -> str:
    """One hash over the names and bytes of all Parquet files under a folder."""
    total = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.parquet")):
        total.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
