"""What the OpenAPI document says: bodies are read by hand for speed, so their shapes are said here."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

API = "1.0"
"""Of what is said over HTTP; raised where a client must change."""

REASONS = {
    400: "not JSON, or a field that is missing, unknown, of a wrong type or shape, or not finite; `field` names it",
    401: "the token is missing or wrong",
    403: "the server was started without a token, which this needs",
    404: "no such model, version, index or path",
    408: "the body did not arrive in time",
    409: "what is served cannot do this; the message says what could",
    413: "the body or the number of its rows is above the limit",
    422: "values that cannot be encoded or scored",
    429: "too many requests wait; Retry-After says when to come back",
    503: "the server is stopping, or a feature store cannot be reached",
    504: "no answer in time",
}


def operation(
    summary: str, *statuses: int, answer: str, body: str | None = None, kinds: tuple[str, ...] = ("application/json",)
) -> dict[str, Any]:
    """Keywords of a route; `answer` and `body` name a schema below, `kinds` are the media types of an answer."""
    answers: dict[int | str, Any] = {200: {"description": "done", "content": {k: _content(k, answer) for k in kinds}}}
    for status in sorted({401, *statuses, *((400, 408, 413) if body else ())}):
        answers[status] = {"description": REASONS[status], "content": {"application/json": {"schema": ref("Error")}}}
    extra: dict[str, Any] = {}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(body)}}}
    return {"summary": summary, "responses": answers, "openapi_extra": extra}


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def document(app: FastAPI, *, token: bool) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        found.setdefault("components", {}).setdefault("schemas", {}).update(SCHEMAS)
        for path, operations in found["paths"].items():
            named = re.findall(r"{(\w+)}", path)
            for one in operations.values():
                if named:
                    one["parameters"] = [
                        {"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in named
                    ]
                if path.endswith("/infer"):
                    one.setdefault("parameters", []).append(_BINARY_HEADER)
        if token:
            found["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"bearer": []}]
        app.openapi_schema = found
    return app.openapi_schema


def _content(kind: str, answer: str) -> dict[str, Any]:
    plain = {"type": "string"} if kind.startswith("text/") else {"type": "string", "format": "binary"}
    return {"schema": ref(answer) if kind == "application/json" else plain}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any], **bounds: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **bounds}


TEXT, WHOLE, TRUTH = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
ANY: dict[str, Any] = {}
ANYTHING = {"type": "object"}
SHAPE = _list({"type": "integer", "minimum": -1})
VECTOR = _list({"type": "number"}, minItems=1)
ID = {"anyOf": [WHOLE, TEXT]}
WHERE = {
    "type": "object",
    "description": 'conditions on attributes: {"category": ["shoes"], "price": {"min": 5, "max": 20}, "active": true}',
}
USER = {"type": "object", "description": "raw fields of the user and the context, by name; null where not known"}
CANDIDATES = {
    "description": "raw fields of the items: objects, or one object of columns, which is read faster; of a funnel: ids",
    "anyOf": [_list({"anyOf": [ANYTHING, ID]}, minItems=1), {"type": "object", "additionalProperties": _list(ANY)}],
}
SEARCH = {
    "text": {**TEXT, "description": "of a funnel: words to search by"},
    "picture": {**TEXT, "description": "of a funnel: a picture to search by, the bytes of its file as base64"},
    "display": {**TRUTH, "description": "of a funnel: also title and columns that people are shown"},
}
CHANNEL = {**TEXT, "description": "of a funnel: whose index it is; not needed where one index can be changed"}
TENSOR_PARAMETERS = {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}}

_BINARY_HEADER = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 0},
    "description": "length of the JSON part, where binary tensors follow it",
}

SCHEMAS: dict[str, Any] = {
    "Error": _object("error status request_id", error=TEXT, status=WHOLE, request_id=TEXT, field=TEXT),
    "Live": _object("live", live=TRUTH),
    "Ready": _object("ready", ready=TRUTH),
    "ServerMetadata": _object("name version extensions", name=TEXT, version=TEXT, extensions=_list(TEXT)),
    "ModelReady": _object("name ready", name=TEXT, ready=TRUTH),
    "TensorMetadata": _object("name datatype shape", name=TEXT, datatype=TEXT, shape=SHAPE),
    "ModelMetadata": _object(
        "name versions platform inputs outputs",
        name=TEXT,
        versions=_list(TEXT),
        platform=TEXT,
        inputs=_list(ref("TensorMetadata")),
        outputs=_list(ref("TensorMetadata")),
        parameters=ANYTHING,
    ),
    "Tensor": _object(
        "name shape datatype",
        name=TEXT,
        shape=_list({"type": "integer", "minimum": 0}),
        datatype=TEXT,
        data=_list(ANY),
        parameters=TENSOR_PARAMETERS,
    ),
    "Infer": _object(
        "inputs",
        id=TEXT,
        inputs=_list(ref("Tensor"), minItems=1),
        outputs=_list(_object("name", name=TEXT, parameters=ANYTHING)),
        parameters={
            "type": "object",
            "properties": {
                "binary_data_output": TRUTH,
                "request": {"type": "boolean", "description": "inputs of the user have one row for all candidates"},
            },
        },
    ),
    "Inferred": _object(
        "model_name model_version outputs", model_name=TEXT, model_version=TEXT, id=TEXT, outputs=_list(ref("Tensor"))
    ),
    "Rank": _object(
        "",
        user=USER,
        candidates=CANDIDATES,
        k={"type": "integer", "minimum": 1, "description": "how many of the best to order; default: all, or a page"},
        by={"type": "string", "description": "of a model: output to order by; default: score"},
        item={**ID, "description": "of a funnel: what the user looks at"},
        vector={**VECTOR, "description": "of a funnel: in place of the user's"},
        where={**WHERE, "description": f"of a funnel: {WHERE['description']}"},
        skip=_list(TEXT, description="of a funnel: channels and stages to leave out"),
        shown={"type": "object", "description": "of a funnel: by column, how often the user has seen each value"},
        bids={
            "description": "of a funnel: bids by item, an object or an array of [id, bid]",
            "anyOf": [ANYTHING, _list(ANY)],
        },
        explain={"type": "boolean", "description": "of a funnel: also what was dropped, and why"},
        **SEARCH,
    ),
    "Ranked": {"type": "object", "properties": {"versions": ANYTHING}, "required": ["versions"]},
    "Retrieve": _object(
        "",
        vector=VECTOR,
        vectors=_list(VECTOR, minItems=1),
        user=USER,
        item={**ID, "description": "of a funnel: what the user looks at"},
        skip=_list(TEXT, description="of a funnel: channels to leave out"),
        k={"type": "integer", "minimum": 1, "default": 10},
        where=WHERE,
        **SEARCH,
    ),
    "Retrieved": {"type": "object", "properties": {"versions": ANYTHING}, "required": ["versions"]},
    "Items": _object(
        "ids vectors",
        ids=_list(ID, minItems=1),
        vectors=_list(VECTOR, minItems=1),
        attributes={"type": "object", "additionalProperties": _list(ANY)},
        channel=CHANNEL,
    ),
    "Removed": _object("ids", ids=_list(ID, minItems=1), channel=CHANNEL),
    "Served": _object("name versions funnel", name=TEXT, versions=ANYTHING, funnel={"type": ["object", "null"]}),
    "Changed": {"type": "object", "properties": {"items": WHOLE}, "required": ["items"]},
    "Swapped": _object("swapped versions", swapped=TRUTH, versions=ANYTHING),
    "Text": TEXT,
}
