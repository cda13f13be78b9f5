"""Catalogue and log of a mall, built once per process and config."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.errors import UserError
from data.mall.ads import Campaigns, auctions, campaigns
from data.mall.commerce import conversions, purchases, ratings, treatments
from data.mall.config import Mall
from data.mall.events import Log, Table, join, simulate
from data.mall.latents import Catalogue, catalogue
from data.mall.users import users

IN_MEMORY = 20_000_000


@dataclass(frozen=True)
class Built:
    mall: Mall
    shop: Catalogue
    log: Log


@lru_cache(maxsize=4)
def shop_of(mall: Mall) -> Catalogue:
    return catalogue(mall)


@lru_cache(maxsize=2)
def build(mall: Mall) -> Built:
    size = mall.dims
    rows = mall.n_users * size.sessions * size.requests * size.slate
    if rows > IN_MEMORY:
        raise UserError(
            f"a mall of {rows:,} impressions does not fit in memory: write it with "
            f"`python -m data build mall size={mall.size} --folder DIR` and read it as Parquet, or lower users="
        )
    shop = shop_of(mall)
    # numpy lets go of the interpreter, and shards know nothing of each other
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda s: simulate(mall, shop=shop, shard=s), range(mall.shards)))
    log = Log(
        requests=join([p.requests for p in parts]),
        impressions=join([p.impressions for p in parts]),
        actions=join([p.actions for p in parts]),
    )
    return Built(mall, shop, log)


def aftermath(mall: Mall, *, shop: Catalogue, ads: Campaigns, log: Log, shard: int) -> dict[str, Table]:
    """The tables of one shard that follow from its log of requests and impressions."""
    people = users(mall, shop=shop, shard=shard)
    clicks = conversions(mall, shop=shop, people=people, log=log, shard=shard)
    bought = purchases(mall, shop=shop, clicks=clicks, shard=shard)
    return {
        "conversions": clicks,
        "purchases": bought,
        "ratings": ratings(mall, shop=shop, people=people, bought=bought, shard=shard),
        "treatments": treatments(mall, people=people, shard=shard),
        "auctions": auctions(mall, shop=shop, ads=ads, people=people, log=log, shard=shard),
    }


@lru_cache(maxsize=2)
def after(mall: Mall) -> dict[str, Table]:
    """Conversions, purchases, ratings, treatments and auctions of the whole mall."""
    built = build(mall)
    ads = campaigns(mall, shop=built.shop)
    parts = [aftermath(mall, shop=built.shop, ads=ads, log=shard_of(built, s), shard=s) for s in range(mall.shards)]
    return {name: join([part[name] for part in parts]) for name in parts[0]}


def shard_of(built: Built, shard: int) -> Log:
    """The rows of one shard, out of the joined log."""
    block = built.mall.dims.user_block

    def cut(table: Table) -> Table:
        lo, hi = np.searchsorted(table["user"], [shard * block, (shard + 1) * block])
        return {name: column[lo:hi] for name, column in table.items()}

    return Log(requests=cut(built.log.requests), impressions=cut(built.log.impressions), actions=cut(built.log.actions))


def pointers(actions: Table, *, user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and end in `actions` of each (user, time)'s past: rows of that user strictly before that time."""
    span = np.int64(1) << 32
    key = actions["user"].astype(np.int64) * span + actions["time"]
    start = np.searchsorted(actions["user"], user, side="left")
    return start, np.searchsorted(key, user.astype(np.int64) * span + time, side="left")


def sliding(values: np.ndarray, *, length: int) -> np.ndarray:
    """A view [n + 1, length] whose row i is values[i : i + length], zeros beyond the end."""
    return np.lib.stride_tricks.sliding_window_view(np.concatenate([values, np.zeros(length, values.dtype)]), length)


def windows(rows: np.ndarray, *, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The newest of values[start:end], oldest first and padded with 0 at the end; and how many they are.

    `rows` is `sliding(values)`: copying a row is many times faster than gathering its places one by one.
    """
    length = rows.shape[1]
    count = np.minimum(end - start, length)
    out = rows[end - count]
    out *= np.arange(length) < count[:, None]
    return out, count.astype(np.int32)


def spans(
    user: np.ndarray, time: np.ndarray, *, mall: Mall, split: str, by_time: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People with a history of two and more, where it starts, and where it ends. Rows are by user and time.

    In valid and test the row at its end is what is sought.
    """
    bounds = np.searchsorted(user, np.arange(mall.n_users + 1))
    if by_time:
        first, last = mall.period(split)
        before = time < (last if split == "train" else first)
        end = bounds[:-1] + np.bincount(user[before], minlength=mall.n_users)
    else:
        end = bounds[1:] - {"train": 2, "valid": 2, "test": 1}[split]
    keep = end - bounds[:-1] >= 2
    if split != "train" and by_time:
        keep &= end < bounds[1:]
        keep[keep] = time[end[keep]] < last
    return np.flatnonzero(keep), bounds[:-1][keep], end[keep]
