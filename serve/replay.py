"""What a funnel is worth on the mall, whose true click chances are known, and where it loses.

Each request is answered twice, by the funnel and by its ranker over every listing that was there, with the same rules
after it. An organic page (no auction) is judged by NDCG@k with the true relevance as gain, a page of advertisements by
its revenue: price of a click times the true chance of one in that place. A share is the funnel over the other.

`found/...` says where the listings of the other page were lost: in the channels, at the limit of the merged list, or
later. `best/...` says the same of the k truly best listings, which no ranker knows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.errors import UserError
from data.features import FIRST
from data.mall.config import Mall
from data.mall.exposure import click_probability
from data.mall.serving import MallListings, MallRequests, asked, worth
from data.mall.sources import Split
from data.manifest import write_json
from serve.funnel import Answer, Funnel, Request
from serve.progress import Rows, Say
from train.report_page import page, table, tiles

REPORT = "replay.json"


@dataclass
class Found:
    """Figures by name, and for the report the reasons why listings of the other page are not on the funnel's."""

    figures: dict[str, Any]
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)


def replay(
    funnel: Funnel,
    *,
    mall: Mall,
    split: Split = "test",
    history: int = 50,
    most: int | None = 300,
    say: Say | None = None,
) -> Found:
    """Figures of at most `most` requests, evenly spread over the users."""
    rows = asked(mall, split=split, most=most)
    if not len(rows):
        raise UserError(f"the mall has no requests in its {split} period")
    table = MallRequests(mall=mall, split=split, history=history, most=most).make()
    fields = [name for name in table.column_names if name in funnel.fields]
    users = table.select(fields).to_pylist()
    listings = MallListings(mall=mall).make()
    judge = _Judge(funnel, mall=mall, listings=listings)
    funnel.warm()
    with Rows("replaying requests", total=len(rows), say=say) as progress:
        for part, true in worth(mall, rows=rows):
            for at in range(part.start, part.stop):
                judge.see(users[at], now=int(rows.time[at]), true=true[at - part.start])
            progress.advance(part.stop - part.start)
    return judge.found()


class _Judge:
    def __init__(self, funnel: Funnel, *, mall: Mall, listings: pa.Table):
        self._funnel, self._mall = funnel, mall
        self._k = funnel.config.k
        self._start, self._end = (_seconds(listings, name) for name in ("ad_start", "ad_end"))
        self._rules = funnel.config.decide.rules()
        self._ndcg: list[tuple[float, float, float]] = []
        self._revenue: list[tuple[float, float]] = []
        self._lost: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()
        self._clocks: list[Mapping[str, float]] = []

    def see(self, user: Mapping[str, Any], *, now: int, true: np.ndarray) -> None:
        """One request; `true` is the relevance of every listing, NaN of those that are not there yet."""
        there = FIRST + np.flatnonzero(~np.isnan(true))
        skip = frozenset(self._rules) & {"auction"}
        arrived = {"arrival": {"max": now}}
        mine = self._funnel.answer(Request(user, where=arrived, skip=skip, explain=True))
        all_ = self._funnel.answer(Request(user, candidates=there.tolist(), skip=skip))
        gains = [_gains(answer, true=true) for answer in (mine, all_)]
        best = np.sort(true[there - FIRST])[::-1][: self._k]
        ideal = _dcg(best)
        self._ndcg.append((_dcg(gains[0]) / ideal, _dcg(gains[1]) / ideal, len(mine.items)))
        self._clocks.append(mine.seconds)
        self._trace(mine, wanted=[ranked.id for ranked in all_.items], name="found")
        order = np.argsort(-np.nan_to_num(true, nan=-1.0), kind="stable")
        self._trace(mine, wanted=(FIRST + order[: self._k]).tolist(), name="best")
        if "auction" in self._rules:
            running = {**arrived, "ad_start": {"max": now}, "ad_end": {"min": now + 1}}
            ads = there[((self._start <= now) & (now < self._end))[there - FIRST]]
            pages = (Request(user, where=running), Request(user, candidates=ads.tolist()))
            self._revenue.append(tuple(self._worth(self._funnel.answer(p), true=true) for p in pages))  # type: ignore[arg-type]

    def _worth(self, answer: Answer, *, true: np.ndarray) -> float:
        relevance = np.array(_gains(answer, true=true))
        chance = click_probability(self._mall.exposure, relevance=relevance, slots=np.arange(len(relevance)))
        return float(sum(ranked.scores["price"] * p for ranked, p in zip(answer.items, chance, strict=True)))

    def _trace(self, answer: Answer, *, wanted: Sequence[Any], name: str) -> None:
        """How far each of the wanted listings came, by channel and by stage."""
        held = {ranked.id: ranked for ranked in (*answer.items, *answer.dropped)}
        self._wanted[name] += len(wanted)
        for id in wanted:
            ranked = held.get(id)
            if ranked is None:
                self._reason(name, "retrieve: no channel found it")
                continue
            for channel in ranked.sources:
                self._lost[f"{name}/{channel}"] += 1
            self._lost[f"{name}/retrieved"] += 1
            self._lost[f"{name}/ranked"] += not (ranked.why or "").startswith("retrieve")
            self._lost[f"{name}/page"] += ranked.why is None
            if ranked.why is not None:
                self._reason(name, ranked.why)

    def _reason(self, name: str, why: str) -> None:
        if name == "found":
            self._reasons[why] += 1

    def found(self) -> Found:
        ndcg = np.array(self._ndcg)
        k = self._k
        mine, all_ = float(ndcg[:, 0].mean()), float(ndcg[:, 1].mean())
        figures: dict[str, Any] = {
            "requests": len(ndcg),
            "items": float(ndcg[:, 2].mean()),
            f"ndcg@{k}": mine,
            f"ndcg@{k}/all": all_,
            f"ndcg@{k}/share": mine / all_,
        }
        if self._revenue:
            money = np.array(self._revenue).mean(axis=0)
            figures |= {"revenue": float(money[0]), "revenue/all": float(money[1])}
            figures["revenue/share"] = float(money[0] / money[1]) if money[1] else float("nan")
        for name, wanted in self._wanted.items():
            figures |= {f"{name}/{step}": self._lost[f"{name}/{step}"] / wanted for step in steps(self._funnel)}
        stages = sorted({stage for clock in self._clocks for stage in clock})
        spent = {s: np.array([clock.get(s, 0.0) for clock in self._clocks]) for s in stages}
        seconds = {s: {"p50": float(np.median(v)), "p99": float(np.quantile(v, 0.99))} for s, v in spent.items()}
        return Found(figures, dict(self._reasons.most_common()), seconds)


def write_report(found: Found, *, out: Path, funnel: Funnel) -> None:
    """replay.json, and replay.html for people."""
    write_json(out / REPORT, {"figures": found.figures, "reasons": found.reasons, "seconds": found.seconds})
    f, k = found.figures, funnel.config.k
    shares = [("NDCG of the ranker over all listings", f"{f[f'ndcg@{k}/share']:.2%}")]
    if "revenue/share" in f:
        shares.append(("revenue of the same auction over all", f"{f['revenue/share']:.2%}"))
    lost = [[s, f"{f[f'found/{s}']:.1%}", f"{f[f'best/{s}']:.1%}"] for s in steps(funnel)]
    total = sum(found.reasons.values())
    reasons = [[why, f"{count:,}", f"{count / total:.1%}"] for why, count in found.reasons.items()]
    clock = [[s, f"{1e3 * v['p50']:.1f}", f"{1e3 * v['p99']:.1f}"] for s, v in found.seconds.items()]
    plain = [[name, f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"] for name, value in f.items()]
    body = (
        tiles(shares)
        + f"<h2>How far they come</h2>{table(['', f'page over all ({k})', f'truly best ({k})'], lost)}"
        + f"<h2>Why listings of the page over all are not on the funnel's</h2>{table(['', 'count', 'share'], reasons)}"
        + f"<h2>Milliseconds by stage</h2>{table(['', 'p50', 'p99'], clock)}"
        + f"<h2>All figures</h2>{table(['', ''], plain)}"
    )
    title = f"A funnel of {', '.join(funnel.channels)}"
    subtitle = f"{f['requests']:,} requests; funnel {funnel.versions['funnel']}"
    (out / "replay.html").write_text(page(title=title, subtitle=subtitle, body=body))


def steps(funnel: Funnel) -> list[str]:
    """How far a listing can come."""
    return [*funnel.channels, "retrieved", "ranked", "page"]


def _gains(answer: Answer, *, true: np.ndarray) -> list[float]:
    return [float(true[ranked.id - FIRST]) for ranked in answer.items]  # type: ignore[operator]


def _dcg(gains: Sequence[float] | np.ndarray) -> float:
    gains = np.asarray(gains, np.float64)
    return float((gains / np.log2(2 + np.arange(len(gains)))).sum())


def _seconds(listings: pa.Table, name: str) -> np.ndarray:
    """NaN where a listing is not advertised: then no comparison holds."""
    return listings[name].cast(pa.float64()).to_numpy()
