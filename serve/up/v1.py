"""Raw users and items in, ranked and found items out; updates of a live index."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from serve.index.where import Where
from serve.request import columns_of
from serve.up.body import check_keys, parse, read_body, take
from serve.up.describe import operation
from serve.up.errors import Problem
from serve.up.house import House
from serve.up.serving import Serving

SMALLEST_K = 16
"""A search is for a power of two, so that few programs serve every k."""


def routes(house: House) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["Ranking and retrieval"])
    limits = house.config.limits

    async def body(request: Request, *known: str) -> dict[str, Any]:
        found = parse(await read_body(request, limits=limits))
        check_keys(found, known=known)
        return found

    @router.post(
        "/rank", **operation("Raw candidates, ranked for a raw user", *BUSY, 404, 422, answer="Ranked", body="Rank")
    )
    async def rank(request: Request) -> Response:
        asked = await body(request, "user", "candidates", "k", "by", "where", "skip", "explain")
        serving = house.serving
        return _json(await (_rank if serving.funnel is None else _funnel_rank)(house, serving, asked))

    @router.post("/retrieve", **operation("Nearest items", *BUSY, 404, 409, 422, answer="Retrieved", body="Retrieve"))
    async def retrieve(request: Request) -> Response:
        asked = await body(request, "vector", "vectors", "user", "k", "where")
        serving = house.serving
        through = serving.funnel is not None and "user" in asked and serving.index is None
        return _json(await (_funnel_retrieve if through else _retrieve)(house, serving, asked))

    @router.post(
        "/items", **operation("Add or replace items of a live index", *BUSY, 404, 409, answer="Changed", body="Items")
    )
    async def upsert(request: Request) -> Response:
        asked = await body(request, "ids", "vectors", "attributes")
        index = _live(house.serving)
        ids = _ids(take(asked, "ids", list))
        vectors = _vectors(take(asked, "vectors", list), dim=index.dim, name="vectors")
        house.check_rows(len(vectors), what="vectors")
        attributes = take(asked, "attributes", dict, default=None)
        await house.alone(lambda: index.upsert(ids, vectors, attributes=attributes), count=len(vectors))
        return _json({"items": len(index)})

    @router.post(
        "/items/delete", **operation("Remove items of a live index", *BUSY, 404, 409, answer="Changed", body="Removed")
    )
    async def delete(request: Request) -> Response:
        asked = await body(request, "ids")
        index = _live(house.serving)
        ids = _ids(take(asked, "ids", list))
        house.check_rows(len(ids), what="ids")
        before = len(index)
        removed = await house.alone(lambda: index.delete(ids), count=len(ids))
        return _json({"items": len(index), "removed": before - len(index) if removed is None else int(removed)})

    return router


BUSY = (429, 503, 504)


async def _rank(house: House, serving: Serving, asked: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("where", "skip", "explain"):
        if name in asked:
            raise Problem(400, f"{name!r} is of a funnel, and a single model is served here", field=name)
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
    k = take(dict(asked), "k", int, default=default)
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


def _live(serving: Serving) -> Any:
    index = serving.searched()
    if not hasattr(index, "upsert"):
        raise Problem(409, "the index cannot be changed; python -m serve index --engine live builds one that can")
    return index


def _json(value: Any) -> Response:
    return Response(json.dumps(value, allow_nan=False, separators=(",", ":")), media_type="application/json")
