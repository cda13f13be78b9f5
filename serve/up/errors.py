"""One shape of error for every status: {"error": message, "status": 400, "field": ..., "request_id": ...}.

`error` is a string, as clients of the Open Inference protocol expect it.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from data.errors import UserError
from serve.features.store import StoreDown
from serve.request import Unreadable


class Problem(Exception):
    """Stops a request with a status; the message names what the client can mend."""

    def __init__(self, status: int, message: str, *, field: str | None = None, headers: Mapping[str, str] = {}):
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, dict(headers)


def too_large(message: str) -> Problem:
    return Problem(413, message, headers={"Connection": "close"})


def answer(problem: Problem, *, request_id: str) -> Response:
    body: dict[str, Any] = {"error": problem.message, "status": problem.status, "request_id": request_id}
    if problem.field is not None:
        body["field"] = problem.field
    # A client's own words may hold what UTF-8 cannot; ASCII can say everything.
    raw = json.dumps(body).encode()
    return Response(raw, status_code=problem.status, media_type="application/json", headers=problem.headers)


def as_problem(error: Exception) -> Problem:
    """Every kind of error that a handler may raise."""
    match error:
        case Problem():
            return error
        case StoreDown():
            return Problem(503, str(error))
        case Unreadable():
            return Problem(422, str(error), field=error.field)
        case UserError():
            return Problem(400, str(error))
    status = getattr(error, "status_code", 500)  # of starlette: no such route, no such method
    detail = getattr(error, "detail", None)
    if status == 500:
        return Problem(500, "the server failed; its log has the reason under this request id")
    message = detail if isinstance(detail, str) else HTTPStatus(status).phrase
    return Problem(status, message, headers=getattr(error, "headers", None) or {})


def request_id(request: Request) -> str:
    return str(request.scope.get("adloom.request_id", ""))
