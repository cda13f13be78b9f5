"""Requests made from the OpenAPI description, right and wrong ones: none is answered with a 5xx."""

import copy

import hypothesis
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve.index.build import build_live
from serve.up.describe import document
from tests.serve.up.conftest import serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def app(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live") / "index"
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    with build_live(vectors, ids=[f"i{n}" for n in range(30)], model="m", merge_by_itself=False) as live:
        live.save(folder)
    with serving(exported, index=folder) as app:
        yield app


def described(app):
    """The document with the names of this very model in it, so that more than refusals are met."""
    raw = copy.deepcopy(document(app, token=False))
    version = app.state.house.serving.artifact.version
    for operations in raw["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                known = {"name": "tower", "version": version}.get(parameter["name"])
                if known is not None:
                    parameter["schema"] = {"const": known}
    schemas, number = raw["components"]["schemas"], {"type": ["number", "null"]}
    id = {"type": ["integer", "null"], "minimum": 0, "maximum": 20}
    user = {"history": {"type": "array", "items": id}, "age": number}
    columns = {
        name: {"type": "array", "items": of, "minItems": 2, "maxItems": 2}
        for name, of in (("item", id), ("price", number))
    }
    some = {"k": {"type": "integer", "minimum": 1}, "by": {"enum": ["score", "pair"]}}
    schemas["Rank"] = closed({"user": closed(user), "candidates": closed(columns)})
    schemas["Rank"]["properties"] |= some
    vector = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    schemas["Items"]["properties"]["attributes"] = closed({"price": {"type": "array", "items": number}})
    for name in ("Retrieve", "Items"):
        for key in {"vector", "vectors"} & schemas[name]["properties"].keys():
            one = {"type": "array", "items": vector, "minItems": 1, "maxItems": 3}
            schemas[name]["properties"][key] = vector if key == "vector" else one
    tensor = schemas["Tensor"]["properties"]
    tensor["name"] = {"enum": ["item", "price", "history", "history/length", "age", "none"]}
    tensor["data"]["items"] = {"type": ["number", "boolean", "string", "null"]}  # nested ones take their time
    tensor["datatype"] = {"enum": ["INT32", "FP32", "INT64", "BOOL", "BYTES"]}
    return raw


def closed(properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def without_lifespan(app):
    """Clients that come and go would end the server, which stays for the next."""

    async def called(scope, receive, send):
        if scope["type"] == "lifespan":
            for part in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{part}.complete"})
        else:
            await app(scope, receive, send)

    return called


def meet(app, *, examples, mode):
    """Statuses by route."""
    schema = schemathesis.openapi.from_dict(described(app))
    schema.app = without_lifespan(app)
    met = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # a path cannot be wrong in its shape
        met[operation.label] = met_by(operation, examples=examples, mode=mode)
    return met


def met_by(operation, *, examples, mode):
    statuses = set()

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case):
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    run()
    return statuses


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
def test_no_request_is_answered_with_5xx(app, mode):
    met = meet(app, examples=15, mode=mode)
    assert len(met) >= (13 if mode is GenerationMode.POSITIVE else 6)
    if mode is GenerationMode.POSITIVE:
        assert 200 in met["POST /v1/rank"] and 200 in met["GET /v2/models/{name}"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
def test_no_request_of_many_is_answered_with_5xx(app, mode):
    met = meet(app, examples=400, mode=mode)
    if mode is GenerationMode.POSITIVE:
        assert 200 in met["POST /v1/retrieve"] and {200, 400} <= met["POST /v1/items"]
