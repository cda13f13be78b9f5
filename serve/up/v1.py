"""Raw users and items in, ranked and found items out; updates of a live index."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from serve.index.live import LiveIndex
from serve.index.where import Where
from serve.request import columns_of
from serve.up import funnels
from serve.up.body import check_keys, parse, read_body, take
from serve.up.describe import operation
from serve.up.errors import Problem
from serve.up.house import House
from serve.up.serving import Serving

BUSY = (429, 503, 504)

SMALLEST_K = 16
"""A search is for a power of two, so that few programs serve every k."""


def routes(house: House) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["Ranking and retrieval"])
    limits = house.config.limits

    async def body(request: Request, *known: str) -> dict[str, Any]:
        found = parse(await read_body(request, limits=limits))
        check_keys(found, known=known)
        return found

    about = operation("Raw candidates, ranked for a raw user", *BUSY, 404, 422, answer="Ranked", body="Rank")

    @router.post("/rank", **about)
    async def rank(request: Request) -> Response:
        serving = house.serving
        if serving.funnel is not None:
            return _json(await funnels.rank(house, serving.funnel, await body(request, *funnels.FIELDS)))
        return _json(await _rank(house, serving, await body(request, "user", "candidates", "k", "by")))

    about = operation("Nearest items", *BUSY, 404, 409, 422, answer="Retrieved", body="Retrieve")

    @router.post("/retrieve", **about)
    async def retrieve(request: Request) -> Response:
        serving = house.serving
        if serving.funnel is not None and serving.index is None:
            return _json(await funnels.retrieve(house, serving.funnel, await body(request, *funnels.FIELDS, "vectors")))
        return _json(await _retrieve(house, serving, await body(request, "vector", "vectors", "user", "k", "where")))

    about = operation("Add or replace items of a live index", *BUSY, 404, 409, answer="Changed", body="Items")

    @router.post("/items", **about)
    async def upsert(request: Request) -> Response:
        asked = await body(request, "ids", "vectors", "attributes", "channel")
        channel = take(asked, "channel", str, default=None)
        ids = _ids(take(asked, "ids", list))
        given, attributes = take(asked, "vectors", list), take(asked, "attributes", dict, default=None)
        vectors = _vectors(given, dim=house.serving.changed(channel).dim, name="vectors")
        house.check_rows(len(vectors), what="vectors")

        def work(index: LiveIndex) -> Any:
            return index.upsert(ids, vectors, attributes=attributes)

        return _json(await change(work, channel=channel, count=len(ids)))

    about = operation("Remove items of a live index", *BUSY, 404, 409, answer="Changed", body="Removed")

    @router.post("/items/delete", **about)
    async def delete(request: Request) -> Response:
        asked = await body(request, "ids", "channel")
        ids, channel = _ids(take(asked, "ids", list)), take(asked, "channel", str, default=None)
        house.check_rows(len(ids), what="ids")
        return _json(await change(lambda index: index.delete(ids), channel=channel, count=len(ids)))

    async def change(work: Callable[[LiveIndex], Any], *, channel: str | None, count: int) -> dict[str, Any]:
        def changed() -> dict[str, Any]:
            with house.holder.updating:
                index = _live(house, channel)
                return {**dataclasses.asdict(work(index)), "items": len(index)}

        _live(house, channel)
        return await house.alone(changed, count=count)

    return router


async def _rank(house: House, serving: Serving, asked: Mapping[str, Any]) -> dict[str, Any]:
    serving.tower()
    user, candidates = take(asked, "user", dict), _columns(take(asked, "candidates", (list, dict)))
    by = take(asked, "by", str, default=None)
    count = max((len(values) for values in candidates.values()), default=0)
    if not count:
        raise Problem(400, "candidates is empty: there is nothing to rank", field="candidates")
    house.check_rows(count, what="candidates")
    k = _k(asked, most=None, default=count)
    done = await house.alone(lambda: serving.rank(user, candidates, by=by), count=count)
    answer = {"versions": serving.versions, "scores": done.scores, "order": done.order[:k]}
    return answer | ({"rejects": done.rejects} if done.rejects else {}) | ({"notes": done.notes} if done.notes else {})


async def _retrieve(house: House, serving: Serving, asked: Mapping[str, Any]) -> dict[str, Any]:
    index = serving.searched()
    k = _k(asked, most=house.config.limits.k, default=10)
    where = Where.parse(take(asked, "where", dict)) if asked.get("where") is not None else None
    ways = [name for name in ("vector", "vectors", "user") if name in asked]
    if len(ways) != 1:
        raise Problem(
            400, f"give one of vector, vectors and user; {' and '.join(ways) or 'none'} came", field="vectors"
        )
    vectors: np.ndarray | None = None
    if ways[0] != "user":
        given = take(asked, ways[0], list)
        vectors = _vectors(given if ways[0] == "vectors" else [given], dim=index.dim, name=ways[0])
        house.check_rows(len(vectors), what="vectors")
    user = take(asked, "user", dict, default=None)

    def search() -> Any:
        queries = serving.query(user) if vectors is None else vectors
        return serving.search(queries, k=max(SMALLEST_K, 1 << (k - 1).bit_length()), where=where)

    ids, scores = await house.alone(search, count=1 if vectors is None else len(vectors))
    return {"versions": serving.versions, "ids": [i[:k] for i in ids], "scores": [s[:k] for s in scores]}


def _columns(candidates: Sequence[Any] | Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
    if isinstance(candidates, Mapping):
        for name, values in candidates.items():
            if not isinstance(values, list):
                raise Problem(400, f"candidates.{name} is not an array; give a value a candidate", field="candidates")
        return candidates
    for at, row in enumerate(candidates):
        if not isinstance(row, dict):
            raise Problem(400, f"candidates[{at}] is not an object of fields", field=f"candidates[{at}]")
    return columns_of(candidates)


def _k(asked: Mapping[str, Any], *, most: int | None, default: int) -> int:
    k = take(asked, "k", int, default=default)
    if k < 1 or (most is not None and k > most):
        raise Problem(400, f"k is {k}; choose it from 1{'' if most is None else f' to {most}'}", field="k")
    return k


def _vectors(given: list[Any], *, dim: int, name: str) -> np.ndarray:
    try:
        array = np.asarray(given)
    except (ValueError, OverflowError) as error:
        raise Problem(400, f"{name}: not all vectors have {dim} numbers", field=name) from error
    if array.dtype.kind not in "iuf" or array.ndim != 2 or array.shape[1] != dim:
        raise Problem(400, f"{name} has shape {list(array.shape)}, the index takes rows of {dim} numbers", field=name)
    with np.errstate(over="ignore"):  # what becomes infinite is refused by name
        array = array.astype(np.float32)
    faulty = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(faulty):
        raise Problem(400, f"{name}[{faulty[0]}] holds NaN or infinity", field=f"{name}[{faulty[0]}]")
    return array


def _ids(given: list[Any]) -> np.ndarray:
    kinds = set(map(type, given))
    if kinds not in ({int}, {str}):
        raise Problem(400, "ids are whole numbers or strings, all of one kind, and at least one", field="ids")
    if kinds == {int} and not all(-(1 << 63) <= i < 1 << 63 for i in given):
        raise Problem(400, "an id does not fit into 64 bits; give such ids as strings", field="ids")
    return np.asarray(given)


def _live(house: House, channel: str | None) -> LiveIndex:
    index = house.serving.changed(channel)
    if not isinstance(index, LiveIndex):
        raise Problem(409, "the index cannot be changed; python -m serve index --engine live builds one that can")
    if house.config.read_only:
        raise Problem(409, "this server takes no updates; start it without --read-only")
    return index


def _json(value: Any) -> Response:
    return Response(json.dumps(value, allow_nan=False, separators=(",", ":")), media_type="application/json")
