"""Requests to a funnel, from JSON to a page and back."""

import asyncio
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from serve.channels import ContentChannel
from serve.funnel import Funnel, Ranked, Request
from serve.index.where import Where
from serve.request import from_base64
from serve.up.body import take
from serve.up.errors import Problem
from serve.up.house import House

FIELDS = (
    "user",
    "item",
    "vector",
    "text",
    "picture",
    "candidates",
    "k",
    "where",
    "skip",
    "shown",
    "bids",
    "explain",
    "display",
)


async def rank(house: House, funnel: Funnel, asked: Mapping[str, Any]) -> dict[str, Any]:
    request, display = read(house, asked), take(asked, "display", bool, default=False)
    count = len(request.candidates) if request.candidates is not None else funnel.config.merge.limit
    answer = await house.alone(lambda: funnel.answer(request), count=count)
    page = {"versions": answer.versions, "items": [_ranked(item) for item in answer.items], "seconds": answer.seconds}
    if request.explain:
        page["dropped"] = [_ranked(item) for item in answer.dropped]
    if display:
        await _display(funnel, [*page["items"], *page.get("dropped", ())])
    return page


async def _display(funnel: Funnel, lines: list[dict[str, Any]]) -> None:
    """Adds what people are shown; a store may be another machine, for which the others need not wait."""
    if lines:
        shown = await asyncio.to_thread(funnel.showcase.of, [line["id"] for line in lines])
        for line, one in zip(lines, shown, strict=True):
            line["display"] = one


def about(funnel: Funnel) -> dict[str, Any]:
    """What a page needs to know to ask."""
    config, showcase = funnel.config, funnel.showcase
    return {
        "channels": list(config.channels),
        "stages": [name for name in config.stages() if name not in config.channels],
        "searches": {
            name: sorted(channel.reads)
            for name, channel in funnel.channels.items()
            if isinstance(channel, ContentChannel)
        },
        "fields": sorted(funnel.fields),
        "k": config.k,
        "filters": showcase.filters(),
        "examples": showcase.examples,
    }


async def retrieve(house: House, funnel: Funnel, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Candidates with their sources: what `rank` would go on with."""
    if "vectors" in asked:
        raise Problem(400, "a funnel retrieves for one user; give vector or user", field="vectors")
    request, display = read(house, asked), take(asked, "display", bool, default=False)
    found = await house.alone(lambda: funnel.retrieve(request), count=1)
    items = [_ranked(item) for item in found[: request.k]]
    if display:
        await _display(funnel, items)
    return {"versions": funnel.versions, "items": items}


def read(house: House, asked: Mapping[str, Any]) -> Request:
    limits = house.config.limits
    k = take(asked, "k", int, default=None)
    if k is not None and not 1 <= k <= limits.k:
        raise Problem(400, f"k is {k}; choose it from 1 to {limits.k}", field="k")
    candidates = take(asked, "candidates", list, default=None)
    if candidates is not None:
        house.check_rows(len(candidates), what="candidates")
        if not candidates:
            raise Problem(400, "candidates is empty: there is nothing to rank", field="candidates")
        _one_kind(candidates, field="candidates")
    where = take(asked, "where", dict, default=None)
    skip = take(asked, "skip", list, default=[])
    if not all(isinstance(name, str) for name in skip):
        raise Problem(400, "skip is an array of names of stages", field="skip")
    shown = {
        column: dict(_pairs(counts, field=f"shown.{column}"))
        for column, counts in take(asked, "shown", dict, default={}).items()
    }
    return Request(
        user=take(asked, "user", dict, default={}),
        item=take(asked, "item", (int, str), default=None),
        vector=_vector(take(asked, "vector", list, default=None)),
        text=take(asked, "text", str, default=None),
        picture=None if asked.get("picture") is None else from_base64(asked["picture"], label="picture"),
        candidates=candidates,
        k=k,
        where=None if where is None else Where.parse(where),
        skip=frozenset(skip),
        shown=shown,
        bids=dict(_pairs(asked.get("bids") or {}, field="bids")),
        explain=take(asked, "explain", bool, default=False),
    )


def _vector(values: list[Any] | None) -> list[Any] | None:
    plain = values is None or all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not plain or not all(math.isfinite(v) for v in values or ()):
        raise Problem(400, "vector is an array of finite numbers", field="vector")
    return values


def _pairs(given: Any, *, field: str) -> list[tuple[Any, float]]:
    """An object, or where the names are numbers, which JSON does not have as names, an array of pairs."""
    pairs = list(given.items()) if isinstance(given, dict) else given
    if not isinstance(pairs, list) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise Problem(400, f"{field} is an object of numbers, or an array of [name, number]", field=field)
    for name, number in pairs:
        named = isinstance(name, int | str) and not isinstance(name, bool)
        if not named or isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise Problem(400, f"{field} holds {[name, number]!r}, expected [name, finite number]", field=field)
    return [(name, number) for name, number in pairs]


def _one_kind(ids: list[Any], *, field: str) -> None:
    if set(map(type, ids)) not in ({int}, {str}):
        raise Problem(400, f"{field} are ids: whole numbers or strings, all of one kind", field=field)


def _ranked(ranked: Ranked) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": ranked.id, "scores": ranked.scores}
    shown["sources"] = {name: dataclasses.asdict(source) for name, source in ranked.sources.items()}
    return shown if ranked.why is None else {**shown, "why": ranked.why}
