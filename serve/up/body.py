"""Bodies, read as they come: never more than the limit is held, and a client that stalls is let go."""

import asyncio
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import pydantic_core
from starlette.requests import ClientDisconnect, Request

from serve.up.config import Limits
from serve.up.errors import Problem, too_large


async def read_body(request: Request, *, limits: Limits) -> bytes:
    most = limits.body_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise too_large(f"the body has {int(announced):,} bytes, at most {most:,} are read; send fewer rows a request")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large(f"the body has more than {most:,} bytes; send fewer rows a request")
                parts.append(part)
    except TimeoutError as error:
        reason = f"the body did not arrive within {limits.body_seconds:g} s"
        raise Problem(408, reason, headers={"Connection": "close"}) from error
    except ClientDisconnect as error:
        raise Problem(400, "the client went away before its body was whole") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parse(raw: bytes) -> dict[str, Any]:
    """A JSON object. NaN passes, so that the answer can name the field that holds it."""
    try:
        value = pydantic_core.from_json(raw, allow_inf_nan=True)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Problem(400, f"the body is a JSON {_kind(value)}, an object was expected")
    return value


def check_keys(value: Mapping[str, Any], *, known: tuple[str, ...], where: str = "the body") -> None:
    for name in value:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(known)}"
            raise Problem(400, f"{where} has an unknown field {name!r}; {hint}", field=name)


def take(value: Mapping[str, Any], name: str, kind: type | tuple[type, ...], *, default: Any = ...) -> Any:
    """A field of the body, of the kind that it should have."""
    if name not in value or (value[name] is None and default is not ...):
        if default is ...:
            raise Problem(400, f"the body lacks the field {name!r}", field=name)
        return default
    found = value[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(found, kind) or (isinstance(found, bool) and bool not in kinds):
        wanted = " or ".join(_NAMES.get(k, k.__name__) for k in kinds)
        raise Problem(400, f"{name} is a JSON {_kind(found)}, expected {wanted}", field=name)
    return found


_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a whole number",
    bool: "true or false",
}


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case dict():
            return "object"
        case list():
            return "array"
        case str():
            return "string"
        case None:
            return "null"
    return "number"
