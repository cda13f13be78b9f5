"""For those who run the server: health, readiness, metrics, a newer version now, and the page that describes all."""

import asyncio

from fastapi import APIRouter, FastAPI
from starlette.responses import JSONResponse, Response

from data.errors import UserError
from serve.up import page
from serve.up.describe import document, operation
from serve.up.errors import Problem
from serve.up.house import House
from serve.up.metrics import TEXT


def routes(house: House, *, app: FastAPI) -> APIRouter:
    router = APIRouter(tags=["Running"])

    @router.get("/health", **operation("Whether the process lives", answer="Live"))
    async def health() -> Response:
        return JSONResponse({"live": True})

    @router.get("/ready", **operation("Whether requests are welcome", 503, answer="Ready"))
    async def ready() -> Response:
        house.check_ready()
        return JSONResponse({"ready": True})

    @router.get("/metrics", **operation("For Prometheus", answer="Text", kinds=("text/plain",)))
    async def metrics() -> Response:
        return Response(house.metrics.text(), headers={"Content-Type": TEXT})

    @router.post("/v1/reload", **operation("Look for a newer version now", 403, 409, answer="Swapped"))
    async def reload() -> Response:
        if house.config.token is None:
            raise Problem(403, "start the server with --token-file, so that not everyone can do this")
        try:
            done = await asyncio.to_thread(house.holder.reload)
        except UserError as error:
            raise Problem(409, f"refused, the old one serves on: {error}") from error
        return JSONResponse(done)

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(document(app, token=house.config.token is not None))

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        html = page.render(document(app, token=house.config.token is not None))
        return Response(html, headers={"Content-Type": "text/html; charset=utf-8", **page.SAFE})

    return router
