"""The ASGI application of a server: routes, errors in one shape, and the gate around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from data.errors import UserError
from serve.up import home, ops, v1, v2
from serve.up.config import Up
from serve.up.describe import API
from serve.up.errors import Problem, answer, as_problem, request_id
from serve.up.gate import Gate
from serve.up.house import House

ABOUT = (
    "Ranks candidates, finds items and scores encoded rows by what adloom trained, exported and indexed. Errors of "
    "every status have one shape; the message names the field."
)


def make_app(config: Up) -> FastAPI:
    """Opens what `config` names, warms it and returns the application; `app.state.house` is what stands behind it."""
    house = House(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        house.close()

    app = FastAPI(
        title="adloom",
        version=API,
        description=ABOUT,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.house = house
    app.include_router(v1.routes(house))
    app.include_router(v2.routes(house))
    app.include_router(ops.routes(house, app=app))
    app.include_router(home.routes(house))

    async def failed(request: Request, error: Exception) -> Response:
        return answer(as_problem(error), request_id=request_id(request))

    for kind in (Problem, UserError, HTTPException, Exception):
        app.add_exception_handler(kind, failed)
    app.add_middleware(Gate, metrics=house.metrics, token=config.token, draining=lambda: house.draining)
    return app
